//! JSON pointers (RFC 6901) with one addition: the segment `*` matches every element of an array and every value of an object.

use std::fmt;

use serde_json::Value;

/// Maximum number of segments.
const MAX_SEGMENTS: usize = 32;

/// A pointer to one value, or with `*` to several values, of a JSON document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Each,
    Key(String),
}

/// A value that the document does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// Pointer to the missing value.
    pub pointer: String,
}

impl Pointer {
    /// Parses `/order/items/*/id`; `None` if it does not begin with `/` or has more than 32 segments.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('/')?;
        let segments: Vec<Segment> = rest
            .split('/')
            .map(|part| match part {
                "*" => Segment::Each,
                key => Segment::Key(key.replace("~1", "/").replace("~0", "~")),
            })
            .collect();
        (segments.len() <= MAX_SEGMENTS).then(|| Self { text: text.to_owned(), segments })
    }

    /// The pointer as written in the envelope.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Resolves the pointer to values, each with its own pointer.
    ///
    /// # Errors
    /// A value on the way, or the last one, is absent; null counts as absent.
    pub fn resolve<'v>(&self, value: &'v Value) -> Result<Vec<(String, &'v Value)>, Absent> {
        let mut found = vec![(String::new(), value)];
        for segment in &self.segments {
            let mut next = Vec::with_capacity(found.len());
            for (at, value) in found {
                step(segment, &at, value, &mut next)?;
            }
            found = next;
        }
        match found.iter().find(|(_, value)| value.is_null()) {
            Some((pointer, _)) => Err(Absent { pointer: pointer.clone() }),
            None => Ok(found),
        }
    }

    /// Replaces the first value at this pointer; returns whether there was one.
    pub fn replace(&self, value: &mut Value, new: Value) -> bool {
        let Ok(found) = self.resolve(value) else { return false };
        let Some(at) = found.first().map(|(at, _)| at.clone()) else { return false };
        value.pointer_mut(&at).map(|place| *place = new).is_some()
    }
}

fn step<'v>(
    segment: &Segment,
    at: &str,
    value: &'v Value,
    next: &mut Vec<(String, &'v Value)>,
) -> Result<(), Absent> {
    match (segment, value) {
        (Segment::Each, Value::Array(items)) => {
            next.extend(items.iter().enumerate().map(|(place, item)| (format!("{at}/{place}"), item)));
            Ok(())
        }
        (Segment::Each, Value::Object(map)) => {
            next.extend(map.iter().map(|(key, item)| (format!("{at}/{}", escaped(key)), item)));
            Ok(())
        }
        (Segment::Key(key), Value::Object(_) | Value::Array(_)) => {
            let child = format!("/{}", escaped(key));
            let found = value.pointer(&child).ok_or_else(|| Absent { pointer: format!("{at}{child}") })?;
            next.push((format!("{at}{child}"), found));
            Ok(())
        }
        (Segment::Each, _) => Err(Absent { pointer: format!("{at}/*") }),
        (Segment::Key(key), _) => Err(Absent { pointer: format!("{at}/{}", escaped(key)) }),
    }
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl fmt::Display for Pointer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).expect("a pointer")
    }

    #[test]
    fn finds_every_value_and_names_what_is_missing() {
        let value = json!({"to": ["a", "b"], "by": {"x": {"id": 1}, "y/z": {"id": 2}}, "none": null});
        let texts = |text: &str| {
            let found = pointer(text).resolve(&value).expect("there");
            found.into_iter().map(|(at, value)| format!("{at}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(texts("/to/*"), ["/to/0=\"a\"", "/to/1=\"b\""]);
        assert_eq!(texts("/to/1"), ["/to/1=\"b\""]);
        assert_eq!(texts("/by/*/id"), ["/by/x/id=1", "/by/y~1z/id=2"]);
        for (text, missing) in
            [("/cc", "/cc"), ("/none", "/none"), ("/to/0/*", "/to/0/*"), ("/by/*/no", "/by/x/no")]
        {
            assert_eq!(pointer(text).resolve(&value), Err(Absent { pointer: missing.to_owned() }));
        }
        assert_eq!(pointer("/a/*").resolve(&json!({"a": []})), Ok(vec![]));
        assert_eq!(Pointer::parse("order_id"), None);
        assert_eq!(Pointer::parse(&"/a".repeat(33)), None);
    }

    #[test]
    fn replaces_the_first_value() {
        let mut value = json!({"to": ["a", "b"]});
        assert!(pointer("/to/*").replace(&mut value, json!("c")));
        assert_eq!(value, json!({"to": ["c", "b"]}));
        assert!(!pointer("/cc").replace(&mut value, json!("c")));
    }
}
