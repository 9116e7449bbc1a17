//! Arguments of a tool call, in JSON or as a Python literal.

use schemas::canonical::{canonical, canonical_text};

use super::python_literal;

/// Syntax of arguments in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentSyntax {
    /// JSON.
    Json,
    /// A Python literal.
    Python,
    /// Neither; the text is kept.
    Verbatim,
}

/// Normalized arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolArguments {
    /// Canonical JSON, or the unchanged text if it is verbatim.
    pub text: String,
    /// Syntax in the file.
    pub syntax: ArgumentSyntax,
}

impl ToolArguments {
    /// Parses arguments as JSON, else as a Python literal, else keeps the text.
    ///
    /// A Python literal counts only if it is a dict: quoted prose is also a Python literal.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if let Some(text) = canonical_text(text) {
            return Self { text, syntax: ArgumentSyntax::Json };
        }
        match python_literal::parse(text) {
            Ok(value) if value.is_object() => {
                Self { text: canonical(&value), syntax: ArgumentSyntax::Python }
            }
            Ok(_) | Err(_) => Self { text: text.to_owned(), syntax: ArgumentSyntax::Verbatim },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_python_and_other_text_are_told_apart() {
        let parse = |text: &str| {
            let arguments = ToolArguments::parse(text);
            (arguments.text, arguments.syntax)
        };
        assert_eq!(parse(r#"{"b": 1, "a": 2}"#), (r#"{"a":2,"b":1}"#.to_owned(), ArgumentSyntax::Json));
        assert_eq!(parse("{'b': 1, 'a': True}"), (r#"{"a":true,"b":1}"#.to_owned(), ArgumentSyntax::Python));
        assert_eq!(parse(r#"{"a": "#), (r#"{"a": "#.to_owned(), ArgumentSyntax::Verbatim));
        assert_eq!(parse(""), ("{}".to_owned(), ArgumentSyntax::Json));
    }
}
