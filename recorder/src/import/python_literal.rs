//! Parser of Python literals (`{'a': None, "b": (1, True)}`), which some benchmarks write as tool arguments.
//!
//! It never evaluates names, calls or operators. Sets, bytes, complex numbers, `inf` and `nan` have no JSON form and are errors.

use serde_json::{Map, Number, Value};

/// The deepest nesting; a deeper literal would exhaust the stack.
pub const MAX_DEPTH: usize = 64;

/// A text that is not a Python literal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at byte {offset}")]
pub struct PythonLiteralError {
    /// Byte offset of the error.
    pub offset: usize,
    /// Expected syntax.
    pub expected: &'static str,
}

/// Parses a literal, ignoring white space around it.
///
/// # Errors
/// The text is not a literal; the error has the offset.
pub fn parse(text: &str) -> Result<Value, PythonLiteralError> {
    let mut parser = LiteralParser { text, offset: 0 };
    let value = parser.value(0)?;
    parser.skip_space();
    if parser.offset == text.len() { Ok(value) } else { Err(parser.expected("the end of the text")) }
}

struct LiteralParser<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> LiteralParser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.offset..]
    }

    fn expected(&self, expected: &'static str) -> PythonLiteralError {
        PythonLiteralError { offset: self.offset, expected }
    }

    fn skip_space(&mut self) {
        self.offset = self.text.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.offset += token.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, PythonLiteralError> {
        if depth > MAX_DEPTH {
            return Err(self.expected("fewer than 65 levels"));
        }
        self.skip_space();
        match self.rest().chars().next() {
            Some('{') => self.dict(depth),
            Some('[') => self.sequence(depth, "]").map(|(items, _)| Value::Array(items)),
            Some('(') => self.tuple(depth),
            Some('\'' | '"') => self.string().map(Value::String),
            Some('+' | '-' | '.' | '0'..='9') => self.number(),
            Some(_) => self.name(),
            None => Err(self.expected("a value")),
        }
    }

    fn name(&mut self) -> Result<Value, PythonLiteralError> {
        let word =
            self.rest().split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or("");
        let value = match word {
            "None" => Value::Null,
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            _ => return Err(self.expected("a literal")),
        };
        self.offset += word.len();
        Ok(value)
    }

    fn dict(&mut self, depth: usize) -> Result<Value, PythonLiteralError> {
        self.offset += 1;
        let mut map = Map::new();
        loop {
            self.skip_space();
            if self.eat("}") {
                return Ok(Value::Object(map));
            }
            if !self.rest().starts_with(['\'', '"']) {
                return Err(self.expected("a string key or `}`"));
            }
            let key = self.string()?;
            self.skip_space();
            if !self.eat(":") {
                return Err(self.expected("`:`"));
            }
            let item = self.value(depth + 1)?;
            // As in Python, the last of two equal keys wins.
            map.insert(key, item);
            self.skip_space();
            if !self.eat(",") && !self.rest().starts_with('}') {
                return Err(self.expected("`,` or `}`"));
            }
        }
    }

    /// Parses up to the closing bracket; returns also whether a comma precedes it.
    fn sequence(
        &mut self,
        depth: usize,
        close: &'static str,
    ) -> Result<(Vec<Value>, bool), PythonLiteralError> {
        self.offset += 1;
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            self.skip_space();
            if self.eat(close) {
                return Ok((items, comma));
            }
            if !items.is_empty() && !comma {
                return Err(self.expected("`,` or a closing bracket"));
            }
            items.push(self.value(depth + 1)?);
            self.skip_space();
            comma = self.eat(",");
        }
    }

    fn tuple(&mut self, depth: usize) -> Result<Value, PythonLiteralError> {
        let (mut items, comma) = self.sequence(depth, ")")?;
        // `(1)` is 1 in parentheses, `(1,)` is a tuple of one.
        if items.len() == 1
            && !comma
            && let Some(only) = items.pop()
        {
            return Ok(only);
        }
        Ok(Value::Array(items))
    }

    fn number(&mut self) -> Result<Value, PythonLiteralError> {
        let rest = self.rest();
        let is_part = |(index, letter): &(usize, char)| {
            let after_e = *index > 0 && rest[..*index].ends_with(['e', 'E']);
            letter.is_ascii_digit()
                || matches!(letter, '.' | 'e' | 'E' | '_')
                || (matches!(letter, '+' | '-') && (*index == 0 || after_e))
        };
        let length = rest.char_indices().take_while(is_part).last().map_or(0, |(index, _)| index + 1);
        let digits = rest[..length].replace('_', "");
        let digits = digits.strip_prefix('+').unwrap_or(&digits);
        let number = integer(digits).or_else(|| float(digits)).ok_or_else(|| self.expected("a number"))?;
        self.offset += length;
        Ok(Value::Number(number))
    }

    fn string(&mut self) -> Result<String, PythonLiteralError> {
        let quote = if self.rest().starts_with('"') { '"' } else { '\'' };
        self.offset += 1;
        let mut out = String::new();
        loop {
            let Some(letter) = self.rest().chars().next() else {
                return Err(self.expected("a closing quote"));
            };
            if letter == '\n' {
                return Err(self.expected("a closing quote before the line ends"));
            }
            self.offset += letter.len_utf8();
            match letter {
                '\\' => self.escape(&mut out)?,
                _ if letter == quote => return Ok(out),
                _ => out.push(letter),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), PythonLiteralError> {
        let Some(letter) = self.rest().chars().next() else {
            return Err(self.expected("an escaped character"));
        };
        self.offset += letter.len_utf8();
        let plain = match letter {
            '\n' => return Ok(()),
            '\\' | '\'' | '"' => letter,
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'x' => self.code(2)?,
            'u' => self.code(4)?,
            'U' => self.code(8)?,
            '0'..='7' => self.octal(),
            // Python keeps the backslash of an escape it does not know.
            other => {
                out.push('\\');
                other
            }
        };
        out.push(plain);
        Ok(())
    }

    fn code(&mut self, digits: usize) -> Result<char, PythonLiteralError> {
        let code = self.rest().get(..digits).filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let letter = code.and_then(|text| u32::from_str_radix(text, 16).ok()).and_then(char::from_u32);
        let letter = letter.ok_or_else(|| self.expected("the hexadecimal digits of a character"))?;
        self.offset += digits;
        Ok(letter)
    }

    /// Parses up to two more octal digits after the first one.
    fn octal(&mut self) -> char {
        let start = self.offset - 1;
        let more = self.rest().bytes().take(2).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
        self.offset += more;
        let code = u32::from_str_radix(&self.text[start..self.offset], 8).unwrap_or(0);
        // At most 0o777, and every code below 0xD800 is a character.
        char::from_u32(code).unwrap_or('\u{fffd}')
    }
}

fn integer(digits: &str) -> Option<Number> {
    let bare = digits.strip_prefix('-').unwrap_or(digits);
    // Python has no integers with leading zeros (`007`), so neither do its literals.
    if bare.len() > 1 && bare.starts_with('0') {
        return None;
    }
    digits.parse::<i64>().map(Number::from).or_else(|_| digits.parse::<u64>().map(Number::from)).ok()
}

fn float(digits: &str) -> Option<Number> {
    // An integer too long for 64 bits would lose digits as a double.
    if !digits.contains(['.', 'e', 'E']) {
        return None;
    }
    digits.parse::<f64>().ok().and_then(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn output_of_repr_is_parsed() {
        let text = r#"{'a': None, "b": (1, True), 'c': [-2.5, 1e3,], 'it\'s': "it's", 'n': '\n\x41\u00e9\U0001f600\101'}"#;
        let value = json!({"a": null, "b": [1, true], "c": [-2.5, 1000.0], "it's": "it's", "n": "\nA\u{e9}\u{1f600}A"});
        assert_eq!(parse(text), Ok(value));
        assert_eq!(parse("(1)"), Ok(json!(1)));
        assert_eq!(parse("(1,)"), Ok(json!([1])));
        assert_eq!(parse(" () "), Ok(json!([])));
        assert_eq!(parse(r"'\d'"), Ok(json!("\\d")));
    }

    #[test]
    fn other_texts_are_errors() {
        for text in [
            "",
            "{'a'}",
            "{1, 2}",
            "{'a': 1",
            "'a",
            "f('x')",
            "nan",
            "[1 2]",
            "'a' 'b'",
            "007",
            "1+2",
            "--1",
            "true",
            "123456789012345678901234567890",
            "{'a': b'x'}",
            "'\\ud800'",
            "'a\nb'",
            "1.2.3",
            "[,]",
            "{,}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse(&deep).is_err());
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            (-1e6..1e6f64).prop_map(Value::from),
            any::<String>().prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                proptest::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    /// Writes a value as Python's `repr` does, escaping what is not ASCII.
    fn repr(value: &Value) -> String {
        let text = |text: &str| {
            let escaped: String = text
                .chars()
                .map(|letter| match letter {
                    '\\' => "\\\\".to_owned(),
                    '\'' => "\\'".to_owned(),
                    ' '..='~' => letter.to_string(),
                    _ => format!("\\U{:08x}", u32::from(letter)),
                })
                .collect();
            format!("'{escaped}'")
        };
        match value {
            Value::Null => "None".to_owned(),
            Value::Bool(flag) => if *flag { "True" } else { "False" }.to_owned(),
            Value::Number(number) => number.to_string(),
            Value::String(string) => text(string),
            Value::Array(items) => format!("[{}]", items.iter().map(repr).collect::<Vec<_>>().join(", ")),
            Value::Object(map) => {
                let items: Vec<_> =
                    map.iter().map(|(key, item)| format!("{}: {}", text(key), repr(item))).collect();
                format!("{{{}}}", items.join(", "))
            }
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_texts_like_literals(text in r#"[\{\}\[\]\(\)'",:\\xuU0-9a-f eE.+\-_NTF\n]{0,40}"#) {
            let _ = parse(&text);
        }

        #[test]
        fn repr_and_parse_round_trip(value in json_value()) {
            prop_assert_eq!(parse(&repr(&value)), Ok(value));
        }
    }
}
