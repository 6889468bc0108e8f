//! Bytes that are no request, or that could be read as two.

use super::kit::{Answer, Request, Server, exchange, send};

#[tokio::test]
async fn h31_ambiguous_or_oversized_heads_are_refused_and_the_connection_closed() {
    let server = Server::start(|api| api).await;
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = format!("x: {}\r\n", "a".repeat(9 * 1024));
    let uri = format!("/{}", "a".repeat(100 * 1024));
    let post = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let json = r#"{"kind":"echo"}"#;
    let chunked = format!("{:x}\r\n{json}\r\n0\r\n\r\n", json.len());
    let cases: Vec<(&str, String, &[u16])> = vec![
        (
            "CL then TE",
            format!("{post}Content-Length: 15\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
            &[400],
        ),
        (
            "TE then CL",
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 15\r\n\r\n{chunked}"),
            &[400],
        ),
        ("two different CL", format!("{post}Content-Length: 15\r\nContent-Length: 16\r\n\r\n{json}"), &[400]),
        ("two equal CL", format!("{post}Content-Length: 15\r\nContent-Length: 15\r\n\r\n{json}"), &[400]),
        ("CL list", format!("{post}Content-Length: 15, 15\r\n\r\n{json}"), &[400]),
        ("CL +5", format!("{post}Content-Length: +15\r\n\r\n{json}"), &[400]),
        ("CL negative", format!("{post}Content-Length: -1\r\n\r\n{json}"), &[400]),
        (
            "TE chunked, identity",
            format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n{chunked}"),
            &[400],
        ),
        ("TE gzip, chunked", format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n{chunked}"), &[400]),
        (
            "TE twice",
            format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
            &[400],
        ),
        ("obs-fold", "GET /v1/version HTTP/1.1\r\nHost: localhost\r\nx: a\r\n b\r\n\r\n".into(), &[400]),
        ("bare LF", "GET /v1/version HTTP/1.1\nHost: localhost\n\n".into(), &[400]),
        ("one bare LF", "GET /v1/version HTTP/1.1\r\nHost: localhost\nx: y\r\n\r\n".into(), &[400]),
        ("space before colon", "GET /v1/version HTTP/1.1\r\nHost : localhost\r\n\r\n".into(), &[400]),
        ("NUL in header", "GET /v1/version HTTP/1.1\r\nHost: localhost\r\nx: a\0b\r\n\r\n".into(), &[400]),
        ("101 headers", format!("GET /v1/version HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), &[431]),
        ("9 KiB header line", format!("GET /v1/version HTTP/1.1\r\nHost: localhost\r\n{long}\r\n"), &[431]),
        ("100 KiB URI", format!("GET {uri} HTTP/1.1\r\nHost: localhost\r\n\r\n"), &[400, 414, 431]),
        (
            "endless head",
            format!("GET /v1/version HTTP/1.1\r\nHost: localhost\r\n{}", "x: y\r\n".repeat(20_000)),
            &[431],
        ),
    ];
    for (name, bytes, wanted) in cases {
        let text = exchange(server.address, bytes.as_bytes()).await;
        let answer = Answer::first(&text).unwrap_or_else(|| panic!("{name}: {text:?}"));
        assert!(wanted.contains(&answer.status), "{name}: {answer:?}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{name}: nothing more was answered: {text}");
    }
    assert_eq!(server.jobs().await, 0);
}

#[tokio::test]
async fn a_chunked_body_is_read_on_any_request_of_a_connection() {
    let server = Server::start(|api| api).await;
    let chunked = |connection: &str| {
        format!(
            "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: Chunked\r\n\r\n5\r\n{{\"kin\r\na\r\nd\":\"echo\"}}\r\n0\r\n\r\n"
        )
    };
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    super::limits::one_response(&mut stream, chunked("keep-alive").as_bytes(), 201).await;
    super::limits::one_response(&mut stream, chunked("keep-alive").as_bytes(), 201).await;
    super::limits::one_response(&mut stream, chunked("close").as_bytes(), 201).await;
    assert_eq!(server.jobs().await, 3);
    // Every head is looked at, not only the first of a connection.
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let get = b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\n\r\n";
    super::limits::one_response(&mut stream, get, 200).await;
    super::limits::one_response(&mut stream, chunked("keep-alive").as_bytes(), 201).await;
    let both = chunked("keep-alive").replace("\r\nHost", "\r\nContent-Length: 3\r\nHost");
    super::limits::one_response(&mut stream, both.as_bytes(), 400).await;
    assert_eq!(server.jobs().await, 4);
    // Sent ahead, its head cannot be checked any more: refused rather than trusted.
    let ahead = format!("GET /v1/version HTTP/1.1\r\nHost: localhost\r\n\r\n{}", chunked("close"));
    let text = exchange(server.address, ahead.as_bytes()).await;
    assert!(text.contains("HTTP/1.1 400") && text.contains("AMBIGUOUS_REQUEST"), "{text}");
    assert_eq!(server.jobs().await, 4);
}

#[tokio::test]
async fn h36_other_protocols_and_methods_change_nothing() {
    let server = Server::start(|api| api).await;
    let hello = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\0\0\0\0\0\0\0\0\r\n\r\n".as_slice();
    for (name, bytes) in [
        ("h2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice()),
        ("TLS", hello),
        ("HTTP/0.9", b"GET /v1/version\r\n\r\n".as_slice()),
        ("HTTP/2.0", b"GET /v1/version HTTP/2.0\r\nHost: localhost\r\n\r\n".as_slice()),
        ("HTTP/1.2", b"GET /v1/version HTTP/1.2\r\nHost: localhost\r\n\r\n".as_slice()),
        ("redis", b"*1\r\n$4\r\nPING\r\n".as_slice()),
        ("no path", b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n".as_slice()),
    ] {
        let text = exchange(server.address, bytes).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400"), "{name}: {text:?}");
    }
    let connect = b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n";
    let answer = send(server.address, connect).await;
    assert!(matches!(answer.status, 400 | 403 | 404 | 405), "{answer:?}");
    let star = server.send(Request::new("OPTIONS", "*")).await;
    assert_eq!(star.status, 404);
    assert_eq!(server.jobs().await, 0);
}

#[tokio::test]
async fn h17_oversized_bodies_are_refused_before_they_are_read() {
    let server = Server::start(|api| api).await;
    let limit = 256 * 1024;
    let args = |bytes: usize| format!(r#"{{"kind":"echo","args":"{}"}}"#, "x".repeat(bytes - 2));
    assert_eq!(server.post("/v1/jobs", &args(limit)).await.status, 201, "the limit itself is fine");
    server.post("/v1/jobs", &args(limit + 1)).await.problem(413, "ARGS_TOO_LARGE");
    let head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    // Declared: refused although not one byte of it is sent.
    for declared in ["1073741824", "9223372036854775807", "327681"] {
        let bytes = format!("{head}Content-Length: {declared}\r\n\r\n");
        send(server.address, bytes.as_bytes()).await.problem(413, "BODY_TOO_LARGE");
    }
    // Chunked without end: refused as soon as it is over.
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let endless = format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(40));
    send(server.address, endless.as_bytes()).await.problem(413, "BODY_TOO_LARGE");
    // Declared and sent: the refusal is read although the client is still sending.
    let sent = format!("{head}Content-Length: 8000000\r\n\r\n{}", "x".repeat(8_000_000));
    send(server.address, sent.as_bytes()).await.problem(413, "BODY_TOO_LARGE");
    // A client that waits for leave to send gets the refusal instead.
    let asks = format!("{head}Content-Length: 1073741824\r\nExpect: 100-continue\r\n\r\n");
    send(server.address, asks.as_bytes()).await.problem(413, "BODY_TOO_LARGE");
    assert_eq!(server.jobs().await, 1);
}

#[tokio::test]
async fn h33_encoded_bodies_are_refused() {
    let server = Server::start(|api| api).await;
    for encoding in ["gzip", "br", "identity", "gzip, gzip"] {
        let request = Request::new("POST", "/v1/jobs").header("Content-Encoding", encoding);
        server.send(request.json(r#"{"kind":"echo"}"#)).await.problem(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    for kind in ["application/json; charset=utf-16", "application/jsonp", "application/json, text/html", ""] {
        let request = Request::new("POST", "/v1/jobs").header("Content-Type", kind).body(b"{}");
        server.send(request).await.problem(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    let good = Request::new("POST", "/v1/jobs").header("Content-Type", "application/json; charset=UTF-8");
    assert_eq!(server.send(good.body(br#"{"kind":"echo"}"#)).await.status, 201);
}
