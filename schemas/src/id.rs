//! Identifiers: each a newtype that can only hold a value fit to be stored, logged and put into a path.
//!
//! None of these types generates a value: where randomness is wanted the caller brings it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest identifier that is accepted, in bytes. Longer ones come from broken or hostile clients.
pub const MAX_ID_BYTES: usize = 512;

/// Says why a text cannot be an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("{kind} is empty")]
    Empty {
        /// Which identifier was parsed.
        kind: &'static str,
    },
    /// The text has more than [`MAX_ID_BYTES`] bytes.
    #[error("{kind} has {bytes} bytes, at most {MAX_ID_BYTES} are allowed")]
    TooLong {
        /// Which identifier was parsed.
        kind: &'static str,
        /// How long the text is.
        bytes: usize,
    },
    /// The text holds a control character.
    #[error("{kind} {text:?} holds a control character")]
    Control {
        /// Which identifier was parsed.
        kind: &'static str,
        /// The text.
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
    // Beyond ASCII there are control characters too, and looking for them takes longer.
    if text.bytes().any(|byte| byte.is_ascii_control())
        || (!text.is_ascii() && text.chars().any(char::is_control))
    {
        return Err(IdError::Control { kind, text: text.to_owned() });
    }
    Ok(Arc::from(text))
}

/// Parses identifiers of this kind out of what is read, without a copy in between.
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
            /// Most that are compared are clones of one another, and share their text.
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
            /// Parses the text; it must not be empty, over [`MAX_ID_BYTES`], or hold control characters.
            ///
            /// # Errors
            /// Says which of the three it is.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                parse($kind, text).map(Self)
            }

            /// The text itself.
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
    /// Whose traffic it is; keys, stores and sessions of two tenants never mix.
    TenantId, "tenant");
identifier!(
    /// Which agent the work was done by.
    AgentId, "agent");
identifier!(
    /// The identity of an agent version.
    BuildId, "build");
identifier!(
    /// One piece of work of one agent, or one trial of a case.
    SessionId, "session id");
identifier!(
    /// A session chosen for replay; the same case in two runs pairs them.
    CaseId, "case id");
identifier!(
    /// One start of one recorder process.
    IncarnationId, "incarnation");
identifier!(
    /// One request and its answer.
    ExchangeId, "exchange id");
identifier!(
    /// The name of a tool as it stands on the wire.
    ToolName, "tool name");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_cannot_be_stored() {
        assert_eq!(TenantId::parse(""), Err(IdError::Empty { kind: "tenant" }));
        for text in ["a\nb", "\u{7f}", "é\u{85}"] {
            assert!(matches!(SessionId::parse(text), Err(IdError::Control { .. })), "{text:?}");
        }
        assert!(SessionId::parse("é").is_ok());
        assert!(matches!(SessionId::parse(&"x".repeat(513)), Err(IdError::TooLong { bytes: 513, .. })));
        assert_eq!(SessionId::parse("s-1").expect("plain text").as_str(), "s-1");
    }
}
