//! Reading what scripts answer.

use deadpool_redis::redis::Value;

use super::record::Damaged;
use crate::clock::Timestamp;
use crate::store::{ErrorKind, StoreError};

/// An answer of another shape than its script gives.
pub(super) fn strange(op: &'static str, place: &str) -> StoreError {
    StoreError::new(
        op,
        place,
        ErrorKind::Corrupt,
        "Redis answered in a shape that this version does not know",
    )
    .hint("another version of sluicegate may have written there")
}

/// A record that cannot be read.
pub(super) fn damaged(op: &'static str, place: &str, error: &Damaged) -> StoreError {
    StoreError::new(op, place, ErrorKind::Corrupt, error)
}

/// Walks through a list of values.
pub(super) struct Values {
    inner: std::vec::IntoIter<Value>,
    op: &'static str,
    place: String,
}

impl Values {
    pub(super) fn of(value: Value, op: &'static str, place: &str) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) => Ok(Self { inner: values.into_iter(), op, place: place.to_owned() }),
            _ => Err(strange(op, place)),
        }
    }

    fn strange(&self) -> StoreError {
        strange(self.op, &self.place)
    }

    pub(super) fn next(&mut self) -> Option<Value> {
        self.inner.next()
    }

    pub(super) fn left(&self) -> usize {
        self.inner.len()
    }

    pub(super) fn int(&mut self) -> Result<i64, StoreError> {
        let value = self.next().ok_or_else(|| self.strange())?;
        int(&value).ok_or_else(|| self.strange())
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.int().map(Timestamp::from_ms)
    }

    /// Bytes, or `None` for nil and false.
    pub(super) fn bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.next() {
            Some(Value::BulkString(bytes)) => Ok(Some(bytes)),
            Some(Value::SimpleString(text)) => Ok(Some(text.into_bytes())),
            Some(Value::Nil | Value::Boolean(false)) => Ok(None),
            _ => Err(self.strange()),
        }
    }

    pub(super) fn text(&mut self) -> Result<Option<String>, StoreError> {
        self.bytes()?.map(|bytes| String::from_utf8(bytes).map_err(|_| self.strange())).transpose()
    }

    pub(super) fn list(&mut self) -> Result<Self, StoreError> {
        let value = self.next().ok_or_else(|| self.strange())?;
        Self::of(value, self.op, &self.place)
    }

    /// The rest, as bytes.
    pub(super) fn all(mut self) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut found = Vec::with_capacity(self.left());
        while self.left() > 0 {
            found.extend(self.bytes()?);
        }
        Ok(found)
    }
}

pub(super) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(n) => Some(*n),
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}

/// Answers one of several.
pub(super) fn set<T>(answers: &mut [Option<T>], at: usize, answer: T) {
    if let Some(slot) = answers.get_mut(at) {
        *slot = Some(answer);
    }
}
