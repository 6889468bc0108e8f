//! Where a store is: the URL that commands, configuration and apps name it by; and what it must promise. And where this is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{escaped, shown};

/// The name of this host, as the kernel tells it; `host` where it does not.
#[must_use]
pub fn host() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .unwrap_or_default();
    let told = told.trim();
    if told.is_empty() { "host".to_owned() } else { told.to_owned() }
}

/// The same by the rule for names, which it need not follow itself.
#[must_use]
pub fn host_word() -> String {
    word_of(&host())
}

pub(crate) fn word_of(host: &str) -> String {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let word: String = host
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if valid(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .collect();
    if word.is_empty() { "host".to_owned() } else { word }
}

/// The place of a store.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// One SQLite file: `sqlite:PATH`, `sqlite://PATH`, or a bare path that ends in `.db`.
    Sqlite(PathBuf),
    /// A Redis server: `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, or `rediss://…` over TLS.
    Redis(RedisUrl),
}

/// The place of a Redis server. Printed without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    full: String,
    host: String,
    tls: bool,
}

impl RedisUrl {
    /// The whole URL, with the password: for the connection only.
    #[must_use]
    pub fn full(&self) -> &str {
        &self.full
    }

    /// Whether what is sent there can be read on the way: it is neither this machine nor encrypted.
    #[must_use]
    pub fn is_plain_remote(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        !here && !self.tls
    }

    /// Whether it is reached over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The same with a password that the URL does not have.
    #[must_use]
    pub fn with_password(&self, password: &str) -> Self {
        let (scheme, rest) = self.full.split_once("://").unwrap_or(("redis", &self.full));
        let (user, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        let user = user.split(':').next().unwrap_or_default();
        let escaped: String = password.bytes().map(|byte| format!("%{byte:02x}")).collect();
        Self { full: format!("{scheme}://{user}:{escaped}@{place}"), host: self.host.clone(), tls: self.tls }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (tls, rest) = match (text.strip_prefix("redis://"), text.strip_prefix("rediss://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err("expected `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, or `rediss://…` for TLS"),
        };
        if rest.contains(['?', '#']) {
            return Err(
                "Redis URLs take no parameters here: a password that has `?`, `#`, `/` or `@` in it belongs into `store.password_file`",
            );
        }
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        let (address, db) = place.split_once('/').unwrap_or((place, ""));
        if !db.is_empty() && db.parse::<u16>().is_err() {
            return Err("the database after the `/` is not a number");
        }
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (address, None),
        };
        if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("the host is missing: expected such as `redis://127.0.0.1:6379/0`");
        }
        if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
            return Err("the port is not a number from 1 to 65535");
        }
        Ok(Self { full: text.to_owned(), host: host.to_owned(), tls })
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.full))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an acknowledged insert survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// On disk: a power cut.
    Disk,
    /// On so many replicas: the loss of the master.
    Replica(u32),
    /// In memory: the death of the client only.
    Memory,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str("disk"),
            Self::Replica(n) => write!(f, "replica {n}"),
            Self::Memory => f.write_str("memory"),
        }
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let replicas = || text.strip_prefix("replica")?.trim().parse().ok().filter(|n| (1..=100).contains(n));
        match text {
            "disk" => Ok(Self::Disk),
            "memory" => Ok(Self::Memory),
            _ => replicas().map(Self::Replica).ok_or_else(|| {
                format!("expected `memory`, `disk` or `replica N` (1 to 100), got `{}`", shown(text))
            }),
        }
    }
}

/// A URL that is not a store's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad store URL `{given}`: {why}")]
pub struct BadStoreUrl {
    /// What was given, without its password, escaped.
    pub given: String,
    /// What is wrong with it.
    pub why: String,
}

impl StoreUrl {
    /// The file, for a store that is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Redis(_) => None,
        }
    }
}

/// A URL without its user and password, escaped and shortened: what may be printed.
#[must_use]
pub fn without_password(url: &str) -> String {
    shown(&masked(url))
}

/// The same at full length. A password of a store that has `/` or `@` in it, which no URL may, stays hidden too.
#[must_use]
pub fn masked(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => match url.split_once(':') {
            Some((scheme, rest)) if scheme.starts_with("redis") => (format!("{scheme}:"), rest),
            _ => return escaped(url),
        },
    };
    let (place, tail) = match scheme.as_str() {
        "sqlite://" => return escaped(url),
        "http://" | "https://" => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
        // A question mark before an `@` belongs to a password.
        _ => match rest.split_once('?') {
            Some((place, tail)) if !tail.contains('@') => (place, "?***"),
            _ => (rest, ""),
        },
    };
    let place = place.rsplit_once('@').map_or_else(|| place.to_owned(), |(_, host)| format!("***@{host}"));
    escaped(&format!("{scheme}{place}{tail}"))
}

impl FromStr for StoreUrl {
    type Err = BadStoreUrl;

    fn from_str(text: &str) -> Result<Self, BadStoreUrl> {
        let bad = |why: &str| BadStoreUrl { given: without_password(text), why: why.to_owned() };
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        let path = match scheme {
            Some("sqlite") => {
                let rest = text
                    .strip_prefix("sqlite://")
                    .or_else(|| text.strip_prefix("sqlite:"))
                    .unwrap_or_default();
                if rest.contains(['?', '#']) {
                    return Err(bad("SQLite URLs take no parameters: expected `sqlite:PATH`"));
                }
                rest
            }
            Some("redis" | "rediss") => return RedisUrl::parse(text).map(Self::Redis).map_err(bad),
            Some("redis+sentinel" | "redis+cluster") => {
                return Err(bad(
                    "this version reaches single servers only: use `redis://HOST:PORT/DB` or `rediss://…`",
                ));
            }
            _ if Path::new(text).extension().is_some_and(|ext| ext == "db") => text,
            _ => return Err(bad("expected `sqlite:PATH` or `redis://HOST:PORT/DB`")),
        };
        if path.is_empty() || path.contains('\0') {
            return Err(bad("the path is empty or has a NUL byte"));
        }
        if path == ":memory:" {
            return Err(bad("a store in memory would lose every job with its process: name a file"));
        }
        Ok(Self::Sqlite(PathBuf::from(path)))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Redis(url) => fmt::Display::fmt(url, f),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sqlite_urls_in_every_spelling() {
        for text in ["sqlite:/a/jobs.db", "sqlite:///a/jobs.db", "/a/jobs.db"] {
            assert_eq!(text.parse::<StoreUrl>().unwrap().path(), Some(Path::new("/a/jobs.db")), "{text}");
        }
    }

    #[test]
    fn redis_urls_and_what_is_wrong_with_others() {
        for (text, plain_remote) in [
            ("redis://127.0.0.1:6379/3", false),
            ("redis://localhost", false),
            ("redis://[::1]:6379", false),
            ("redis://user:pass@redis.internal:6379/0", true),
            ("rediss://user:pass@redis.internal:6379/0", false),
        ] {
            match text.parse::<StoreUrl>().unwrap() {
                StoreUrl::Redis(url) => assert_eq!(url.is_plain_remote(), plain_remote, "{text}"),
                other => unreachable!("{other}"),
            }
        }
        for bad in [
            "redis://",
            "redis://:6379",
            "redis://h:0",
            "redis://h:65536",
            "redis://h/x",
            "redis://h?db=1",
            "redis:h",
        ] {
            assert!(bad.parse::<StoreUrl>().is_err(), "{bad}");
        }
        let url = RedisUrl::parse("redis://me@host:1/2").unwrap().with_password("a/b@c");
        assert_eq!(
            (url.full(), url.to_string().as_str()),
            ("redis://me:%61%2f%62%40%63@host:1/2", "redis://***@host:1/2")
        );
    }

    #[test]
    fn h14_a_password_is_never_printed() {
        let error = "redis+cluster://user:s3cret@host:6379/0".parse::<StoreUrl>().unwrap_err().to_string();
        assert!(!error.contains("s3cret") && error.contains("***@host"), "{error}");
        for (url, printed) in [
            ("redis://me:s3/cr@t@host:6379/0", "redis://***@host:6379/0"),
            ("redis:me:s3cret@host", "redis:***@host"),
            ("redis://host?password=s3cret", "redis://host?***"),
            ("https://me:s3cret@host/@ada?q=1", "https://***@host/@ada?q=1"),
            ("redis://me:s3?ret@host", "redis://***@host"),
            ("sqlite:///a@b.db", "sqlite:///a@b.db"),
            ("ada@example.org", "ada@example.org"),
        ] {
            assert_eq!(without_password(url), printed);
        }
        for bad in ["", "mysql://x", "sqlite:", "sqlite::memory:", "sqlite:x.db?mode=ro"] {
            assert!(bad.parse::<StoreUrl>().is_err(), "{bad}");
        }
    }
}
