//! The configuration: which value wins, and what is refused, with file, line and column.

use std::os::unix::fs::PermissionsExt as _;

use super::kit::Home;

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let home = Home::new();
    let shown = |env: &[(&str, &str)], args: &[&str]| {
        let mut all = vec!["config", "show", "--origin"];
        all.extend(args);
        let ran = home.run_in(env, &all);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.lines().find(|line| line.starts_with("tier =")).unwrap().to_owned()
    };
    assert_eq!(shown(&[], &[]), "tier = default    # default");
    let file = home.config("# a comment\n  tier = \"from-file\"\n");
    assert_eq!(shown(&[], &[]), format!("tier = from-file    # {}:2:10", file.display()));
    let env = [("SLUICEGATE__TIER", "from-env")];
    assert_eq!(shown(&env, &[]), "tier = from-env    # environment SLUICEGATE__TIER");
    assert_eq!(shown(&env, &["--tier", "from-flag"]), "tier = from-flag    # flag --tier");
    // The short variable stands for the flag.
    let both = [("SLUICEGATE__TIER", "from-env"), ("SLUICEGATE_TIER", "from-short")];
    assert!(shown(&both, &[]).starts_with("tier = from-short"), "{}", shown(&both, &[]));
}

#[test]
fn every_origin_is_shown_as_json_too() {
    let home = Home::new();
    let file = home.config("[worker]\nslots = 7\nqueues = [\"mail\", \"web\"]\n[handlers.\"notify.email\"]\nfrom = \"a@example.org\"\n");
    let shown = home.json(&["config", "show"]);
    assert_eq!(shown["worker.slots"]["value"], "7");
    assert_eq!(shown["worker.slots"]["origin"], format!("{}:2:9", file.display()));
    assert_eq!(shown["worker.queues"]["value"], "mail,web");
    assert_eq!(shown["log.level"]["origin"], "default");
    assert!(shown["handlers.notify.email"]["value"].as_str().unwrap().contains("a@example.org"));
    let named = home.write("other.toml", "tier = \"web\"\n");
    let shown = home.json(&["config", "show", "--config", named.to_str().unwrap()]);
    assert_eq!(shown["tier"]["value"], "web");
    assert_eq!(shown["worker.slots"]["value"], "200", "a named file replaces the usual one");
    let env = [("SLUICEGATE_CONFIG", named.to_str().unwrap())];
    assert!(home.run_in(&env, &["config", "show"]).out.contains("tier = web"));
    assert!(home.ok(&["config", "path"]).contains("(read)"));
}

#[test]
fn a_long_value_is_shown_whole() {
    let home = Home::new();
    let url = format!("sqlite:/tmp/{}/jobs.db", "x".repeat(200));
    let shown = home.json(&["config", "show", "--store", &url]);
    assert_eq!(shown["store.url"]["value"], url);
}

/// One refused file: what the error must say after `FILE:`.
fn refused(text: &[u8], wanted: &[&str]) {
    let home = Home::new();
    let file = home.config(text);
    for args in [&["config", "validate"][..], &["status"], &["work"], &["job", "enqueue", "echo"]] {
        let ran = home.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.err.starts_with("error: "), "{ran:?}");
        assert!(ran.err.contains(&file.display().to_string()), "{ran:?}");
        for text in wanted {
            assert!(ran.err.contains(text), "no `{text}` in {}", ran.err);
        }
        assert!(!ran.err.contains(['\x1b', '\r', '\x07']) && !ran.err.contains("panicked"), "{ran:?}");
    }
    assert!(!home.store().exists(), "nothing was opened");
}

#[test]
fn h10_an_unknown_key_is_refused_with_its_neighbour() {
    refused(
        b"tier = \"web\"\n[worker]\nslot = 3\n",
        &[":3:1: unknown key `worker.slot`", "did you mean `worker.slots`?"],
    );
    refused(b"[wroker]\nslots = 3\n", &[":1:2: unknown key `wroker`", "did you mean `worker`?"]);
    refused(b"zzzzzz = 3\n", &[":1:1: unknown key `zzzzzz`", "config docs"]);
    refused("\n  \"clé\\u001b[2J\" = 1".as_bytes(), &[":2:3: unknown key `clé\\x1b[2J`"]);
}

#[test]
fn h10_a_duplicate_key_is_refused() {
    refused(b"tier = \"a\"\ntier = \"b\"\n", &[":2:1: ", "duplicate key"]);
    refused(b"[worker]\nslots = 1\n[worker]\nslots = 2\n", &[":3:", "duplicate key"]);
}

#[test]
fn h10_a_wrong_type_is_refused() {
    refused(
        b"[worker]\nslots = \"many\"\n",
        &[":2:9: `worker.slots`: expected a whole number from 1 to 100000, got string"],
    );
    refused(b"tier = 3\n", &[":1:8: `tier`: expected a name"]);
    refused(b"[worker]\nqueues = \"mail\"\n", &[":2:10: `worker.queues`", "got string"]);
    refused(b"[worker]\nqueues = [\"mail\", 3]\n", &[":2:10: `worker.queues`"]);
    refused(b"worker = 3\n", &[":1:1: "]);
    refused(b"[dev]\ninbox = \"yes\"\n", &[":2:9: `dev.inbox`: expected `true` or `false`"]);
    refused(b"handlers = 3\n", &[":1:12: `handlers`: expected one table per kind"]);
}

#[test]
fn settings_of_unknown_kinds_are_refused_where_kinds_matter() {
    for (text, wanted) in [
        ("[handlers.notify.email]\nfrom = \"x\"\n", ":1:11: no kind `notify`"),
        ("[handlers.\"no.such\"]\n", "it knows echo, notify.email"),
    ] {
        let home = Home::new();
        home.config(text);
        for args in [&["config", "validate"][..], &["work"], &["dev"]] {
            let ran = home.run(args);
            assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
            assert!(ran.err.contains(wanted), "{args:?}: {ran:?}");
        }
        home.ok(&["job", "enqueue", "echo"]);
    }
}

#[test]
fn h11_a_value_out_of_range_is_refused_with_the_range() {
    for value in ["\"0\"", "\"1ms\"", "\"3650d\"", "0", "-1"] {
        refused(
            format!("[worker]\nlease = {value}\n").as_bytes(),
            &[":2:9: `worker.lease`", "from 2s to 1h"],
        );
    }
    for value in ["0", "1000000000", "-5", "99999999999999999999999"] {
        refused(
            format!("[worker]\nslots = {value}\n").as_bytes(),
            &[":2:9: `worker.slots`", "from 1 to 100000"],
        );
    }
    refused(b"[log]\nlevel = \"loud\"\n", &[":2:9: `log.level`", "one of error, warn, info, debug, trace"]);
    refused(b"[worker]\nqueues = [\"../x\"]\n", &[":2:10: `worker.queues`: bad queue name `../x`"]);
    refused(b"[api]\nlisten = \"localhost\"\n", &[":2:10: `api.listen`", "127.0.0.1:7434"]);
}

#[test]
fn h10_bytes_that_are_no_configuration_are_refused() {
    refused(b"\xff\xfe\x00t", &["not UTF-8 at byte 0"]);
    refused(b"tier = \"a\x00b\"\n", &[":1:"]);
    refused(b"tier = \n", &[":1:"]);
    refused(b"tier: web\n", &[":1:"]);
    refused(b"{\"tier\":\"web\"}\n", &[":1:1: "]);
    refused(b"tier = \"web\"\rslots = 3\r", &[":1:"]);
    let mut large = b"tier = \"web\"\n".to_vec();
    large.resize(50 * 1024 * 1024, b'#');
    refused(&large, &["larger than 1048576 bytes"]);
}

#[test]
fn h10_deep_nesting_is_refused_and_not_a_crash() {
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        let deep = format!("tier = {}1{}\n", open.repeat(100_000), close.repeat(100_000));
        refused(deep.as_bytes(), &["recurs"]);
    }
    let dotted = format!("{}x = 1\n", "a.".repeat(100_000));
    refused(dotted.as_bytes(), &["recurs"]);
    let dotted = format!("[handlers.\"echo\"]\n{}x = 1\n", "a.".repeat(100_000));
    refused(dotted.as_bytes(), &["recurs"]);
    let table = format!("[handlers.echo{}]\n", ".a".repeat(100_000));
    refused(table.as_bytes(), &["recurs"]);
}

#[test]
fn h10_a_mark_windows_line_ends_and_tabs_are_fine() {
    for text in
        ["\u{feff}tier = \"web\"\n", "tier = \"web\"\r\n[worker]\r\nslots = 3\r\n", "\ttier\t=\t\"web\"\t\n"]
    {
        let home = Home::new();
        home.config(text);
        assert_eq!(home.json(&["config", "show"])["tier"]["value"], "web", "{text:?}");
    }
    // Lines and columns are right with them, too.
    refused(b"\xef\xbb\xbftier = 3\n", &[":1:8: "]);
    refused(b"# a\r\n\ttier = 3\r\n", &[":2:9: "]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let home = Home::new();
    let ran = home.run(&["status", "--config", "missing.toml"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("cannot read the configuration `missing.toml`"), "{ran:?}");
    std::fs::create_dir_all(home.path("config/sluicegate/sluicegate.toml")).unwrap();
    assert_eq!(home.run(&["status"]).code, 2);
}

#[test]
fn unknown_variables_of_ours_are_refused() {
    let home = Home::new();
    for (name, value, wanted) in [
        ("SLUICEGATE__WORKER__SLOT", "3", "did you mean `SLUICEGATE__WORKER__SLOTS`?"),
        ("SLUICEGATE__ZZZ", "3", "help environment"),
        ("SLUICEGATE__WORKER__SLOTS", "many", "SLUICEGATE__WORKER__SLOTS: expected a whole number from 1"),
        ("SLUICEGATE__WORKER__SLOTS", "", "SLUICEGATE__WORKER__SLOTS: expected"),
        ("SLUICEGATE__TIER", "a:b", "bad tier name"),
    ] {
        let ran = home.run_in(&[(name, value)], &["status"]);
        assert_eq!(ran.code, 2, "{name}: {ran:?}");
        assert!(ran.err.contains(wanted), "{name}: {ran:?}");
    }
    assert!(home.files().is_empty());
}

#[test]
fn h13_a_token_file_that_others_can_read_is_refused() {
    let home = Home::new();
    let token = home.write("token", "a-token-that-is-long-enough-for-anybody\n");
    home.config(format!("[api]\ntoken_file = \"{}\"\n", token.display()));
    for (mode, good) in
        [(0o600, true), (0o640, true), (0o400, true), (0o644, false), (0o666, false), (0o660, false)]
    {
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
        let ran = home.run(&["config", "validate"]);
        assert_eq!(ran.code, if good { 0 } else { 2 }, "{mode:o}: {ran:?}");
        if !good {
            assert!(
                ran.err.contains(&format!("has mode {mode:04o}")) && ran.err.contains("chmod 0640"),
                "{ran:?}"
            );
        }
    }
    std::fs::remove_file(&token).unwrap();
    let ran = home.run(&["config", "validate"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("`api.token_file`: cannot read"), "{ran:?}");
}

#[test]
fn h12_an_api_for_others_needs_a_token() {
    let home = Home::new();
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        for command in ["serve", "dev"] {
            let ran = home.run(&[command, "--api-listen", listen]);
            assert_eq!(ran.code, 2, "{listen}: {ran:?}");
            assert!(ran.err.contains("api.token_file") && ran.err.contains("flag --api-listen"), "{ran:?}");
            assert!(ran.err.contains("hint: listen on 127.0.0.1"), "{ran:?}");
        }
    }
    assert!(home.files().is_empty());
}

#[test]
fn an_empty_token_is_no_token() {
    let home = Home::new();
    let token = home.write("token", "\n");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    home.config(format!("[api]\nlisten = \"0.0.0.0:0\"\ntoken_file = \"{}\"\n", token.display()));
    for args in [&["serve"][..], &["config", "validate"]] {
        let ran = home.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.err.contains("api.token_file"), "{ran:?}");
    }
}

#[test]
fn secrets_in_settings_are_not_shown() {
    let home = Home::new();
    home.config(
        "[handlers.\"notify.webhook\"]\nsecret = \"c4nary\"\nsecret_file = \"/run/x\"\n\
         [handlers.\"notify.email\"]\nurl = \"smtp://me:c4nary@mail.example.org:587\"\npassword = \"c4nary\"\n",
    );
    for args in [&["config", "show"][..], &["config", "show", "--json"], &["config", "show", "--origin"]] {
        let shown = home.ok(args);
        assert!(!shown.contains("c4nary") && shown.contains("***") && shown.contains("/run/x"), "{shown}");
    }
    let ran = home.run(&["config", "validate"]);
    assert!(!ran.err.contains("c4nary") && !ran.out.contains("c4nary"), "{ran:?}");
}

#[test]
fn h14_a_password_in_a_store_url_is_never_printed() {
    let home = Home::new();
    for url in [
        "redis://me:c4nary@host:6379/0",
        "rediss://:c4nary@host",
        "redis://me:c4/nary@host",
        "redis://me:c4nary@x@host",
        "postgres://me:c4nary@host/db",
        "redis:me:c4nary@host",
        "redis://host?password=c4nary",
    ] {
        for ran in [
            home.run(&["-v", "status", "--store", url]),
            home.run_in(&[("SLUICEGATE_STORE", url)], &["work"]),
            home.run_in(&[("SLUICEGATE__STORE__URL", url)], &["config", "show"]),
            home.run_in(&[("SLUICEGATE_STORE", url)], &["status", "--help"]),
        ] {
            assert!(!ran.err.contains("nary") && !ran.out.contains("nary"), "{url}: {ran:?}");
        }
        assert!([2, 13].contains(&home.run(&["status", "--store", url]).code));
    }
}

#[test]
fn h14_what_is_no_store_is_refused() {
    let home = Home::new();
    for (url, wanted) in [
        ("", "expected `sqlite:PATH`"),
        ("sqlite:", "empty"),
        ("sqlite::memory:", "lose every job"),
        ("sqlite:x.db?mode=ro", "no parameters"),
        ("redis://", "the host is missing"),
        ("redis://localhost/jobs", "not a number"),
        ("redis://localhost:x", "the port is not a number"),
        ("redis+cluster://localhost", "single servers only"),
        ("mysql://x", "expected `sqlite:PATH`"),
        ("jobs.txt", "expected `sqlite:PATH`"),
    ] {
        let ran = home.run(&["status", "--store", url]);
        assert_eq!(ran.code, 2, "{url}: {ran:?}");
        assert!(ran.err.contains("bad store URL") && ran.err.contains(wanted), "{url}: {ran:?}");
    }
    assert!(home.files().is_empty());
}

#[test]
fn the_standard_variables_of_telemetry_stand_between_the_file_and_ours() {
    let home = Home::new();
    let shown = |env: &[(&str, &str)], key: &str| {
        let ran = home.run_in(env, &["config", "show", "--origin"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.lines().find(|line| line.starts_with(key)).unwrap().to_owned()
    };
    home.config("[telemetry]\notlp_endpoint = \"http://file:4318\"\n");
    let endpoint = "telemetry.otlp_endpoint = ";
    assert!(shown(&[], endpoint).contains("http://file:4318    # /"));
    let standard = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:c4nary@otel:4318");
    let ours = ("SLUICEGATE__TELEMETRY__OTLP_ENDPOINT", "http://ours:4318");
    assert_eq!(
        shown(&[standard], endpoint),
        format!("{endpoint}http://***@otel:4318    # environment OTEL_EXPORTER_OTLP_ENDPOINT")
    );
    assert!(shown(&[standard, ours], endpoint).contains("http://ours:4318    # environment SLUICEGATE__"));
    assert!(shown(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], endpoint).contains("http://file:4318"));
    // Its switch-off has the last word; what it does not know is passed over.
    let on = ("SLUICEGATE__TELEMETRY__ENABLED", "true");
    let enabled = "telemetry.enabled = ";
    assert_eq!(
        shown(&[("OTEL_SDK_DISABLED", "TRUE"), on], enabled),
        format!("{enabled}false    # environment OTEL_SDK_DISABLED")
    );
    assert!(shown(&[("OTEL_SDK_DISABLED", "1")], enabled).contains("true    # default"));
    let every = "telemetry.metrics_every = ";
    let interval = |ms| shown(&[("OTEL_METRIC_EXPORT_INTERVAL", ms)], every);
    assert_eq!(interval("5000"), format!("{every}5000ms    # environment OTEL_METRIC_EXPORT_INTERVAL"));
    for unusable in ["0", "-5", "soon", "99999999999999999999999"] {
        assert!(interval(unusable).contains("60s    # default"), "{unusable}");
    }
}

#[test]
fn every_key_is_documented_and_every_documented_default_is_accepted() {
    let home = Home::new();
    let docs = home.ok(&["config", "docs"]);
    for (path, shown) in home.json(&["config", "show"]).as_object().unwrap() {
        assert!(docs.contains(path.as_str()), "{path}");
        if let Some(value) = shown["value"].as_str() {
            let name = format!("SLUICEGATE__{}", path.to_uppercase().replace('.', "__"));
            let ran = home.run_in(&[(&name, value)], &["config", "validate"]);
            assert_eq!(ran.code, 0, "{name}={value}: {ran:?}");
        }
    }
    assert!(home.ok(&["config", "docs", "worker"]).contains("worker.slots"));
    let ran = home.run(&["config", "docs", "wroker"]);
    assert_eq!(ran.code, 10, "{ran:?}");
}

#[test]
fn a_queue_has_settings_of_its_own_from_the_file_and_the_environment() {
    let home = Home::new();
    let file = home.config("[queues.mail]\nslo = \"60s\"\n[queues.\"a.b\"]\nslo = 90\n");
    let env = [("SLUICEGATE__QUEUES__MAIL__SLO", "2m")];
    let shown = |env: &[(&str, &str)]| {
        let ran = home.run_in(env, &["config", "show", "--json"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()
    };
    assert_eq!(shown(&[])["queues.mail.slo"]["value"], "60s");
    assert_eq!(shown(&[])["queues.mail.slo"]["origin"], format!("{}:2:7", file.display()));
    assert_eq!(shown(&[])["queues.a.b.slo"]["value"], "90");
    assert_eq!(shown(&env)["queues.mail.slo"]["value"], "2m");
    assert!(home.ok(&["config", "docs", "queues"]).contains("SLUICEGATE__QUEUES__NAME__SLO"));
    for (name, value, why) in [
        ("SLUICEGATE__QUEUES__MAIL__SLO", "soon", "SLUICEGATE__QUEUES__MAIL__SLO: expected a duration"),
        ("SLUICEGATE__QUEUES__MAIL__SLOW", "1s", "unknown environment variable"),
        ("SLUICEGATE__HEALTH__HEALTHZ", "both", "one of livez, readyz"),
    ] {
        let ran = home.run_in(&[(name, value)], &["config", "validate"]);
        assert!(ran.code == 2 && ran.err.contains(why), "{name}: {ran:?}");
    }
}

#[test]
fn h10_a_queue_that_is_none_is_refused() {
    refused(b"queues = 3\n", &[":1:10: `queues`: expected one table per queue"]);
    refused(b"[queues]\nmail = 3\n", &[":2:8: `queues`: expected one table per queue"]);
    refused(b"[queues.\"Mail!\"]\nslo = \"1s\"\n", &[":1:9: bad queue name"]);
    refused(
        b"[queues.mail]\nslow = \"1s\"\n",
        &[":2:1: unknown key `queues.mail.slow`", "a queue takes slo"],
    );
    refused(b"[queues.mail]\nslo = \"soon\"\n", &[":2:7: `queues.mail.slo`: expected a duration from 1s"]);
    refused(b"[queus.mail]\nslo = \"1s\"\n", &["did you mean `queues`?"]);
}
