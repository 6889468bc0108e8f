//! `rediss://`: a server whose certificate is trusted is reached, and no other.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::server::Server;

/// Certificates for this test alone: an authority, and what it issued for 127.0.0.1.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redis/certs").join(name)
}

/// A server that speaks TLS on a second port.
fn encrypted() -> (Server, u16) {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port();
    let server = Server::setup()
        .with(&format!("tls-port {port}"))
        .with(&format!("tls-cert-file {}", file("server.pem").display()))
        .with(&format!("tls-key-file {}", file("server.key").display()))
        .with("tls-auth-clients no")
        .start();
    (server, port)
}

/// `job enqueue`, on a machine that trusts this file of certificates.
fn enqueue(url: &str, trusted: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .env_clear()
        .env("SSL_CERT_FILE", trusted)
        .args(["--store", url, "job", "enqueue", "echo", "-o", "json"])
        .output()
        .expect("it runs")
}

#[test]
fn a_trusted_server_is_reached_over_tls_and_no_other() {
    let (_server, port) = encrypted();
    let (url, ours) = (format!("rediss://127.0.0.1:{port}"), file("ca.pem"));
    let good = enqueue(&url, &ours);
    assert!(good.status.success(), "{good:?}");
    assert!(String::from_utf8_lossy(&good.stdout).contains("\"durability\": \"memory\""), "{good:?}");

    let folder = tempfile::tempdir().expect("a folder");
    let nobody = folder.path().join("none.pem");
    std::fs::write(&nobody, "").expect("written");
    let bad = enqueue(&url, &nobody);
    assert_eq!(bad.status.code(), Some(13), "{bad:?}");
    assert!(String::from_utf8_lossy(&bad.stderr).contains("certificate"), "{bad:?}");
}

#[test]
fn a_plain_server_is_not_taken_for_an_encrypted_one() {
    let server = Server::start();
    let url = format!("rediss://127.0.0.1:{}", server.port());
    let bad = enqueue(&url, &file("ca.pem"));
    assert_eq!(bad.status.code(), Some(13), "{bad:?}");
    assert!(bad.stdout.is_empty() && !String::from_utf8_lossy(&bad.stderr).contains("panicked"), "{bad:?}");
}
