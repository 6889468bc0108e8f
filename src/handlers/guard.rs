//! Where a job may send: pure rules on URLs and addresses. A job's URL comes from whoever may enqueue, and the worker
//! stands inside the network, so by default it reaches public addresses over HTTPS and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::names::shown;

/// Ports of services that are not HTTP, and that a crafted request could speak to.
const NOT_WEB: [u16; 22] =
    [1, 7, 19, 20, 21, 22, 23, 25, 53, 110, 111, 135, 139, 143, 389, 445, 465, 587, 993, 995, 5432, 6379];

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
    let refuse =
        |why: &str| Refused::Url { url: crate::location::without_password(text), why: why.to_owned() };
    if text.len() > 2_000 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Refused::Url {
            url: shown(text),
            why: "it is longer than 2,000 bytes or has white space or control characters".into(),
        });
    }
    let url = Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("only `https` (and `http` for allowed hosts) can be sent to"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("it has a user or password in it"));
    }
    if url.fragment().is_some() {
        return Err(refuse("it has a fragment, which is never sent"));
    }
    let host = url.host().ok_or_else(|| refuse("it has no host"))?;
    let port = url.port_or_known_default().unwrap_or_default();
    let name = host.to_string();
    let allowed = allow.iter().any(|entry| {
        entry.eq_ignore_ascii_case(&name) || entry.eq_ignore_ascii_case(&format!("{name}:{port}"))
    });
    if allowed {
        return Ok(Destination { url, allowed });
    }
    if url.scheme() != "https" {
        return Err(refuse("plain `http` is for hosts that are in `allow` in the settings of the kind"));
    }
    if NOT_WEB.contains(&port) {
        return Err(refuse("its port is not one of a web server"));
    }
    let address = match host {
        Host::Ipv4(address) => Some(IpAddr::V4(address)),
        Host::Ipv6(address) => Some(IpAddr::V6(address)),
        Host::Domain(name) if is_local_name(name) => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Host::Domain(_) => None,
    };
    if let Some(address) = address {
        check_address(&name, address)?;
    }
    Ok(Destination { url, allowed })
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

/// What is not public about an address; `None` for a public one.
fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => v6(address),
    }
}

fn v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Some("\"this network\" (0.0.0.0/8)"),
        (127, ..) => Some("a loopback address"),
        (10, ..) | (192, 168, _) => Some("a private address"),
        (172, 16..=31, _) => Some("a private address"),
        (169, 254, _) => Some("a link-local address (cloud metadata lives there)"),
        (100, 64..=127, _) => Some("a carrier's shared address (100.64.0.0/10)"),
        (192, 0, 0) => Some("a protocol assignment (192.0.0.0/24)"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Some("an address for documentation"),
        (192, 88, 99) => Some("a 6to4 relay"),
        (198, 18..=19, _) => Some("an address for benchmarks"),
        (224..=239, ..) => Some("a multicast address"),
        (240..=255, ..) => Some("a reserved or broadcast address"),
        _ => None,
    }
}

fn v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some(inner) = address.to_ipv4_mapped() {
        return v4(inner).or(Some("an IPv4 address in disguise"));
    }
    let [a, b, c, d, e, f, ..] = address.segments();
    match (a, b) {
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0) => Some("a loopback, unspecified or IPv4-compatible address"),
        (0x64, 0xff9b) => Some("an IPv4 address behind NAT64"),
        (0x100, 0) => Some("a discard address"),
        (0x2001, 0) => Some("a Teredo tunnel"),
        (0x2001, 0x2) => Some("an address for benchmarks"),
        (0x2001, 0xdb8) | (0x3fff, _) => Some("an address for documentation"),
        (0x2002, _) => Some("a 6to4 tunnel"),
        (0xfc00..=0xfdff, _) => Some("a private address (fc00::/7)"),
        (0xfe80..=0xfebf, _) => Some("a link-local address"),
        (0xfec0..=0xfeff, _) => Some("a site-local address"),
        (0xff00..=0xffff, _) => Some("a multicast address"),
        (0x2000..=0x3fff, _) => None,
        _ => Some("not a global address"),
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
        for host in ["8.8.8.8", "[2606:4700::1111]", "172.15.0.1", "172.32.0.1", "100.63.0.1", "example.com"]
        {
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
