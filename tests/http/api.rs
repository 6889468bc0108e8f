//! `/v1`: what apps send and get.

use std::sync::Arc;

use serde_json::{Value, json};
use sluicegate::http::api_routes;
use sluicegate::store::ErrorKind;

use super::faulty::Faulty;
use super::kit::{Request, Server};
use crate::both::Engine;

async fn a_job_is_stored_shown_and_listed(engine: Engine) {
    let server = Server::on(engine, |api| api).await;
    let body = r#"{"kind":"notify.email","queue":"mail","args":{"to":"ada@example.org"},"tags":{"incident":"4711"}}"#;
    let stored = server.post("/v1/jobs", body).await;
    assert_eq!(stored.status, 201, "{stored:?}");
    let id = stored.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        stored.json(),
        json!({"id": id, "state": "available", "durability": "disk", "replayed": false, "way": "queued"})
    );
    assert_eq!(stored.header("location"), Some(format!("/v1/jobs/{id}").as_str()));

    let shown = server.get(&format!("/v1/jobs/{id}")).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.json()["args"], json!({"to": "ada@example.org"}));
    assert_eq!(shown.json()["tags"], json!({"incident": "4711"}));
    let head = server.send(Request::new("HEAD", &format!("/v1/jobs/{id}"))).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), shown.header("content-length"));

    let listed = server.get("/v1/jobs?state=available&queue=mail&kind=notify.email&limit=1").await;
    assert_eq!(listed.json()["jobs"][0]["id"], json!(id), "{listed:?}");
    assert_eq!(server.get("/v1/jobs?queue=other").await.json()["jobs"], json!([]));
}

async fn a_page_leads_to_the_next_one(engine: Engine) {
    let server = Server::on(engine, |api| api).await;
    for _ in 0..5 {
        assert_eq!(server.post("/v1/jobs", r#"{"kind":"echo"}"#).await.status, 201);
    }
    let (mut seen, mut token) = (Vec::new(), None::<String>);
    loop {
        let more = token.as_ref().map(|token| format!("&page_token={token}")).unwrap_or_default();
        let page = server.get(&format!("/v1/jobs?limit=2{more}")).await;
        assert_eq!(page.status, 200, "{page:?}");
        let jobs = page.json()["jobs"].as_array().unwrap().clone();
        seen.extend(jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        token = page.json()["next_page_token"].as_str().map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 5);
}

async fn the_same_key_and_content_is_the_same_job(engine: Engine) {
    let server = Server::on(engine, |api| api).await;
    let send = async |key: &str, body: &str| {
        let request = Request::new("POST", "/v1/jobs").header("Idempotency-Key", key).json(body);
        server.send(request).await
    };
    let first = send("inc-4711/ada", r#"{"kind":"echo","args":{"a":1}}"#).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None));
    // The draft's quoted spelling, the body's field, and the bare spelling are the same key.
    let again = send("\"inc-4711/ada\"", r#"{"kind":"echo","args":{ "a" : 1 }}"#).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")), "{again:?}");
    let body = r#"{"kind":"echo","args":{"a":1},"idempotency_key":"inc-4711/ada"}"#;
    assert_eq!(server.post("/v1/jobs", body).await.json()["id"], first.json()["id"]);
    assert_eq!(send("inc-4711/ada", body).await.status, 200);

    let reused = send("inc-4711/ada", r#"{"kind":"echo","args":{"a":2}}"#).await;
    assert_eq!(reused.problem(422, "IDEMPOTENCY_KEY_REUSED")["id"], first.json()["id"]);
    send("another", body).await.problem(400, "BAD_IDEMPOTENCY_KEY");
    send("", r#"{"kind":"echo"}"#).await.problem(400, "OUT_OF_RANGE");
    send(&"k".repeat(256), r#"{"kind":"echo"}"#).await.problem(400, "OUT_OF_RANGE");
    let twice =
        Request::new("POST", "/v1/jobs").header("Idempotency-Key", "a").header("Idempotency-Key", "a");
    server.send(twice.json(r#"{"kind":"echo"}"#)).await.problem(400, "BAD_IDEMPOTENCY_KEY");
    assert_eq!(server.jobs().await, 1);
}

async fn h24_an_id_means_one_piece_of_work_for_good(engine: Engine) {
    let server = Server::on(engine, |api| api).await;
    let id = sluicegate::JobId::new();
    let with = |rest: &str| format!(r#"{{"kind":"echo","id":"{id}",{rest}}}"#);
    assert_eq!(server.post("/v1/jobs", &with(r#""args":1"#)).await.status, 201);
    assert_eq!(server.post("/v1/jobs", &with(r#""args":1"#)).await.status, 200);
    for other in [r#""args":2"#, r#""args":1,"queue":"other""#] {
        assert_eq!(server.post("/v1/jobs", &with(other)).await.problem(409, "ID_CONFLICT")["id"], json!(id));
    }
    let long = "x".repeat(1024);
    for bad in ["{}", "a:b", "*", long.as_str()] {
        let refused = server.post("/v1/jobs", &format!(r#"{{"kind":"echo","id":"{bad}"}}"#)).await;
        let detail = refused.problem(400, "BAD_BODY")["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("is not a job id") && detail.len() < 400, "{detail}");
    }
    for bad in ["nope", "%00", "..", "job_01J9Z6"] {
        server.get(&format!("/v1/jobs/{bad}")).await.problem(400, "BAD_JOB_ID");
    }
    server.get(&format!("/v1/jobs/{}", sluicegate::JobId::new())).await.problem(404, "NO_SUCH_JOB");
    assert_eq!(server.jobs().await, 1);
}

async fn a_held_unique_key_names_its_holder(engine: Engine) {
    let server = Server::on(engine, |api| api).await;
    let body = r#"{"kind":"echo","unique":{"key":"report"}}"#;
    let holder = server.post("/v1/jobs", body).await.json()["id"].clone();
    let refused = server.post("/v1/jobs", body).await.problem(409, "UNIQUE_KEY_HELD");
    assert_eq!((&refused["holder"], &refused["holder_state"]), (&holder, &json!("available")));
}

#[tokio::test]
async fn h18_hostile_json_is_refused_with_its_offset() {
    let server = Server::start(|api| api).await;
    let deep = format!(r#"{{"kind":"a","args":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let keys: Vec<String> = (0..100_000).map(|n| format!("\"{n}\":0")).collect();
    let many_keys = format!(r#"{{"kind":"a","args":{{{}}}}}"#, keys.join(","));
    let cases: [(&[u8], &str, u16); 9] = [
        (deep.as_bytes(), "nested deeper", 400),
        (br#"{"kind":"a","args":{"x":1,"x":2}}"#, "duplicate key `x`", 400),
        (br#"{"kind":"a","kind":"b"}"#, "duplicate key `kind`", 400),
        (br#"{"kind":"a","args":1e400}"#, "number out of range", 400),
        (br#"{"kind":"a","args":"\ud800"}"#, "hex escape", 400),
        (b"{\"kind\":\"a\",\"args\":\"\xff\"}", "invalid unicode", 400),
        (br#"{"kind":"a"} {}"#, "trailing characters", 400),
        (b"", "EOF", 400),
        (many_keys.as_bytes(), "over the limit", 413),
    ];
    for (body, wanted, status) in cases {
        let request = Request::new("POST", "/v1/jobs").header("Content-Type", "application/json").body(body);
        let answer = server.send(request).await;
        assert_eq!(answer.status, status, "{wanted}: {answer:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(wanted), "{detail}");
        assert!(status == 413 || detail.contains("at byte"), "{detail}");
    }
    assert_eq!(server.post("/v1/jobs", r#"{"kind":"a","args":-0}"#).await.status, 201, "a zero is a number");
    assert_eq!(server.jobs().await, 1);
}

#[tokio::test]
async fn h21_h22_values_out_of_range_are_refused() {
    let server = Server::start(|api| api).await;
    let tags: Vec<String> = (0..10_000).map(|n| format!("\"t{n}\":\"\"")).collect();
    let many = format!(r#""tags":{{{}}}"#, tags.join(","));
    for (field, wanted) in [
        (r#""run_at":"9999-01-01T00:00:00Z""#, "2200"),
        (r#""run_at":"-000001-01-01T00:00:00Z""#, "2000"),
        (r#""delay":9223372036854775808"#, "366d"),
        (r#""retry":{"max_attempts":1000000000}"#, "1 to 1000"),
        (r#""priority":10"#, "-9 to 9"),
        (r#""expires_in":0"#, "expires_in"),
        (r#""queue":"UPPER""#, "[a-z0-9]"),
        (r#""typo":1"#, "unknown field `typo`"),
        (r#""delay":1,"run_at":"2030-01-01T00:00:00Z""#, "exclude each other"),
        (many.as_str(), "at most 32"),
    ] {
        let refused = server.post("/v1/jobs", &format!(r#"{{"kind":"a",{field}}}"#)).await;
        assert_eq!(refused.status, 400, "{field:.60}: {refused:?}");
        assert!(refused.json()["detail"].as_str().unwrap().contains(wanted), "{refused:?}");
    }
    assert_eq!(server.jobs().await, 0);
}

#[tokio::test]
async fn queries_are_strict() {
    let server = Server::start(|api| api).await;
    for (query, code) in [
        ("limit=0", "BAD_PARAMETER"),
        ("limit=101", "BAD_PARAMETER"),
        ("limit=-1", "BAD_PARAMETER"),
        ("limit=99999999999999999999", "BAD_PARAMETER"),
        ("state=lost", "BAD_PARAMETER"),
        ("queue=..%2Fx", "BAD_PARAMETER"),
        ("queue=%zz", "BAD_PARAMETER"),
        ("queue=a&queue=b", "BAD_PARAMETER"),
        ("offset=5", "UNKNOWN_PARAMETER"),
    ] {
        server.get(&format!("/v1/jobs?{query}")).await.problem(400, code);
    }
    assert_eq!(server.get("/v1/jobs?page_token=junk").await.status, 400);
}

async fn a_batch_answers_each_of_its_jobs(engine: Engine) {
    let server = Server::on(engine, |api| api).await;
    let body = r#"{"jobs":[{"kind":"echo","args":1},{"kind":"../x"},{"kind":"echo","idempotency_key":"k"},
        {"kind":"echo","idempotency_key":"k"},{"kind":"echo","args":2,"idempotency_key":"k"},{"kind":"echo","typo":1}]}"#;
    let answer = server.post("/v1/jobs/batch", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].as_array().unwrap().clone();
    let codes: Vec<&Value> = results.iter().map(|result| &result["error"]["code"]).collect();
    let none = Value::Null;
    let (name, key, body) = (json!("BAD_NAME"), json!("IDEMPOTENCY_KEY_REUSED"), json!("BAD_BODY"));
    assert_eq!(codes, [&none, &name, &none, &none, &key, &body]);
    assert_eq!((&results[2]["id"], &results[3]["replayed"]), (&results[3]["id"], &json!(true)));
    assert_eq!(server.jobs().await, 2);
}

async fn a_batch_has_limits(engine: Engine) {
    let server = Server::on(engine, |api| api).await;
    let jobs = |n: usize| format!(r#"{{"jobs":[{}]}}"#, vec![r#"{"kind":"echo"}"#; n].join(","));
    server.post("/v1/jobs/batch", &jobs(0)).await.problem(400, "OUT_OF_RANGE");
    server.post("/v1/jobs/batch", &jobs(1_001)).await.problem(400, "OUT_OF_RANGE");
    server.post("/v1/jobs/batch", r#"{"jobs":[],"jobs":[]}"#).await.problem(400, "BAD_JSON");
    server
        .post("/v1/jobs/batch", r#"{"jobs":[{"kind":"a","args":{"x":1,"x":1}}]}"#)
        .await
        .problem(400, "BAD_JSON");
    server.post("/v1/jobs/batch", r#"{"job":[]}"#).await.problem(400, "BAD_BODY");
    let keyed = Request::new("POST", "/v1/jobs/batch").header("Idempotency-Key", "k").json(&jobs(1));
    server.send(keyed).await.problem(400, "NOT_FOR_BATCHES");
    assert_eq!(server.jobs().await, 0);
    let answer = server.post("/v1/jobs/batch", &jobs(1_000)).await;
    assert_eq!(answer.json()["results"].as_array().unwrap().len(), 1_000);
    assert_eq!(server.jobs().await, 1_000);
}

#[tokio::test]
async fn a_store_that_is_away_is_a_503_and_one_that_does_not_answer_a_504() {
    let away = Server::over(Arc::new(Faulty::new(ErrorKind::Unavailable)), |api| api);
    for (path, body) in [
        ("/v1/jobs", r#"{"kind":"echo"}"#),
        ("/v1/jobs/batch", r#"{"jobs":[{"kind":"echo"},{"kind":"echo"}]}"#),
    ] {
        let answer = away.post(path, body).await;
        assert_eq!(answer.problem(503, "STORE_UNAVAILABLE")["hint"], json!("wait"));
        assert_eq!(answer.header("retry-after"), Some("5"));
    }
    away.get("/v1/jobs").await.problem(503, "STORE_UNAVAILABLE");

    let silent = Server::over(Arc::new(Faulty::new(ErrorKind::Timeout)), |api| api);
    let id = sluicegate::JobId::new();
    let answer = silent.post("/v1/jobs", &format!(r#"{{"kind":"echo","id":"{id}"}}"#)).await;
    let problem = answer.problem(504, "OUTCOME_UNKNOWN");
    assert_eq!(problem["id"], json!(id));
    assert!(problem["hint"].as_str().unwrap().contains(&id.to_string()), "{problem}");
    let answer = silent.post("/v1/jobs/batch", r#"{"jobs":[{"kind":"echo"}]}"#).await;
    assert_eq!(answer.json()["results"][0]["error"]["code"], json!("OUTCOME_UNKNOWN"));

    let broken = Server::over(Arc::new(Faulty::new(ErrorKind::Newer)), |api| api);
    broken.post("/v1/jobs", r#"{"kind":"echo"}"#).await.problem(500, "STORE_BROKEN");
}

#[tokio::test]
async fn a_panic_ends_its_own_connection_only() {
    let server = Server::over(Arc::new(Faulty::new(ErrorKind::Timeout)), |api| api);
    let path = format!("/v1/jobs/{}", sluicegate::JobId::new());
    for _ in 0..3 {
        server.get(&path).await.problem(500, "INTERNAL");
    }
    assert_eq!(server.get("/v1/version").await.status, 200);
}

#[tokio::test]
async fn paths_are_exact_and_methods_are_named() {
    let server = Server::start(|api| api).await;
    assert_eq!(server.get("/v1/version").await.json()["store"]["engine"], json!("sqlite"));
    for path in [
        "/",
        "/v1",
        "/v1/jobs/",
        "/v1/Jobs",
        "//v1/jobs",
        "/v1/jobs/a/b",
        "/v1/jobs%2f",
        "/v1/./jobs",
        "/openapi",
    ] {
        server.get(path).await.problem(404, "NO_SUCH_PATH");
    }
    let healthz = server.get("/healthz").await;
    assert!(healthz.status == 404 && healthz.body.contains("/livez") && healthz.body.contains("/readyz"));
    // Every route refuses every other method, and says which it takes.
    for (_, path) in api_routes() {
        let taken: Vec<&str> =
            api_routes().filter(|(_, other)| other == &path).map(|(method, _)| method).collect();
        let real = path.replace("{}", &sluicegate::JobId::new().to_string());
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"] {
            if !taken.contains(&method) {
                let answer = server.send(Request::new(method, &real)).await;
                answer.problem(405, "METHOD_NOT_ALLOWED");
                let allow = answer.header("allow").unwrap();
                assert!(taken.iter().all(|method| allow.contains(method)), "{path}: {allow}");
            }
        }
    }
    assert_eq!(server.jobs().await, 0, "h36: nothing but a POST changes anything");
}

on_both! {
    #[tokio::test] async:
        a_job_is_stored_shown_and_listed
        a_page_leads_to_the_next_one
        the_same_key_and_content_is_the_same_job
        h24_an_id_means_one_piece_of_work_for_good
        a_held_unique_key_names_its_holder
        a_batch_answers_each_of_its_jobs
        a_batch_has_limits;
}
