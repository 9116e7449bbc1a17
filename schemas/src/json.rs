//! JSON values that keep what the text says: every digit of a number, and every one of several equal keys.
//!
//! [`serde_json::Value`] rounds integers past 64 bits and long decimals to a double, and of several equal keys keeps the
//! last. Two writes that differ would then look equal. It deliberately offers no more than comparison and look-up.

use std::fmt;

use serde_json::Value;

/// Deepest nesting that is parsed, as in `serde_json`.
const MAX_DEPTH: usize = 128;

/// Largest exponent of ten that is parsed. A text beyond it is compared verbatim.
const MAX_EXPONENT: i64 = 100_000;

/// Exponents of ten up to which an integer is written out, as in RFC 8785 (ECMAScript `Number::toString`).
const PLAIN_EXPONENT: i64 = 21;

/// A JSON value. [`fmt::Display`] gives its canonical text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number in canonical text; equal texts are equal values.
    Number(String),
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Self>),
    /// An object, sorted by key; equal keys keep their order.
    Object(Vec<(String, Self)>),
}

impl Json {
    /// Parses a JSON text (RFC 8259); `None` if it is not JSON, nests deeper than 128 levels, or has a number with an
    /// exponent beyond 100,000.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(0)?;
        parser.skip_space();
        (parser.at == text.len()).then_some(value)
    }

    /// The value at an RFC 6901 pointer, `""` for this value itself. Of several equal keys it takes the last, as parsers
    /// do.
    #[must_use]
    pub fn at(&self, pointer: &str) -> Option<&Self> {
        let mut here = self;
        for part in pointer.split('/').skip(1) {
            let key = part.replace("~1", "/").replace("~0", "~");
            here = match here {
                Self::Object(entries) => {
                    entries.iter().rev().find(|(name, _)| *name == key).map(|(_, v)| v)?
                }
                Self::Array(items) => items.get(key.parse::<usize>().ok()?)?,
                Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => return None,
            };
        }
        Some(here)
    }

    /// An object of these entries.
    #[must_use]
    pub fn object(mut entries: Vec<(String, Self)>) -> Self {
        // RFC 8785 section 3.2.3 sorts by UTF-16 code units. The sort is stable.
        entries.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
        Self::Object(entries)
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => {
                let text = number.to_string();
                Self::Number(number_text(&text).unwrap_or(text))
            }
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(items) => Self::Array(items.iter().map(Self::from).collect()),
            Value::Object(map) => {
                Self::object(map.iter().map(|(key, item)| (key.clone(), Self::from(item))).collect())
            }
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => out.write_str("null"),
            Self::Bool(flag) => write!(out, "{flag}"),
            Self::Number(text) => out.write_str(text),
            Self::Text(text) => write_text(text, out),
            Self::Array(items) => {
                out.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(out, "{}{item}", if index > 0 { "," } else { "" })?;
                }
                out.write_str("]")
            }
            Self::Object(entries) => {
                out.write_str("{")?;
                for (index, (key, item)) in entries.iter().enumerate() {
                    out.write_str(if index > 0 { "," } else { "" })?;
                    write_text(key, out)?;
                    write!(out, ":{item}")?;
                }
                out.write_str("}")
            }
        }
    }
}

fn write_text(text: &str, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    out.write_str(&serde_json::to_string(text).expect("a string always serialises"))
}

/// The one text of a number's value: `1.0`, `1` and `10e-1` become `1`, `-0` becomes `0`. No digit is lost.
fn number_text(text: &str) -> Option<String> {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    let kept = digits.trim_end_matches('0');
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    let exponent = exponent.checked_sub(length(fraction))?.checked_add(length(digits) - length(kept))?;
    if exponent.abs() > MAX_EXPONENT {
        return None;
    }
    // Position of the decimal point in `kept`, as in RFC 8785.
    let point = length(kept) + exponent;
    let places = |number: i64| usize::try_from(number).unwrap_or(0);
    Some(if (0..=PLAIN_EXPONENT).contains(&exponent) {
        format!("{sign}{kept}{}", "0".repeat(places(exponent)))
    } else if exponent < 0 && point > 0 {
        let (before, after) = kept.split_at(places(point));
        format!("{sign}{before}.{after}")
    } else if exponent < 0 && point > -6 {
        format!("{sign}0.{}{kept}", "0".repeat(places(-point)))
    } else {
        let (first, after) = kept.split_at(1);
        let dot = if after.is_empty() { "" } else { "." };
        format!("{sign}{first}{dot}{after}e{}", point - 1)
    })
}

/// A parser of one text; every method stands at the byte after what it has read.
struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn next_byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.next_byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, literal: &str) -> Option<()> {
        self.text[self.at..].starts_with(literal).then(|| self.at += literal.len())
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip_space();
        match self.next_byte()? {
            b'n' => self.take("null").map(|()| Json::Null),
            b't' => self.take("true").map(|()| Json::Bool(true)),
            b'f' => self.take("false").map(|()| Json::Bool(false)),
            b'"' => self.string().map(Json::Text),
            b'[' => self.array(depth),
            b'{' => self.object(depth),
            _ => self.number(),
        }
    }

    /// A string; `serde_json` decodes its escapes.
    fn string(&mut self) -> Option<String> {
        let start = self.at;
        self.take("\"")?;
        loop {
            match self.next_byte()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        serde_json::from_str(self.text.get(start..self.at)?).ok()
    }

    fn number(&mut self) -> Option<Json> {
        let start = self.at;
        let is_part = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
        while self.next_byte().is_some_and(is_part) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        is_number(text).then(|| number_text(text).map(Json::Number)).flatten()
    }

    fn array(&mut self, depth: usize) -> Option<Json> {
        self.take("[")?;
        let mut items = Vec::new();
        self.skip_space();
        if self.take("]").is_some() {
            return Some(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_space();
            if self.take("]").is_some() {
                return Some(Json::Array(items));
            }
            self.take(",")?;
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.take("{")?;
        let mut entries = Vec::new();
        self.skip_space();
        if self.take("}").is_some() {
            return Some(Json::Object(entries));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.skip_space();
            self.take(":")?;
            entries.push((key, self.value(depth + 1)?));
            self.skip_space();
            if self.take("}").is_some() {
                return Some(Json::object(entries));
            }
            self.take(",")?;
        }
    }
}

/// Whether the text is a JSON number: RFC 8259 section 6.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_exponent = |text: &str| digits(text.strip_prefix(['+', '-']).unwrap_or(text));
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(is_exponent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(json: &str) -> Option<String> {
        Json::parse(json).map(|value| value.to_string())
    }

    #[test]
    fn numbers_are_equal_by_value() {
        for (number, expected) in [
            ("1.0", "1"),
            ("1e2", "100"),
            ("10E-1", "1"),
            ("-0", "0"),
            ("-0.0e5", "0"),
            ("18446744073709551616", "18446744073709551616"),
            ("18446744073709551617", "18446744073709551617"),
            ("1.50", "1.5"),
            ("0.1", "0.1"),
            ("123456789.25", "123456789.25"),
            ("0.00001", "0.00001"),
            ("0.0000001", "1e-7"),
            ("1.25e-9", "1.25e-9"),
            ("1e21", "1000000000000000000000"),
            ("1e25", "1e25"),
            ("15e24", "1.5e25"),
            ("-2e+3", "-2000"),
        ] {
            assert_eq!(text(number).as_deref(), Some(expected), "{number}");
        }
        for wrong in ["01", "+1", "1.", ".5", "1e", "--1", "1e9999999", "NaN", "Infinity", "1 2"] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_duplicate_key_is_kept() {
        assert_eq!(text(r#"{"b":1,"a":2,"a":3}"#).as_deref(), Some(r#"{"a":2,"a":3,"b":1}"#));
        let value = Json::parse(r#"{"a":2,"a":3,"x/y":[{"z":null}]}"#).expect("JSON");
        assert_eq!(value.at("/a"), Some(&Json::Number("3".to_owned())));
        assert_eq!(value.at("/x~1y/0/z"), Some(&Json::Null));
        assert_eq!(value.at("/x~1y/1"), None);
        assert_eq!(value.at(""), Some(&value));
    }

    #[test]
    fn text_that_is_not_json_is_refused() {
        for wrong in
            ["", "{", "[1,]", "{\"a\" 1}", "{'a':1}", "\"\\ud800\"", "\"\u{1}\"", "nul", "\"a", "\"\\"]
        {
            assert_eq!(text(wrong), None, "{wrong}");
        }
        assert!(text(&format!("{}{}", "[".repeat(100), "]".repeat(100))).is_some());
        assert_eq!(text(&format!("{}{}", "[".repeat(300), "]".repeat(300))), None);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec(("[a-c~/]{0,2}", inner), 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// The text of a value and the value itself have one canonical text, which is its own canonical text and JSON.
        #[test]
        fn text_and_value_agree(value in any_value()) {
            let canonical = Json::from(&value).to_string();
            let printed = value.to_string();
            prop_assert_eq!(text(&printed), Some(canonical.clone()));
            prop_assert_eq!(text(&canonical), Some(canonical.clone()));
            prop_assert!(serde_json::from_str::<Value>(&canonical).is_ok());
        }

        /// What `serde_json` refuses, but for numbers out of its range, is refused; nothing panics.
        #[test]
        fn any_text_is_parsed_or_refused(source in "[\\[\\]{}\",:0-9eE.+\\-ntfa\\\\u é]{0,24}") {
            let ours = Json::parse(&source).is_some();
            match serde_json::from_str::<Value>(&source) {
                Ok(_) => prop_assert!(ours, "{}", source),
                Err(error) => prop_assert!(!ours || error.to_string().contains("out of range"), "{}", source),
            }
        }
    }
}
