//! Identifiers: newtypes whose values are safe to store, to log and to escape into a path.
//!
//! No type generates a value; callers supply randomness.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Maximum length of an identifier in bytes; longer ones come from broken or hostile clients.
pub const MAX_ID_BYTES: usize = 512;

/// A text that is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("{kind} is empty")]
    Empty {
        /// Kind of the identifier.
        kind: &'static str,
    },
    /// The text has more than [`MAX_ID_BYTES`] bytes.
    #[error("{kind} has {bytes} bytes, at most {MAX_ID_BYTES} are allowed")]
    TooLong {
        /// Kind of the identifier.
        kind: &'static str,
        /// Length of the text.
        bytes: usize,
    },
    /// The text contains a control character.
    #[error("{kind} {text:?} contains a control character")]
    Control {
        /// Kind of the identifier.
        kind: &'static str,
        /// The rejected text.
        text: String,
    },
}

fn parse(kind: &'static str, text: &str) -> Result<Arc<str>, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { kind });
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong { kind, bytes: text.len() });
    }
    // Unicode has control characters beyond ASCII; the search for them is slower.
    if text.bytes().any(|byte| byte.is_ascii_control())
        || (!text.is_ascii() && text.chars().any(char::is_control))
    {
        return Err(IdError::Control { kind, text: text.to_owned() });
    }
    Ok(Arc::from(text))
}

/// Deserialises an identifier of this kind without an intermediate copy.
struct Parser(&'static str);

impl Visitor<'_> for Parser {
    type Value = Arc<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Arc<str>, E> {
        parse(self.0, text).map_err(E::custom)
    }
}

/// Defines one kind of identifier.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Eq)]
        pub struct $name(Arc<str>);

        impl PartialEq for $name {
            /// Compares the pointers first: most compared identifiers are clones that share their text.
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Parser($kind)).map(Self)
            }
        }

        crate::columns::text_values! {
            $name: $name::as_str;
        }

        impl $name {
            /// Parses the text, which must not be empty, exceed [`MAX_ID_BYTES`] or contain control characters.
            ///
            /// # Errors
            /// The error names the violated rule.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                parse($kind, text).map(Self)
            }

            /// The text of the identifier.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }
    };
}

identifier!(
    /// Tenant; keys, folders and sessions of two tenants never mix.
    TenantId, "tenant");
identifier!(
    /// Agent.
    AgentId, "agent");
identifier!(
    /// Build of an agent.
    BuildId, "build");
identifier!(
    /// Session of an agent, or of one trial of a case.
    SessionId, "session id");
identifier!(
    /// Case: a session chosen for replay. Equal case ids pair the trials of two runs.
    CaseId, "case id");
identifier!(
    /// One start of a recorder process.
    IncarnationId, "incarnation");
identifier!(
    /// One request and its response.
    ExchangeId, "exchange id");
identifier!(
    /// Name of a tool on the wire.
    ToolName, "tool name");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_identifiers_are_refused() {
        assert_eq!(TenantId::parse(""), Err(IdError::Empty { kind: "tenant" }));
        for text in ["a\nb", "\u{7f}", "é\u{85}"] {
            assert!(matches!(SessionId::parse(text), Err(IdError::Control { .. })), "{text:?}");
        }
        assert!(SessionId::parse("é").is_ok());
        assert!(matches!(SessionId::parse(&"x".repeat(513)), Err(IdError::TooLong { bytes: 513, .. })));
        assert_eq!(SessionId::parse("s-1").expect("plain text").as_str(), "s-1");
    }
}
