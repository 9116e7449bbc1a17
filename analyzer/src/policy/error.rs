//! Errors of reading `policy.toml`.

/// A policy that cannot be used. The caller names the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// Line of the key, from 1; absent where the key is missing from the file.
    pub line: Option<usize>,
    /// The fault.
    pub kind: PolicyErrorKind,
}

impl std::fmt::Display for PolicyError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(formatter, "line {line}: ")?;
        }
        self.kind.fmt(formatter)
    }
}

impl std::error::Error for PolicyError {}

/// Fault of a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyErrorKind {
    /// The text is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// A key that the table does not have.
    #[error("unknown key `{key}`{}; allowed here: {allowed}", nearest_text(.nearest.as_deref()))]
    UnknownKey {
        /// The key with its table.
        key: String,
        /// The allowed key that is most similar.
        nearest: Option<String>,
        /// All keys allowed in the table.
        allowed: String,
    },
    /// A value of another type, or outside its range.
    #[error("`{key}` is {found}, expected {expected}; change the value or remove the key to use the default")]
    BadValue {
        /// The key with its table.
        key: String,
        /// The value found.
        found: String,
        /// Allowed values.
        expected: String,
    },
    /// A required key.
    #[error("`{key}` is missing; expected {expected}")]
    Missing {
        /// The key with its table.
        key: String,
        /// Allowed values.
        expected: String,
    },
}

impl PolicyErrorKind {
    /// The key with its table, where the fault is about one.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::Syntax(_) => None,
            Self::UnknownKey { key, .. } | Self::BadValue { key, .. } | Self::Missing { key, .. } => {
                Some(key)
            }
        }
    }
}

fn nearest_text(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

/// The line of the last part of `path` that the text has. Keys can contain dots, as `"effects.extra"` does.
pub(super) fn line_of(text: &str, path: &str) -> Option<usize> {
    let table = toml::de::DeTable::parse(text).ok()?;
    let mut offset = None;
    let mut here: Option<&toml::de::DeTable<'_>> = Some(table.get_ref());
    let mut rest = path;
    while let Some(table) = here.take() {
        let is_prefix = |key: &str| {
            rest.strip_prefix(key).is_some_and(|after| after.is_empty() || after.starts_with(['.', '[', ':']))
        };
        let Some((key, value)) = table.iter().find(|(key, _)| is_prefix(key.get_ref())) else { break };
        offset = Some(key.span().start);
        rest = rest[key.get_ref().len()..].trim_start_matches('.');
        here = value.get_ref().as_table();
    }
    offset.map(|offset| text[..offset].matches('\n').count() + 1)
}
