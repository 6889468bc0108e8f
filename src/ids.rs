//! Identities: job ids and lease nonces.
//!
//! A job id is 16 bytes. Ours are UUIDv7 (RFC 9562), so that ids sort by time: random ids cost SQLite six to eight
//! times the throughput at a million rows. People read and type them as a TypeID: `job_` and 26 characters of
//! lower-case Crockford base32, which a double click selects whole.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

const PREFIX: &str = "job_";
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Namespace of ids that are derived from idempotency keys (a UUIDv5 needs one; drawn once, at random).
const KEY_NAMESPACE: Uuid = Uuid::from_u128(0x6d0f_9c1e_52b4_4f0e_9a3d_7b1c_e84a_2f61);

/// The identity of one job: 16 bytes, time-sorted when we make it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(Uuid);

impl JobId {
    /// A fresh id for now.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id that an idempotency key stands for within a tier: the same key, the same id, in any process.
    #[must_use]
    pub fn from_key(tier: &str, key: &str) -> Self {
        Self(Uuid::new_v5(&KEY_NAMESPACE, format!("{tier}\0{key}").as_bytes()))
    }

    /// The raw 16 bytes, as stores keep them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From raw bytes; `None` unless there are 16 of them.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }

    /// From raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl Default for JobId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0.as_u128();
        let mut text = [0_u8; 26];
        for (i, slot) in text.iter_mut().enumerate() {
            let shift = 5 * (25 - i);
            let digit = ((value >> shift) & 31) as usize;
            *slot = ALPHABET.get(digit).copied().unwrap_or(b'0');
        }
        f.write_str(PREFIX)?;
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a job id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is not a job id: expected `job_` and 26 characters of base32, or a UUID (for a text of your own use an idempotency key)"
)]
pub struct BadJobId {
    /// What was given, escaped and shortened.
    pub given: String,
}

impl FromStr for JobId {
    type Err = BadJobId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadJobId { given: crate::names::shown(text) };
        if let Some(rest) = text.strip_prefix(PREFIX) {
            if rest.len() != 26 {
                return Err(bad());
            }
            let mut value: u128 = 0;
            for (i, byte) in rest.bytes().enumerate() {
                let byte = byte.to_ascii_lowercase();
                let digit = ALPHABET.iter().position(|&c| c == byte).ok_or_else(bad)?;
                if i == 0 && digit > 7 {
                    return Err(bad()); // 26 digits hold 130 bits; the first may only carry 3
                }
                value = (value << 5) | digit as u128;
            }
            return Ok(Self(Uuid::from_u128(value)));
        }
        // The braced, URN and simple forms of UUIDs are refused: one id, one spelling, and nothing to escape in a key.
        if text.len() == 36
            && let Ok(uuid) = Uuid::try_parse(text)
        {
            return Ok(Self(uuid));
        }
        Err(bad())
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What identifies one lease: a random UUIDv4, never a counter. A counter goes back when a store fails over, and an
/// old worker would then hold a valid one again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nonce([u8; 16]);

impl Nonce {
    /// A fresh nonce.
    #[must_use]
    pub fn new() -> Self {
        Self(*Uuid::new_v4().as_bytes())
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// From raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl Default for Nonce {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(4) {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…")
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        for id in [JobId::new(), JobId::from_bytes([0; 16]), JobId::from_bytes([255; 16])] {
            assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
            assert_eq!(id.to_string().len(), 30);
        }
    }

    #[test]
    fn ids_sort_by_time_in_bytes_and_in_text() {
        let (a, b) = (JobId::new(), JobId::new());
        assert!(a < b);
        assert!(a.to_string() < b.to_string());
    }

    #[test]
    fn a_uuid_is_accepted_and_hostile_texts_are_refused() {
        assert!("0190b3f4-7c1e-7000-8000-000000000001".parse::<JobId>().is_ok());
        for bad in ["", "job_", "job_{}", "a:b", "*", "job_zzzzzzzzzzzzzzzzzzzzzzzzzz", &"x".repeat(1024)] {
            let error = bad.parse::<JobId>().unwrap_err();
            assert!(error.to_string().len() < 400, "{error}");
        }
    }

    #[test]
    fn a_key_names_one_id_per_tier() {
        assert_eq!(JobId::from_key("web", "k"), JobId::from_key("web", "k"));
        assert_ne!(JobId::from_key("web", "k"), JobId::from_key("api", "k"));
    }
}
