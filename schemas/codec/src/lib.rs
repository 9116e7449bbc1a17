//! Records on their way from the tap to the archive: the frames of the journal and the values of the Kafka topic.
//!
//! Bytes in, values out: no file, no client, no clock.

mod record;

pub use record::{
    PARCEL_VERSION, Parcel, ParcelView, RECORD_VERSION, Record, RecordError, RecordReader, message_key, pack,
    unpack,
};
