//! Where a job may send: pure rules on URLs and addresses. A job's URL comes from whoever may enqueue, and the worker
//! stands inside the network, so by default it reaches public addresses over HTTPS and nothing else.

use std::net::{IpAddr, Ipv4Addr};

use url::{Host, Url};

use super::address::not_public;
use crate::names::shown;

/// Ports from 1024 on of services that are not for the public, or that a crafted request could speak to. Below, only 80
/// and 443 are open.
const NOT_WEB: [u16; 27] = [
    1433, 1521, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 4369, 5060, 5432, 5672, 5900, 5984, 6000,
    6379, 6380, 8125, 9042, 9092, 9200, 9300, 10_250, 11_211, 27_017,
];

/// A destination that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The URL itself.
    #[error("url `{url}` is refused: {why}")]
    Url {
        /// What was given, without its password, escaped.
        url: String,
        /// Why.
        why: String,
    },
    /// What its name stands for.
    #[error(
        "host `{host}` is refused: it is {address}, {why}; to send there all the same, add it to `allow` in the settings of the kind"
    )]
    Address {
        /// The host as given.
        host: String,
        /// The address.
        address: IpAddr,
        /// What kind of address that is.
        why: &'static str,
    },
}

/// A URL that may be asked.
#[derive(Debug, Clone)]
pub struct Destination {
    /// As it will be asked.
    pub url: Url,
    /// It is on the list of allowed hosts: any address, and plain HTTP, will do.
    pub allowed: bool,
}

/// Checks a URL against the rules and the list of allowed hosts (`host` or `host:port`).
///
/// # Errors
/// Says what is refused and why; for an address also which one.
pub fn check_url(text: &str, allow: &[String]) -> Result<Destination, Refused> {
    let url = check_form(text)?;
    let host = url.host().ok_or_else(|| refuse(text, "it has no host"))?;
    let port = url.port_or_known_default().unwrap_or_default();
    let name = host.to_string();
    let allowed = allow.iter().any(|entry| {
        entry.eq_ignore_ascii_case(&name) || entry.eq_ignore_ascii_case(&format!("{name}:{port}"))
    });
    if allowed {
        return Ok(Destination { url, allowed });
    }
    if url.scheme() != "https" {
        return Err(refuse(
            text,
            "plain `http` is for hosts that are in `allow` in the settings of the kind",
        ));
    }
    if port < 1024 && !matches!(port, 80 | 443) || NOT_WEB.contains(&port) {
        return Err(refuse(
            text,
            "its port is not one of a web server; to send there all the same, add `host:port` to `allow` in the settings of the kind",
        ));
    }
    let address = match host {
        Host::Ipv4(address) => Some(IpAddr::V4(address)),
        Host::Ipv6(address) => Some(IpAddr::V6(address)),
        Host::Domain(name) if is_local_name(name) => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Host::Domain(_) => None,
    };
    if let Some(address) = address {
        check_address(given_host(text), address)?;
    }
    Ok(Destination { url, allowed })
}

fn refuse(text: &str, why: &str) -> Refused {
    Refused::Url { url: crate::location::without_password(text), why: why.to_owned() }
}

/// Checks what needs no settings: that it is one web address and nothing smuggled beside it.
///
/// # Errors
/// Says what is refused and why.
pub fn check_form(text: &str) -> Result<Url, Refused> {
    // The parser would silently drop line ends and tabs.
    if text.len() > 2_000 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(refuse(text, "it is longer than 2,000 bytes or has white space or control characters"));
    }
    let url = Url::parse(text).map_err(|error| refuse(text, &error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse(text, "only `https` (and `http` for allowed hosts) can be sent to"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(text, "it has a user or password in it"));
    }
    if url.fragment().is_some() {
        return Err(refuse(text, "it has a fragment, which is never sent"));
    }
    Ok(url)
}

/// The host as it was written: `0x7f.1` rather than what it stands for.
fn given_host(text: &str) -> &str {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.split(['/', '\\', '?']).next().unwrap_or(rest)
}

/// Checks an entry of the list of allowed hosts: one that is written otherwise would never match.
///
/// # Errors
/// Says how it is written.
pub fn check_allowed(entry: &str) -> Result<(), String> {
    let fits = Url::parse(&format!("https://{entry}/")).is_ok_and(|url| {
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port_or_known_default().unwrap_or_default();
        entry.eq_ignore_ascii_case(&host) || entry.eq_ignore_ascii_case(&format!("{host}:{port}"))
    });
    if fits {
        return Ok(());
    }
    Err(format!("`allow` has `{}`: expected `host` or `host:port`, as in `127.0.0.1:9000`", shown(entry)))
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Checks one address that a name stands for.
///
/// # Errors
/// When it is not a public one.
pub fn check_address(host: &str, address: IpAddr) -> Result<(), Refused> {
    match not_public(address) {
        None => Ok(()),
        Some(why) => Err(Refused::Address { host: shown(host), address, why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h38_addresses_that_are_not_public_are_refused_in_every_spelling() {
        for host in [
            "169.254.169.254",
            "127.0.0.1",
            "[::1]",
            "0",
            "0x7f.1",
            "2130706433",
            "017700000001",
            "127.1",
            "[::ffff:10.0.0.1]",
            "[64:ff9b::a00:1]",
            "[2002:a00:1::]",
            "100.64.0.1",
            "[fc00::1]",
            "[fd12::1]",
            "[fe80::1]",
            "[ff02::1]",
            "224.0.0.1",
            "255.255.255.255",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "0.0.0.0",
            "[::]",
            "198.18.0.1",
            "[2001::1]",
            "[2001:db8::1]",
            "[::127.0.0.1]",
            "192.0.2.1",
            "192.0.0.8",
            "192.88.99.1",
            "240.0.0.1",
            "[64:ff9b:1::1]",
            "[100::1]",
            "[2001:2::1]",
            "[2001:20::1]",
            "[3fff::1]",
            "[5f00::1]",
            "[fec0::1]",
            "localhost",
            "localhost.",
            "LOCALHOST",
            "a.localhost",
            "127。0。0。1",
            "①②⑦.⓪.⓪.①",
        ] {
            let error = check_url(&format!("https://{host}/hook"), &[]).unwrap_err();
            assert!(matches!(error, Refused::Address { .. }), "{host}: {error}");
        }
        // What was written and what it stands for are both shown.
        let error = check_url("https://017700000001:8443/hook", &[]).unwrap_err().to_string();
        assert!(error.contains("`017700000001:8443`") && error.contains("127.0.0.1"), "{error}");
        for host in [
            "8.8.8.8",
            "[2606:4700::1111]",
            "[2001:4860:4860::8888]",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "example.com",
        ] {
            assert!(check_url(&format!("https://{host}/hook"), &[]).is_ok(), "{host}");
        }
    }

    #[test]
    fn h40_schemes_ports_users_and_tricks_are_refused() {
        for (url, wanted) in [
            ("http://example.com/", "plain `http`"),
            ("file:///etc/passwd", "only `https`"),
            ("gopher://example.com/", "only `https`"),
            ("https://user:s3cret@example.com/", "user or password"),
            ("https://example.com:22/", "port"),
            ("https://example.com:25/", "port"),
            ("https://example.com:6379/", "port"),
            ("https://example.com:11211/", "port"),
            ("https://example.com:0/", "port"),
            ("https://example.com/\0", "control characters"),
            ("https://s3cret@example.com/", "user or password"),
            ("ftp://example.com/", "only `https`"),
            ("javascript:alert(1)", "only `https`"),
            ("data:text/plain,x", "only `https`"),
            ("https://example.com/#x", "fragment"),
            ("https://example.com/\r\nX: y", "control characters"),
            ("https://exa mple.com/", "white space"),
            ("not a url", "white space"),
            ("https://", "empty host"),
        ] {
            let error = check_url(url, &[]).unwrap_err().to_string();
            assert!(error.contains(wanted) && !error.contains("s3cret"), "{url}: {error}");
        }
    }

    #[test]
    fn web_ports_are_open() {
        for port in ["", ":443", ":80", ":8000", ":8080", ":8443", ":3000", ":49152"] {
            assert!(check_url(&format!("https://example.com{port}/"), &[]).is_ok(), "{port}");
        }
    }

    #[test]
    fn an_entry_that_could_never_match_is_refused() {
        for good in ["127.0.0.1", "127.0.0.1:9000", "hooks.internal", "Hooks.Internal:443", "[::1]:9000"] {
            assert_eq!(check_allowed(good), Ok(()), "{good}");
        }
        for bad in ["", "http://127.0.0.1", "hooks.internal/path", "u@host", "0x7f.1", "host:99999", "::1"] {
            assert!(check_allowed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_allowed_host_may_be_private_and_plain_and_no_other_may() {
        let allow = vec!["127.0.0.1:9000".to_owned(), "hooks.internal".to_owned()];
        for good in ["http://127.0.0.1:9000/x", "http://hooks.internal/x", "https://hooks.internal:8443/x"] {
            assert!(check_url(good, &allow).is_ok_and(|to| to.allowed), "{good}");
        }
        for bad in ["http://127.0.0.1:9001/x", "http://127.0.0.1/x", "http://hooks.internal.evil.example/x"] {
            assert!(check_url(bad, &allow).is_err(), "{bad}");
        }
    }
}
