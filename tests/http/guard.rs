//! Who may ask.

use std::sync::Arc;

use sluicegate::http::{Api, api_routes, serve_api};
use sluicegate::names::Tier;
use sluicegate::store::ErrorKind;
use tokio_util::sync::CancellationToken;

use super::faulty::Faulty;
use super::kit::{Answer, Request, Server, TOKEN};

fn with_token(api: Api) -> Api {
    api.token(&format!("{TOKEN}\n")).unwrap()
}

fn is_refused_uniformly(answer: &Answer) -> String {
    answer.problem(401, "UNAUTHORIZED");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"sluicegate\""));
    answer.body.clone()
}

/// (token needed or not) × (every route): generated from the table of routes, so that no route can be forgotten.
#[tokio::test]
async fn h27_every_route_needs_the_token_when_one_is_set() {
    let (open, closed) = (Server::start(|api| api).await, Server::start(with_token).await);
    let routes: Vec<_> = api_routes().chain([("GET", "/no/such/path"), ("BREW", "/v1/jobs")]).collect();
    assert!(routes.len() > 8);
    for (method, path) in routes {
        let path = path.replace("{}", &sluicegate::JobId::new().to_string());
        let request = |server, header: Option<String>| {
            let request = Request::new(method, &path);
            let request = header.into_iter().fold(request, |r, value| r.header("Authorization", &value));
            Server::send(server, request)
        };
        let allowed = request(&closed, Some(format!("Bearer {TOKEN}"))).await;
        let without_guard = request(&open, None).await;
        assert_eq!(allowed.status, without_guard.status, "{method} {path}");
        assert_ne!(allowed.status, 401);
        let mut bodies = Vec::new();
        for wrong in [
            None,
            Some("Bearer".to_owned()),
            Some(format!("Basic {TOKEN}")),
            Some(format!("Bearer {TOKEN}x")),
            Some(format!("Bearer {}", &TOKEN[1..])),
            Some("Bearer ".to_owned() + &TOKEN.to_uppercase()),
            Some(format!("Bearer {TOKEN}{TOKEN}")),
        ] {
            bodies.push(is_refused_uniformly(&request(&closed, wrong).await));
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1, "{bodies:?}");
    }
}

#[tokio::test]
async fn h27_a_token_comes_in_one_header_and_never_in_the_query() {
    let server = Server::start(with_token).await;
    let bearer = format!("Bearer {TOKEN}");
    let twice = Request::new("GET", "/v1/jobs").header("Authorization", &bearer);
    server.send(twice.header("Authorization", &bearer)).await.problem(400, "BAD_AUTHORIZATION");
    for name in ["token", "access_token", "Authorization"] {
        let answer = server.get(&format!("/v1/jobs?{name}={TOKEN}")).await;
        answer.problem(400, "TOKEN_IN_QUERY");
        assert!(!answer.body.contains(TOKEN));
    }
    assert_eq!(
        server.send(Request::new("GET", "/v1/jobs").header("authorization", &bearer)).await.status,
        200
    );
}

#[test]
fn short_tokens_are_refused_and_none_is_printed() {
    let client = || sluicegate::Client::new(Arc::new(Faulty::new(ErrorKind::Full)), Tier::default());
    for bad in ["", "tiny-one", " \n", "0123456789abcdef 0123", "0123456789abcdé0123"] {
        let error = Api::new(client()).token(bad).unwrap_err().to_string();
        assert!(error.contains("openssl rand") && (bad.trim().is_empty() || !error.contains(bad)), "{error}");
    }
    assert!(!format!("{:?}", Api::new(client()).token(TOKEN).unwrap()).contains(TOKEN));
}

#[tokio::test]
async fn h12_without_a_token_only_loopback_is_served() {
    let client = sluicegate::Client::new(Arc::new(Faulty::new(ErrorKind::Full)), Tier::default());
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let refused = serve_api(listener, Api::new(client.clone()), CancellationToken::new()).await.unwrap_err();
    assert!(refused.to_string().contains("without a token"), "{refused}");
    let (listener, ended) = (std::net::TcpListener::bind("0.0.0.0:0").unwrap(), CancellationToken::new());
    ended.cancel();
    serve_api(listener, with_token(Api::new(client)), ended).await.unwrap();
}

#[tokio::test]
async fn h29_other_sites_are_refused_and_cors_is_never_granted() {
    let server = Server::start(|api| api).await;
    let port = server.address.port();
    let own = format!("127.0.0.1:{port}");
    let post = || Request::new("POST", "/v1/jobs").host(&own);
    let foreign = [
        ("Sec-Fetch-Site", "cross-site".to_owned()),
        ("Sec-Fetch-Site", "same-site".to_owned()),
        ("Origin", "https://evil.example".to_owned()),
        ("Origin", "null".to_owned()),
        ("Origin", format!("http://{own}.evil.example")),
        ("Origin", "http://127.0.0.1:1".to_owned()),
    ];
    for (name, value) in &foreign {
        let answer = server.send(post().header(name, value).json(r#"{"kind":"echo"}"#)).await;
        answer.problem(403, "CROSS_SITE");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let mixed = post().header("Sec-Fetch-Site", "same-origin").header("Origin", "https://evil.example");
    server.send(mixed.json(r#"{"kind":"echo"}"#)).await.problem(403, "CROSS_SITE");
    let preflight = Request::new("OPTIONS", "/v1/jobs").host(&own).header("Origin", "https://evil.example");
    let answer = server.send(preflight.header("Access-Control-Request-Method", "POST")).await;
    answer.problem(403, "CROSS_SITE");
    assert!(!answer.head.to_ascii_lowercase().contains("access-control"), "{answer:?}");
    for kind in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"] {
        let form = post().header("Content-Type", kind).body(br#"{"kind":"echo"}"#);
        server.send(form).await.problem(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    assert_eq!(server.jobs().await, 0);
    let ours = post().header("Sec-Fetch-Site", "same-origin").header("Origin", &format!("http://{own}"));
    assert_eq!(server.send(ours.json(r#"{"kind":"echo"}"#)).await.status, 201);
}

#[tokio::test]
async fn h30_a_host_that_is_not_ours_is_refused() {
    let server = Server::start(|api| api.allow_host("jobs.internal")).await;
    let port = server.address.port();
    let get = |host: &str| server.send(Request::new("GET", "/v1/version").host(host));
    for good in
        ["127.0.0.1", "localhost", "LOCALHOST:80", "localhost.", "[::1]:9", "127.9.9.9", "jobs.internal"]
    {
        assert_eq!(get(good).await.status, 200, "{good}");
    }
    assert_eq!(get(&format!("jobs.internal:{port}")).await.status, 200);
    for bad in [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:80",
        "10.0.0.1",
        "a@localhost",
    ] {
        get(bad).await.problem(421, "HOST_NOT_ALLOWED");
    }
    assert_eq!(get("").await.status, 421);
    let none = Request::new("GET", "/v1/version").without("Host");
    server.send(none).await.problem(400, "BAD_HOST");
    let two = Request::new("GET", "/v1/version").header("Host", "127.0.0.1");
    server.send(two).await.problem(400, "BAD_HOST");
    server.send(Request::new("GET", "http://evil.example/v1/version")).await.problem(400, "BAD_HOST");
}

#[tokio::test]
async fn h37_there_is_no_web_socket() {
    let server = Server::start(|api| api).await;
    for (method, path) in api_routes() {
        let request = Request::new(method, path).without("Connection").header("Connection", "Upgrade");
        let answer =
            server.send(request.header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13")).await;
        answer.problem(426, "NO_UPGRADE");
    }
}

#[tokio::test]
async fn every_answer_is_sealed() {
    let server = Server::start(|api| api).await;
    for path in ["/v1/version", "/v1/jobs", "/nothing", "/healthz", "/v1/jobs?limit=x"] {
        let answer = server.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
}
