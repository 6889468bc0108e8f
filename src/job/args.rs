//! A job's arguments: JSON text, checked once at the door and then carried as it is. Only a handler parses it.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Largest arguments of one job, in bytes.
pub const MAX_ARGS: usize = 256 * 1024;
/// Deepest nesting of arguments.
pub const MAX_DEPTH: usize = 64;

/// Arguments that are valid JSON within the limits: no duplicate keys, no trailing data, at most [`MAX_DEPTH`] deep and
/// [`MAX_ARGS`] long. Never printed by `Debug`: payloads stay out of logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Args(Box<str>);

/// Arguments that were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidArgs {
    /// Longer than [`MAX_ARGS`].
    #[error(
        "args of {given} bytes are over the limit of {MAX_ARGS} bytes: store the data elsewhere and pass a reference to it"
    )]
    TooLarge {
        /// How long it is, in bytes.
        given: usize,
    },
    /// Not JSON, or JSON that is refused.
    #[error("args are not acceptable JSON: {what}, at byte {offset}")]
    Json {
        /// Where, counted from 0.
        offset: usize,
        /// What is wrong.
        what: String,
    },
}

impl Args {
    /// Checks a JSON text.
    ///
    /// # Errors
    /// When it is too large, or not JSON within the limits.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidArgs> {
        if text.len() > MAX_ARGS {
            return Err(InvalidArgs::TooLarge { given: text.len() });
        }
        check_json(text, MAX_DEPTH)?;
        let text = std::str::from_utf8(text)
            .map_err(|e| InvalidArgs::Json { offset: e.valid_up_to(), what: "invalid UTF-8".into() })?;
        Ok(Self(text.trim().into()))
    }

    /// Arguments from a typed value.
    ///
    /// # Errors
    /// When it does not serialize to JSON within the limits.
    pub fn of<T: Serialize>(value: &T) -> Result<Self, InvalidArgs> {
        let text =
            serde_json::to_string(value).map_err(|e| InvalidArgs::Json { offset: 0, what: e.to_string() })?;
        Self::parse(text.as_bytes())
    }

    /// What a store kept. It was checked when it was inserted.
    #[must_use]
    pub fn from_store(text: String) -> Self {
        Self(text.into_boxed_str())
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads them as a type.
    ///
    /// # Errors
    /// When they do not have its shape.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }

    /// The same value, whatever the order of keys and the white space.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.0 == other.0
            || match (self.read::<serde_json::Value>(), other.read::<serde_json::Value>()) {
                (Ok(a), Ok(b)) => a == b,
                _ => false,
            }
    }
}

impl Default for Args {
    fn default() -> Self {
        Self("{}".into())
    }
}

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl Serialize for Args {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Args {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get().as_bytes()).map_err(de::Error::custom)
    }
}

/// Checks a whole JSON document: syntax, depth, duplicate keys, trailing data.
///
/// # Errors
/// Names the first fault and the byte where it was met.
pub fn check_json(text: &[u8], max_depth: usize) -> Result<(), InvalidArgs> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let result = Check { left: max_depth }.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    result.map_err(|error| {
        let offset = offset_of(text, error.line(), error.column());
        let mut what = error.to_string();
        if let Some(at) = what.rfind(" at line ") {
            what.truncate(at);
        }
        InvalidArgs::Json { offset, what: crate::names::escaped(&what) }
    })
}

fn offset_of(text: &[u8], line: usize, column: usize) -> usize {
    let mut start = 0;
    for _ in 1..line {
        match text.get(start..).and_then(|rest| rest.iter().position(|&b| b == b'\n')) {
            Some(at) => start += at + 1,
            None => break,
        }
    }
    (start + column.saturating_sub(1)).min(text.len())
}

/// Walks a value without building it.
#[derive(Clone, Copy)]
struct Check {
    left: usize,
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Check {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Self { left }),
            None => Err(E::custom(format!("nested deeper than {MAX_DEPTH} levels"))),
        }
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut keys: HashSet<String> = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(de::Error::custom(format!("duplicate key `{}`", crate::names::shown(&key))));
            }
            keys.insert(key);
            map.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn h18_hostile_json_is_refused_with_its_offset() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let cases: [(&[u8], &str); 8] = [
            (deep.as_bytes(), "nested deeper"),
            (br#"{"a":1,"a":2}"#, "duplicate key `a`"),
            (b"[1e400]", "number out of range"),
            (br#""\ud800""#, "hex escape"),
            (b"{} x", "trailing characters"),
            (b"{\"a\":\xff}", "expected value"),
            (b"\"\xff\"", "invalid unicode"),
            (b"", "EOF"),
        ];
        for (text, wanted) in cases {
            let error = Args::parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted) && error.contains("at byte"), "{error} / {wanted}");
        }
        assert!(Args::parse(format!("{}1{}", "[".repeat(64), "]".repeat(64)).as_bytes()).is_ok());
        assert_eq!(
            Args::parse(b"{\"a\":1,\n\"a\":2}").unwrap_err(),
            InvalidArgs::Json { offset: 10, what: "duplicate key `a`".into() }
        );
    }

    #[test]
    fn h17_args_over_the_limit_are_refused() {
        assert!(Args::parse(format!("\"{}\"", "x".repeat(MAX_ARGS - 2)).as_bytes()).is_ok());
        let error = Args::parse(format!("\"{}\"", "x".repeat(MAX_ARGS - 1)).as_bytes()).unwrap_err();
        assert_eq!(error, InvalidArgs::TooLarge { given: MAX_ARGS + 1 });
    }

    #[test]
    fn content_is_compared_by_value() {
        let args = |text: &str| Args::parse(text.as_bytes()).unwrap();
        assert!(args(r#"{"a":1,"b":[2]}"#).same_content(&args(r#" { "b": [2], "a": 1 } "#)));
        assert!(!args(r#"{"a":1}"#).same_content(&args(r#"{"a":2}"#)));
    }

    #[test]
    fn h23_debug_never_shows_a_payload() {
        assert_eq!(format!("{:?}", Args::parse(br#"{"token":"s3cret"}"#).unwrap()), "<18 bytes>");
    }
}
