//! H23: what is secret is in nothing that is printed, logged or stored.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sluicegate::handlers::{Email, Webhook, check_settings};
use sluicegate::job::{Handler, JobResult};
use sluicegate::worker::Options;

use super::peer::{Bench, Peer};

const CANARY: &str = "CANARY";

/// Everything that was said.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("a lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Heard {
    fn note(&mut self, what: &dyn Debug) {
        writeln!(self, "{what:?}\n{what:#?}").expect("written");
    }

    async fn run<H: Handler>(&mut self, bench: &Bench, args: Value) -> JobResult {
        let result = bench.run::<H>(&args).await;
        if let Err(error) = &result {
            writeln!(self, "{error}").expect("written");
        }
        self.note(&result);
        result
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("a lock")).into_owned()
    }
}

fn key() -> String {
    format!("whsec_{}", STANDARD.encode("CANARY CANARY CANARY CANARY"))
}

#[tokio::test]
async fn h23_a_canary_in_secrets_is_in_nothing_that_is_printed_or_logged() {
    let mut heard = Heard::default();
    let logs = heard.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || logs.clone())
        .finish();
    let _listening = tracing::subscriber::set_default(subscriber);
    tracing::trace!("the log is heard");

    let mut peer = Peer::start("receiver.py", &key());
    let (port, folder) = (peer.port, tempfile::tempdir().expect("a folder"));
    let password = folder.path().join("password");
    std::fs::write(&password, CANARY).expect("written");
    let hooks = json!({ "secret": key(), "secrets": [key()], "allow": ["127.0.0.1"] });
    let bench = Bench::new(hooks.clone());
    for path in ["ok", "error", "gone", "busy", "endless", "redirect"] {
        let args = json!({ "url": format!("http://127.0.0.1:{port}/{path}") });
        drop(heard.run::<Webhook>(&bench, args).await);
        assert_eq!(peer.received()["verified"], true, "the canary signs");
    }
    for url in ["https://u:CANARY@example.com/", "https://127.0.0.2/", "http://u:CANARY@127.0.0.1/"] {
        drop(heard.run::<Webhook>(&bench, json!({ "url": url })).await);
    }

    let mut server = Peer::start("mailbox.py", "auth");
    let mails = |smtp: &str| json!({ "smtp": smtp, "password_file": password, "from": "a@example.com" });
    let mail = json!({ "to": "b@example.org", "subject": "s", "text": "t" });
    let good = format!("smtp://u@127.0.0.1:{}", server.port);
    for smtp in [&good, "smtp://u:CANARY@127.0.0.1:1", "smtp://u@127.0.0.1:1", "ftp://u:CANARY@127.0.0.1"] {
        drop(heard.run::<Email>(&Bench::new(mails(smtp)), mail.clone()).await);
        heard.note(&check_settings("notify.email", &mails(smtp)));
    }
    assert_eq!(server.received()["password"], CANARY, "the canary was used");

    // Secrets in the wrong place or of the wrong sort.
    for (kind, settings) in [
        ("notify.webhook", json!({ "secrets": "whsec_CANARY" })),
        ("notify.webhook", json!({ "secret": ["CANARY"] })),
        ("notify.webhook", json!({ "secret": "CANARY" })),
        ("notify.webhook", json!({ "secrets": ["CANARY", 7] })),
        ("notify.webhook", json!({ "endpoints": "CANARY" })),
        ("notify.webhook", json!({ "endpoints": { "a": "CANARY" } })),
        (
            "notify.webhook",
            json!({ "endpoints": { "a": { "url": "https://e.example/", "secret": "CANARY" } } }),
        ),
        ("notify.webhook", json!({ "allow": "CANARY" })),
        ("notify.webhook", json!("CANARY")),
        ("notify.email", json!("CANARY")),
        ("notify.email", json!({ "smtp": ["CANARY"] })),
        ("notify.email", json!({ "starttls": "CANARY" })),
        ("echo", json!("CANARY")),
    ] {
        heard.note(&check_settings(kind, &settings).expect_err("refused"));
        let bench = Bench::new(settings.clone());
        match kind {
            "notify.webhook" => {
                let args = json!({ "url": format!("http://127.0.0.1:{port}/ok"), "endpoint": null });
                drop(heard.run::<Webhook>(&bench, args).await);
                drop(heard.run::<Webhook>(&bench, json!({ "endpoint": "a" })).await);
            }
            "notify.email" => drop(heard.run::<Email>(&bench, mail.clone()).await),
            _ => {}
        }
    }
    let settings = BTreeMap::from([("notify.webhook".to_owned(), hooks)]);
    heard.note(&Options { settings, ..Options::default() });

    let heard = heard.text();
    assert!(heard.contains("the log is heard") && heard.contains("535"), "{heard}");
    for secret in [CANARY.to_owned(), STANDARD.encode(CANARY), key()[6..20].to_owned()] {
        let lines: Vec<&str> = heard.lines().filter(|line| line.contains(&secret)).collect();
        assert!(lines.is_empty(), "{lines:#?}");
    }
}
