//! The local inbox over a socket.

use std::sync::Arc;

use sluicegate::JobId;
use sluicegate::clock::Timestamp;
use sluicegate::handlers::{Inbox, InboxMessage};
use sluicegate::http::inbox::FileInbox;

use super::kit::Server;

pub(super) fn message(subject: &str) -> InboxMessage {
    InboxMessage {
        job: JobId::new(),
        kind: "notify.email".into(),
        at: Timestamp::from_ms(1_768_036_445_123),
        to: "Ada <ada@example.org>".into(),
        subject: subject.into(),
        headers: vec![("Message-ID".into(), "<x@y>".into())],
        body: "Dear Ada,\n\n<b>hello</b>\n".into(),
    }
}

#[tokio::test]
async fn messages_are_shown_as_a_page_and_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let inbox = Arc::new(FileInbox::open(dir.path().join("inbox"), 500).unwrap());
    let server = Server::start(|api| api.inbox(Arc::clone(&inbox))).await;
    assert!(server.get("/dev/inbox").await.body.contains("Nothing yet"));

    let first = message("report-one");
    inbox.keep(first.clone()).unwrap();
    inbox.keep(InboxMessage { at: Timestamp::from_ms(1_768_036_445_124), ..message("report-two") }).unwrap();
    let page = server.get("/dev/inbox").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.body.find("report-two").unwrap() < page.body.find("report-one").unwrap(), "newest first");
    assert!(page.body.contains("&lt;b&gt;hello") && page.body.contains("Ada &lt;ada@example.org&gt;"));
    let json = server.get("/dev/inbox.json").await.json();
    assert_eq!((&json["total"], &json["messages"][1]["subject"]), (&2.into(), &"report-one".into()));
    let filtered = server.get(&format!("/dev/inbox.json?job={}", first.job)).await.json();
    assert_eq!(filtered["messages"].as_array().unwrap().len(), 1);
    assert!(!server.get(&format!("/dev/inbox?job={}", first.job)).await.body.contains("report-two"));
    server.get("/dev/inbox?job=nope").await.problem(400, "BAD_PARAMETER");
    server.get("/dev/inbox?limit=501").await.problem(400, "BAD_PARAMETER");
}

#[tokio::test]
async fn h34_hostile_messages_are_text_and_the_page_runs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let inbox = Arc::new(FileInbox::open(dir.path(), 500).unwrap());
    let evil = "</pre></details><script>alert(1)</script><img src=x onerror=alert(1)>\"'&";
    inbox
        .keep(InboxMessage {
            kind: evil.into(),
            to: evil.into(),
            headers: vec![(evil.into(), evil.into())],
            body: evil.into(),
            ..message(evil)
        })
        .unwrap();
    let server = Server::start(|api| api.inbox(inbox)).await;
    let page = server.get("/dev/inbox").await;
    assert!(!page.body.contains("<script") && !page.body.contains("<img") && !page.body.contains("\"'&\""));
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("script") && !policy.contains("unsafe")
    );
    assert!(!page.body.contains("<style") && !page.body.contains(" style="), "the policy would block it");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(server.get("/dev/inbox.css").await.header("content-type"), Some("text/css; charset=utf-8"));
}

#[tokio::test]
async fn without_an_inbox_there_is_none() {
    let server = Server::start(|api| api).await;
    for path in ["/dev/inbox", "/dev/inbox.json", "/dev/inbox.css"] {
        server.get(path).await.problem(404, "NO_INBOX");
    }
}
