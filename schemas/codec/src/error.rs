//! The error of encoding and decoding records and message values.

/// A record or message value that cannot be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// No bytes at all.
    #[error("it has no bytes")]
    Empty,
    /// Another version byte.
    #[error(
        "it has version {found}, this build reads version {supported}; read it with the build that wrote it"
    )]
    Version {
        /// The version byte.
        found: u8,
        /// The version that this build reads.
        supported: u8,
    },
    /// A content that ends within a record, or a part number past the number of parts.
    #[error("it is truncated within a record, or its part number is out of range")]
    Truncated,
    /// A record of 4 GiB or more, whose length does not fit its frame.
    #[error("a record of {bytes} bytes does not fit a frame (at most {})", u32::MAX)]
    TooLong {
        /// Length of the encoded record.
        bytes: usize,
    },
    /// Bytes that are not MessagePack of the expected type.
    #[error("it cannot be decoded: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// A value that the encoder refuses.
    #[error("it cannot be encoded: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

/// Splits the version byte off.
///
/// # Errors
/// There are no bytes, or the version is not `supported`.
pub(crate) fn strip_version(bytes: &[u8], supported: u8) -> Result<&[u8], RecordError> {
    match bytes.split_first() {
        None => Err(RecordError::Empty),
        Some((found, rest)) if *found == supported => Ok(rest),
        Some((found, _)) => Err(RecordError::Version { found: *found, supported }),
    }
}
