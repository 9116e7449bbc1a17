//! Records on their way from the tap to the archive: the frames of the journal and the values of Kafka messages.
//!
//! Encoding and decoding only: no file, no Kafka client, no clock.

mod record;

pub use record::{
    MESSAGE_VERSION, MessageValue, MessageValueView, RECORD_VERSION, Record, RecordDecoder, RecordError,
    message_key, read_framed, write_framed,
};
