//! The tables: their columns, and rows to and from the bytes of a Parquet file.
//!
//! Works on bytes in memory; the other modules of `store` read and write files. The row types and their columns are declared in
//! `schemas` (`schemas::columns`). Every file carries the format version, and a reader refuses a version that it does not
//! know. Readers ignore columns that they do not know.

mod arrays;
mod definition;
pub mod encryption;
mod error;
mod fields;
mod pages;
pub mod point_lookup;
mod read;
#[cfg(test)]
mod reference;
mod write;

pub use arrays::{ExchangeWithChunkRows, TableRow};
pub use arrow_schema::DataType;
pub use definition::{FORMAT_KEY, TABLE_KEY, Table};
pub use error::TableError;
pub use read::{ReadOptions, check_keys, decode, decode_all, decode_batch, load, open};
pub use schemas::body::Chunk;
pub use write::{Level, WriteOptions, encode};
