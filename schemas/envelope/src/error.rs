//! The error of parsing an envelope.

/// An envelope that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not TOML, an unknown key, or a value of a wrong type.
    #[error("line {line}: {message}; correct it there")]
    Syntax {
        /// Line in the file, from 1.
        line: usize,
        /// The message of the TOML parser.
        message: String,
    },
    /// A value that is not allowed for its key.
    #[error("line {line}: `{key}` is {found}, expected {expected}")]
    BadValue {
        /// Line in the file, from 1.
        line: usize,
        /// The key with its path.
        key: String,
        /// The value found.
        found: String,
        /// The allowed values, and the correction.
        expected: String,
    },
}
