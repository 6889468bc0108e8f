//! Which addresses are public: everything else is refused, with its reason. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is not public about an address; `None` for a public one.
pub(super) fn not_public(address: IpAddr) -> Option<&'static str> {
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
        (0x2001, 0x1..=0x1ff) => Some("a protocol assignment (2001::/23)"),
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
