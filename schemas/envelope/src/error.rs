//! The error of parsing an envelope.

/// An envelope that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not TOML, or a key that no envelope has, or a value of another type.
    #[error("line {line}: {message}; correct it there")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What was found and expected.
        message: String,
    },
    /// A value that makes no sense there.
    #[error("line {line}: `{key}` is {found}, expected {expected}")]
    BadValue {
        /// The line, from 1.
        line: usize,
        /// The key with its path.
        key: String,
        /// What was found.
        found: String,
        /// What is allowed, and what to do.
        expected: String,
    },
}
