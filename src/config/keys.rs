//! Every key there is, in one table: what it takes, its default, and what it is for. Reading, checking, the names of
//! environment variables and the documentation all come from here.

use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::parse_duration;
use crate::location::{Durability, StoreUrl};
use crate::names::{Queue, Release, Tier, WorkerName, shown};

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    /// A store URL.
    Store,
    /// What an insert must survive.
    Durability,
    /// The name of a tier.
    Tier,
    /// The name of a worker.
    Worker,
    /// The name of a release.
    Release,
    /// Names of queues; in one text separated by commas.
    Queues,
    /// A whole number within bounds.
    Count(u64, u64),
    /// A duration within bounds, in milliseconds.
    Span(u64, u64),
    /// An address and port.
    Address,
    /// A path.
    Path,
    /// A program and its arguments: separated by spaces, or as an array.
    Command,
    /// `true` or `false`.
    Switch,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// The URL of a collector. Any text passes: what cannot be used is a warning where it is used, since no worker
    /// shall stay down for its telemetry.
    Collector,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// `section.name`, or `name` at the top.
    pub path: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// The default, as text; `None` when there is none.
    pub default: Option<&'static str>,
    /// What it is for.
    pub doc: &'static str,
}

/// What the environment variables of keys begin with.
pub(super) const PREFIX: &str = "SLUICEGATE__";
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

/// The table.
pub const KEYS: &[Key] = &[
    key("tier", Takes::Tier, Some("default"), "the tier that commands and workers belong to"),
    key(
        "store.url",
        Takes::Store,
        None,
        "where the jobs are: `sqlite:PATH` or `redis://[USER@]HOST[:PORT][/DB]`; without it, `jobs.db` in the data folder",
    ),
    key("store.password_file", Takes::Path, None, "a file with the password of Redis; mode 0640 or stricter"),
    key(
        "store.durability",
        Takes::Durability,
        None,
        "what an insert must survive to count as stored: `memory`, `disk`, or `replica N`; a store that promises less is not used. Without it, whatever the store gives, told with every insert",
    ),
    key(
        "store.allow_plaintext",
        Takes::Switch,
        Some("false"),
        "whether a Redis beyond this machine may be reached without TLS, over a network that you trust",
    ),
    key(
        "releases.root",
        Takes::Path,
        None,
        "where the releases of this host stand, a folder per tier; without it, `releases` in the data folder",
    ),
    key(
        "worker.name",
        Takes::Worker,
        None,
        "this worker's name; without it, host and process id. The same name again takes over",
    ),
    key(
        "worker.release",
        Takes::Release,
        None,
        "this worker's release; without it, the implicit release `default`",
    ),
    key("worker.queues", Takes::Queues, None, "the queues it serves; without it, all of the tier"),
    key(
        "worker.slots",
        Takes::Count(1, 100_000),
        Some("200"),
        "jobs it runs at once; waiting jobs are cheap",
    ),
    key(
        "worker.shutdown_timeout",
        Takes::Span(0, 24 * HOUR),
        Some("25s"),
        "how long a stop waits for running jobs before it gives them back",
    ),
    key(
        "worker.cancel_grace",
        Takes::Span(0, HOUR),
        Some("5s"),
        "how long a cancelled job may go on before it is dropped",
    ),
    key(
        "worker.lease",
        Takes::Span(2 * SECOND, HOUR),
        Some("15s"),
        "how long a job stays with a worker that says nothing; renewed about four times in it",
    ),
    key(
        "worker.activation_hook",
        Takes::Command,
        None,
        "a command that must succeed before this worker's first claim: run with SLUICEGATE_PHASE=rehearse at the start and =activate once its release is active; no shell",
    ),
    key(
        "worker.activation_hook_timeout",
        Takes::Span(SECOND, HOUR),
        Some("10s"),
        "how long it may take before it is killed and has failed",
    ),
    key(
        "deploy.lease",
        Takes::Span(SECOND, HOUR),
        Some("10s"),
        "how long a deploy stays with a process that says nothing; after that any other may go on with it",
    ),
    key(
        "deploy.confirm_within",
        Takes::Span(SECOND, HOUR),
        Some("30s"),
        "a release that was switched to reverts by itself when the deploy that watches it says nothing for so long",
    ),
    key(
        "api.listen",
        Takes::Address,
        Some("127.0.0.1:7434"),
        "where `serve` and `dev` answer `/v1`; beyond loopback only with a token",
    ),
    key(
        "api.token_file",
        Takes::Path,
        None,
        "a file with the token that `/v1` asks for; mode 0640 or stricter",
    ),
    key(
        "health.listen",
        Takes::Address,
        Some("127.0.0.1:7433"),
        "where `work` and `dev` answer `/livez`, `/readyz` and `/metrics`, and `health` asks",
    ),
    key(
        "health.claim_age_limit",
        Takes::Span(SECOND, HOUR),
        Some("15s"),
        "a worker that could claim is not ready when no claim was answered for so long",
    ),
    key(
        "health.progress_limit",
        Takes::Span(SECOND, HOUR),
        Some("30s"),
        "a worker with free slots is not ready when jobs wait and none started or ended for so long",
    ),
    key(
        "health.healthz",
        Takes::OneOf(&["livez", "readyz"]),
        None,
        "which of them `/healthz` is; without it, it is neither and says so",
    ),
    key("dev.inbox", Takes::Switch, Some("true"), "in `dev`, what jobs send lands in the local inbox"),
    key(
        "log.level",
        Takes::OneOf(&["error", "warn", "info", "debug", "trace"]),
        Some("info"),
        "how much `work`, `serve` and `dev` log to standard error",
    ),
    key("log.format", Takes::OneOf(&["text", "json"]), Some("text"), "how it is written"),
    key(
        "telemetry.otlp_endpoint",
        Takes::Collector,
        None,
        "the collector that `work` and `dev` send traces and metrics to, by OTLP over HTTP; without it, none. `OTEL_EXPORTER_OTLP_ENDPOINT` sets it too",
    ),
    key(
        "telemetry.metrics_every",
        Takes::Span(SECOND, HOUR),
        Some("60s"),
        "how often metrics are sent; `OTEL_METRIC_EXPORT_INTERVAL` (milliseconds) sets it too",
    ),
    key(
        "telemetry.enabled",
        Takes::Switch,
        Some("true"),
        "whether anything is sent; `OTEL_SDK_DISABLED=true` overrules it",
    ),
];

const fn key(path: &'static str, takes: Takes, default: Option<&'static str>, doc: &'static str) -> Key {
    Key { path, takes, default, doc }
}

impl Key {
    /// The key of a path.
    #[must_use]
    pub fn find(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// The last part of its path.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// Its environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.to_ascii_uppercase().replace('.', "__"))
    }

    /// What it takes, in words.
    #[must_use]
    pub fn expects(&self) -> String {
        match self.takes {
            Takes::Store => "`sqlite:PATH` or `redis://HOST:PORT/DB`".into(),
            Takes::Durability => "`memory`, `disk` or `replica N`".into(),
            Takes::Tier | Takes::Worker | Takes::Release => {
                format!("a name matching `{}`", crate::names::PATTERN)
            }
            Takes::Queues => "queue names".into(),
            Takes::Count(least, most) => format!("a whole number from {least} to {most}"),
            Takes::Span(least, most) => format!("a duration from {} to {}", span(least), span(most)),
            Takes::Address => "an address and port such as `127.0.0.1:7434`".into(),
            Takes::Path => "a path".into(),
            Takes::Command => {
                "a program and its arguments: separated by spaces, or as an array of texts".into()
            }
            Takes::Switch => "`true` or `false`".into(),
            Takes::OneOf(words) => format!("one of {}", words.join(", ")),
            Takes::Collector => "a URL such as `http://127.0.0.1:4318`".into(),
        }
    }

    /// Checks a value given as text.
    ///
    /// # Errors
    /// Says what was expected and what was given.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let good = match self.takes {
            Takes::Store => return text.parse::<StoreUrl>().map(drop).map_err(|error| error.to_string()),
            Takes::Durability => return text.parse::<Durability>().map(drop),
            Takes::Tier => return Tier::new(text).map(drop).map_err(|error| error.to_string()),
            Takes::Worker => return WorkerName::new(text).map(drop).map_err(|error| error.to_string()),
            Takes::Release => return Release::new(text).map(drop).map_err(|error| error.to_string()),
            Takes::Queues => return queues(text).map(drop),
            Takes::Count(least, most) => text.parse::<u64>().is_ok_and(|n| (least..=most).contains(&n)),
            Takes::Span(least, most) => {
                parse_duration(text).is_ok_and(|d| (least..=most).contains(&millis(d)))
            }
            Takes::Address => text.parse::<SocketAddr>().is_ok(),
            Takes::Path => !text.is_empty() && !text.contains('\0'),
            Takes::Command => command(text).is_some(),
            Takes::Switch => matches!(text, "true" | "false"),
            Takes::OneOf(words) => words.contains(&text),
            Takes::Collector => true,
        };
        if good { Ok(()) } else { Err(format!("expected {}, got `{}`", self.expects(), shown(text))) }
    }
}

/// What `[queues.NAME]` takes.
pub static QUEUE_KEYS: [Key; 1] = [key(
    "queues.NAME.slo",
    Takes::Span(SECOND, 366 * 24 * HOUR),
    None,
    "how long a job of this queue may wait before health warns of it",
)];

/// A program and its arguments. What begins with `[` is a JSON array: a path may have spaces in it.
pub(super) fn command(text: &str) -> Option<Vec<String>> {
    let words: Vec<String> = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(text).ok()?,
        false => text.split_whitespace().map(str::to_owned).collect(),
    };
    let good = words.first().is_some_and(|program| !program.is_empty())
        && !words.iter().any(|word| word.contains('\0'));
    good.then_some(words)
}

/// Queue names separated by commas.
pub(super) fn queues(text: &str) -> Result<Vec<Queue>, String> {
    text.split(',').map(|name| Queue::new(name.trim()).map_err(|error| error.to_string())).collect()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn span(ms: u64) -> String {
    match ms / SECOND {
        secs if secs % 3_600 == 0 && secs > 0 => format!("{}h", secs / 3_600),
        secs => format!("{secs}s"),
    }
}

/// The known word nearest to a misspelt one, if it is near.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (distance(word, known), known))
        .filter(|(far, known)| *far <= known.len().div_ceil(3))
        .min()
        .map(|(_, known)| known)
}

/// Levenshtein's distance, where two neighbours in the wrong order count as one slip.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    let at = |rows: &[Vec<usize>], i: usize, j: usize| {
        rows.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0)
    };
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let left = row.last().copied().unwrap_or(0);
            let mut best =
                (at(&rows, i, j) + usize::from(from != to)).min(left + 1).min(at(&rows, i, j + 1) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                best = best.min(at(&rows, i - 1, j - 1) + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    at(&rows, a.len(), b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid() {
        for key in KEYS {
            if let Some(default) = key.default {
                assert_eq!(key.check(default), Ok(()), "{}", key.path);
            }
        }
    }

    #[test]
    fn h11_values_out_of_bounds_say_which_bounds() {
        for (path, text, wanted) in [
            ("worker.lease", "0", "2s to 1h"),
            ("worker.lease", "1ms", "2s to 1h"),
            ("worker.lease", "3650d", "2s to 1h"),
            ("worker.slots", "0", "1 to 100000"),
            ("worker.slots", "1000000000", "1 to 100000"),
            ("worker.queues", "mail,../x", "bad queue name"),
            ("api.listen", "localhost", "127.0.0.1:7434"),
        ] {
            let error = Key::find(path).map(|key| key.check(text)).unwrap_or(Ok(())).unwrap_err();
            assert!(error.contains(wanted), "{path}={text}: {error}");
        }
    }

    #[test]
    fn a_command_is_split_at_spaces_or_given_whole() {
        assert_eq!(command("bin/register  now"), Some(vec!["bin/register".into(), "now".into()]));
        assert_eq!(
            command(r#"["/my apps/register", ""]"#),
            Some(vec!["/my apps/register".into(), String::new()])
        );
        for bad in ["", "  ", "[]", r#"[""]"#, r#"["a", 1]"#, "[a]", r#"["a\u0000"]"#, "a\0"] {
            assert_eq!(command(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_misspelt_word_finds_its_neighbour() {
        assert_eq!(nearest("worker.slot", KEYS.iter().map(|key| key.path)), Some("worker.slots"));
        assert_eq!(nearest("jbo", ["dev", "job"].into_iter()), Some("job"));
        assert_eq!(nearest("zzzz", KEYS.iter().map(|key| key.path)), None);
    }
}
