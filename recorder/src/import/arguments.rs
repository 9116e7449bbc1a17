//! The arguments of a tool call, however they were spelled.

use schemas::canonical::{canonical, canonical_text};

use super::python_literal;

/// How arguments were spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentSyntax {
    /// JSON.
    Json,
    /// A Python literal.
    Python,
    /// Neither: kept as they stand.
    Verbatim,
}

/// Arguments in their stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolArguments {
    /// Canonical JSON, or the text itself where it is verbatim.
    pub text: String,
    /// How they were spelled.
    pub spelling: ArgumentSyntax,
}

impl ToolArguments {
    /// Reads arguments as JSON, else as a Python literal, else keeps them.
    ///
    /// A bare Python string or number is kept too: arguments are a mapping, and a prose text in quotes is no call.
    #[must_use]
    pub fn read(text: &str) -> Self {
        if let Some(text) = canonical_text(text) {
            return Self { text, spelling: ArgumentSyntax::Json };
        }
        match python_literal::parse(text) {
            Ok(value) if value.is_object() => {
                Self { text: canonical(&value), spelling: ArgumentSyntax::Python }
            }
            Ok(_) | Err(_) => Self { text: text.to_owned(), spelling: ArgumentSyntax::Verbatim },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_spellings() {
        let read = |text: &str| {
            let arguments = ToolArguments::read(text);
            (arguments.text, arguments.spelling)
        };
        assert_eq!(read(r#"{"b": 1, "a": 2}"#), (r#"{"a":2,"b":1}"#.to_owned(), ArgumentSyntax::Json));
        assert_eq!(read("{'b': 1, 'a': True}"), (r#"{"a":true,"b":1}"#.to_owned(), ArgumentSyntax::Python));
        assert_eq!(read(r#"{"a": "#), (r#"{"a": "#.to_owned(), ArgumentSyntax::Verbatim));
        assert_eq!(read(""), ("{}".to_owned(), ArgumentSyntax::Json));
    }
}
