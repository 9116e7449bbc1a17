//! Records on their way from the tap to the archive: the frames of the journal and the values of Kafka messages.
//!
//! Encoding and decoding only: no file, no Kafka client, no clock.

mod error;
mod message;
mod record;

pub use error::RecordError;
pub use message::{
    MESSAGE_VERSION, MessageValue, MessageValueView, decode_framed, message_key, read_framed, write_framed,
};
pub use record::{RECORD_VERSION, Record};
