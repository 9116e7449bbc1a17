//! Types of configuration values: sizes, addresses, prefixes, pointers.
//!
//! Each type parses its own text, and its error names the expected form. Parsing resolves no host name.

use std::fmt;
use std::net::SocketAddr;

use hyper::Uri;
use hyper::header::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A number of bytes above zero: `8388608`, `"512KiB"`, `"8MiB"`, `"1GiB"`. `kB`, `MB` and `GB` are powers of 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The size as a length in memory; the largest `usize` if it does not fit.
    #[must_use]
    pub fn as_len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size above zero such as 8388608, \"512KiB\", \"8MiB\" or \"1GiB\"")
            }
            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                let unexpected = serde::de::Unexpected::Signed(bytes);
                let size = u64::try_from(bytes).ok().filter(|bytes| *bytes > 0).map(ByteSize);
                size.ok_or_else(|| E::invalid_value(unexpected, &self))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                parse_size(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => self.0.fmt(f),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The form of a value in a file, for the reference of keys.
macro_rules! documented {
    ($name:ident, $form:literal) => {
        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $form })
            }

            fn inline_schema() -> bool {
                true
            }
        }
    };
}

documented!(ByteSize, "bytes, such as 8388608 or \"8MiB\"");
documented!(HeaderText, "header name");
documented!(Listen, "address and port");
documented!(PathPrefix, "path");
documented!(Pointer, "JSON pointer");
documented!(Upstream, "URL");

/// The form of a duration in a file: `"30s"`, `"10m"`, `"24h"`.
#[derive(Debug)]
pub(crate) struct DurationText;

documented!(DurationText, "duration, such as \"30s\" or \"24h\"");

fn parse_size(text: &str) -> Option<ByteSize> {
    let bytes = text.parse::<bytesize::ByteSize>().ok()?.as_u64();
    // The crate saturates at the largest number.
    (bytes > 0 && bytes < u64::MAX).then_some(ByteSize(bytes))
}

macro_rules! parsed {
    ($(#[$attribute:meta])* $name:ident($inner:ty), $parse:expr) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name($inner);

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                let parse: fn(&str) -> Result<$inner, &'static str> = $parse;
                parse(&text).map(Self).map_err(|expected| format!("expected {expected}, found {text:?}"))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

parsed!(
    /// Name of an HTTP header, in lower case.
    HeaderText(HeaderName),
    |text| HeaderName::from_bytes(text.as_bytes()).map_err(|_| "a header name such as \"x-session-id\"")
);

impl HeaderText {
    pub(super) fn literal(name: &'static str) -> Self {
        Self(HeaderName::from_static(name))
    }

    /// Lower-case name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

parsed!(
    /// IP address and port to listen on. With port 0 the system chooses a port.
    Listen(SocketAddr),
    |text| text.parse().map_err(|_| "an address and port such as \"127.0.0.1:8080\" or \"[::]:8080\"")
);

impl Listen {
    /// Address and port as configured.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0
    }

    /// Whether the port is 0, so that the system chooses one.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        self.0.port() == 0
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

parsed!(
    /// Prefix of a path, by complete segments. The stored form has no slash at the end, so the root is empty.
    #[derive(Default)]
    PathPrefix(String),
    |text| {
        let valid = text.starts_with('/') && !text.contains(['?', '#']) && !text.chars().any(char::is_control);
        valid.then(|| text.trim_end_matches('/').to_owned()).ok_or("a path such as \"/\" or \"/v1\"")
    }
);

impl PathPrefix {
    pub(super) fn literal(path: &'static str) -> Self {
        Self(path.to_owned())
    }

    /// Prefix without a slash at the end; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Rest of the path after the prefix: empty, or starting with a slash or a question mark. `None` without the prefix.
    #[must_use]
    pub fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(self.0.as_str())?;
        (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

parsed!(
    /// JSON pointer (RFC 6901). The empty pointer selects the complete value.
    Pointer(String),
    |text| {
        let valid = text.is_empty() || text.starts_with('/');
        valid.then(|| text.to_owned()).ok_or("a JSON pointer such as \"/message/text\"")
    }
);

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pointer {
    /// Text of the pointer.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

parsed!(
    /// URL of an upstream: `http` or `https`, a host, and a path that comes before the path of each request.
    Upstream(Uri),
    |text| {
        let expected = "a URL such as \"https://api.openai.com\" or \"http://127.0.0.1:9000/base\"";
        let uri: Uri = text.parse().map_err(|_| expected)?;
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let valid = scheme && uri.host().is_some() && uri.query().is_none();
        // Credentials in a URL would appear in logs and errors.
        let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if valid && plain { Ok(uri) } else { Err(expected) }
    }
);

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Upstream {
    /// URL as configured.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// Path of the URL without a slash at the end; empty if it has none.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0.path().trim_end_matches('/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("8MiB"), Some(ByteSize(8 << 20)));
        assert_eq!(parse_size("1 KiB"), Some(ByteSize(1024)));
        assert_eq!(parse_size("1kB"), Some(ByteSize(1000)));
        assert_eq!(parse_size("12"), Some(ByteSize(12)));
        for text in ["", "MiB", "1XB", "-1", "0", "99999999999999999999", "18446744073709551615GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn prefixes_end_at_segments() {
        let prefix = PathPrefix::try_from("/v1/".to_owned()).expect("a prefix");
        assert_eq!(prefix.rest("/v1/chat?x=1"), Some("/chat?x=1"));
        assert_eq!(prefix.rest("/v1?x"), Some("?x"));
        assert_eq!(prefix.rest("/v10"), None);
        assert_eq!(PathPrefix::default().rest("/any"), Some("/any"));
    }

    #[test]
    fn upstreams_carry_no_credentials() {
        assert!(Upstream::try_from("http://user:secret@host".to_owned()).is_err());
        assert!(Upstream::try_from("ftp://host".to_owned()).is_err());
        assert_eq!(Upstream::try_from("http://host/a/".to_owned()).expect("a URL").base(), "/a");
    }
}
