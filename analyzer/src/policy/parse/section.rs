//! Reading typed values out of a TOML table, by the ranges of [`crate::policy::POLICY_KEYS`].

use toml::{Table, Value};

use crate::policy::error::PolicyErrorKind;
use crate::policy::keys::{self, KeyType};

pub(super) type Result<T> = std::result::Result<T, PolicyErrorKind>;

/// A table of the policy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section<'t> {
    pub(super) table: &'t Table,
    /// Path of the table in the file.
    pub(super) path: &'t str,
    /// The table's name in [`keys::POLICY_KEYS`].
    pub(super) name: &'static str,
}

impl<'t> Section<'t> {
    /// A table that has only the keys of `name`.
    ///
    /// # Errors
    /// The value is no table, or the table has another key.
    pub(super) fn new(value: &'t Value, path: &'t str, name: &'static str) -> Result<Self> {
        let table = table_at(value, path)?;
        check_keys(table, path, &keys::allowed(name))?;
        Ok(Self { table, path, name })
    }

    /// The key with its table.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn value_type(&self, key: &str) -> KeyType {
        keys::find(self.name, key).expect("the parser reads only keys of the table of keys").value
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let KeyType::Number(min, max) = self.value_type(key) else { unreachable!("{key} is a number") };
        let found = value
            .as_float()
            .or_else(|| value.as_integer().and_then(|n| i32::try_from(n).ok()).map(f64::from));
        let inside = found.filter(|number| (min..=max).contains(number));
        inside.map(Some).ok_or_else(|| bad(&self.at(key), value, &format!("a number from {min} to {max}")))
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let KeyType::Integer(min, max) = self.value_type(key) else { unreachable!("{key} is an integer") };
        let found = value.as_integer().and_then(|number| u64::try_from(number).ok());
        let inside = found.filter(|number| (min..=max).contains(number));
        inside
            .map(Some)
            .ok_or_else(|| bad(&self.at(key), value, &format!("a whole number from {min} to {max}")))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| bad(&self.at(key), value, "true or false"))
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.table.get(key).map(|value| texts(value, &self.at(key))).transpose()
    }

    /// A required value.
    pub(super) fn required(&self, key: &str, expected: &str) -> Result<&'t Value> {
        self.table.get(key).ok_or_else(|| missing(&self.at(key), expected))
    }
}

pub(super) fn check_keys(table: &Table, path: &str, allowed: &[&str]) -> Result<()> {
    for key in table.keys() {
        if !allowed.contains(&key.as_str()) {
            let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            return Err(unknown(&full, key, allowed));
        }
    }
    Ok(())
}

/// An unknown key, with the most similar allowed one by edit distance.
pub(super) fn unknown(path: &str, key: &str, allowed: &[&str]) -> PolicyErrorKind {
    let nearest = allowed.iter().map(|name| (strsim::levenshtein(key, name), *name)).min();
    let nearest =
        nearest.filter(|(edits, name)| *edits <= 1 + name.len() / 3).map(|(_, name)| name.to_owned());
    PolicyErrorKind::UnknownKey { key: path.to_owned(), nearest, allowed: allowed.join(", ") }
}

pub(super) fn bad(key: &str, found: &Value, expected: &str) -> PolicyErrorKind {
    // JSON is close enough to TOML to show one value.
    let found = serde_json::to_string(found).unwrap_or_else(|_| found.type_str().to_owned());
    PolicyErrorKind::BadValue { key: key.to_owned(), found, expected: expected.to_owned() }
}

pub(super) fn missing(key: &str, expected: &str) -> PolicyErrorKind {
    PolicyErrorKind::Missing { key: key.to_owned(), expected: expected.to_owned() }
}

pub(super) fn table_at<'a>(value: &'a Value, path: &str) -> Result<&'a Table> {
    value.as_table().ok_or_else(|| bad(path, value, "a table"))
}

pub(super) fn texts(value: &Value, key: &str) -> Result<Vec<String>> {
    let list = value.as_array().and_then(|items| {
        items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    list.ok_or_else(|| bad(key, value, "a list of texts"))
}
