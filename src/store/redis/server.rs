//! What the server is and how it is set: what an insert survives there, and what would put jobs at risk. Read from the server itself,
//! at the start and now and then, since settings change while it runs.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool_redis::redis;

use super::Options;
use super::link::{Lane, Link};
use crate::clock::instant;
use crate::store::{About, Durability, ErrorKind, StoreError};

/// Older servers lack what the scripts need (`#!lua` flags).
const LEAST: (u32, u32) = (7, 0);
/// How often the settings are read again…
const EVERY: Duration = Duration::from_secs(6);
/// …by a process whose workers beat: every beat brings the one setting that can lose jobs that are stored already.
const EVERY_WITH_BEATS: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Server {
    options: Options,
    known: Mutex<Known>,
}

#[derive(Debug, Clone)]
struct Known {
    facts: Facts,
    /// Why nobody may work on it.
    unsafe_because: Option<(String, String)>,
    read_at: Option<Instant>,
    /// When a beat last told the policy.
    told_at: Option<Instant>,
}

/// What the server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Facts {
    version: String,
    valkey: bool,
    role: String,
    replicas: u32,
    cluster: bool,
    /// `None`: it may not be asked.
    policy: Option<String>,
    appendonly: bool,
    appendfsync: Option<String>,
}

impl Facts {
    fn durability(&self) -> Durability {
        // With `always` the reply waits for the disk. Anything else lost acknowledged jobs in a power cut.
        if self.appendonly && self.appendfsync.as_deref() == Some("always") {
            Durability::Disk
        } else {
            Durability::Memory
        }
    }

    fn persistence(&self) -> String {
        match (self.appendonly, &self.appendfsync) {
            (false, _) => "no AOF".into(),
            (true, Some(fsync)) => format!("AOF {fsync}"),
            (true, None) => "AOF, fsync unknown (CONFIG is not allowed)".into(),
        }
    }

    /// What puts jobs at risk, and the way out: setting, value, wanted value.
    fn risk(&self, options: Options) -> Option<(ErrorKind, String, String)> {
        let version = self.version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
        let (major, minor) = (version.first().copied().unwrap_or(0), version.get(1).copied().unwrap_or(0));
        if !self.version.is_empty() && (major, minor) < LEAST {
            return Some((
                ErrorKind::Unsupported,
                format!("`redis_version` is {}, {}.{} or later is needed", self.version, LEAST.0, LEAST.1),
                "upgrade Redis, or use Valkey".into(),
            ));
        }
        if self.cluster {
            return Some((
                ErrorKind::Unsupported,
                "`cluster-enabled` is yes, and this version reaches single servers only".into(),
                "name a server that is no member of a cluster".into(),
            ));
        }
        if !matches!(self.role.as_str(), "" | "master") {
            return Some((
                ErrorKind::ReadOnly,
                format!("`role` is {}, a master is needed", self.role),
                "name the master; after a failover everything resumes by itself".into(),
            ));
        }
        if let Some(policy) = self.policy.as_deref().filter(|policy| *policy != "noeviction") {
            return Some((
                ErrorKind::Unsafe,
                format!(
                    "`maxmemory-policy` is {policy}, noeviction is needed: Redis would drop jobs that it acknowledged"
                ),
                "CONFIG SET maxmemory-policy noeviction, and set it in redis.conf".into(),
            ));
        }
        match options.durability {
            Some(Durability::Disk) if self.durability() != Durability::Disk => Some((
                ErrorKind::Unsafe,
                format!(
                    "`store.durability` asks for disk, but {}",
                    match (self.appendonly, &self.appendfsync) {
                        (false, _) => "`appendonly` is no, yes is needed".to_owned(),
                        (true, fsync) => format!(
                            "`appendfsync` is {}, always is needed",
                            fsync.as_deref().unwrap_or("unknown (CONFIG is not allowed)")
                        ),
                    }
                ),
                "CONFIG SET appendonly yes, CONFIG SET appendfsync always, and set both in redis.conf; or ask for less".into(),
            )),
            Some(Durability::Replica(wanted)) if self.replicas < wanted => Some((
                ErrorKind::Unsafe,
                format!("`store.durability` asks for {wanted} replicas, `connected_slaves` is {}", self.replicas),
                "attach the replicas, or ask for less".into(),
            )),
            _ => None,
        }
    }
}

impl Server {
    pub(super) fn new(options: Options) -> Self {
        let known = Known { facts: Facts::default(), unsafe_because: None, read_at: None, told_at: None };
        Self { options, known: Mutex::new(known) }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wanted(&self) -> Option<Durability> {
        self.options.durability
    }

    /// What an insert survives there, replicas apart.
    pub(super) fn durability(&self) -> Durability {
        self.known().facts.durability()
    }

    pub(super) fn about(&self, place: &str) -> About {
        let facts = self.known().facts.clone();
        let durability = match self.options.durability {
            Some(Durability::Replica(n)) if facts.replicas >= n => Durability::Replica(n),
            _ => facts.durability(),
        };
        let name = if facts.valkey { "valkey" } else { "redis" };
        let detail =
            format!("{name} {}, {}, {} replicas", facts.version, facts.persistence(), facts.replicas);
        About { engine: "redis", location: place.to_owned(), detail, durability }
    }

    /// Reads everything and judges it.
    pub(super) async fn judge(&self, link: &Link, op: &'static str) -> Result<(), StoreError> {
        let facts = read(link, op).await?;
        self.judge_facts(link, op, facts)
    }

    /// Reads again what may have changed. A server that became a replica says so to every write; how many replicas it has is
    /// asked only if somebody wants to know.
    async fn judge_again(&self, link: &Link, op: &'static str) -> Result<(), StoreError> {
        let known = self.known().facts.clone();
        let asks_for_replicas = matches!(self.options.durability, Some(Durability::Replica(_)));
        if known.appendfsync.is_none() || asks_for_replicas {
            return self.judge(link, op).await;
        }
        match settings(link, op, known).await? {
            Some(facts) => self.judge_facts(link, op, facts),
            None => self.judge(link, op).await,
        }
    }

    fn judge_facts(&self, link: &Link, op: &'static str, facts: Facts) -> Result<(), StoreError> {
        let risk = facts.risk(self.options);
        let mut known = self.known();
        known.facts = facts;
        known.read_at = Some(instant());
        known.unsafe_because = danger(risk.as_ref());
        drop(known);
        match risk {
            None => Ok(()),
            Some((kind, why, hint)) => Err(link.error(op, kind, why).hint(hint)),
        }
    }

    /// A beat told the policy; nothing, when it may not be asked.
    pub(super) fn told_policy(&self, policy: Option<String>) {
        let Some(policy) = policy.filter(|policy| !policy.is_empty()) else { return };
        let mut known = self.known();
        known.told_at = Some(instant());
        if known.facts.policy.as_ref() != Some(&policy) {
            known.facts.policy = Some(policy);
            known.unsafe_because = danger(known.facts.risk(self.options).as_ref());
        }
    }

    /// The same, unless it was done a moment ago.
    pub(super) async fn judge_now_and_then(&self, link: &Link, op: &'static str) -> Result<(), StoreError> {
        let due = {
            let mut known = self.known();
            let told = known.told_at.is_some_and(|at| at.elapsed() < EVERY);
            let every = if told { EVERY_WITH_BEATS } else { EVERY };
            let due = known.read_at.is_none_or(|at| at.elapsed() >= every);
            if due {
                known.read_at = Some(instant()); // one of many callers reads
            }
            due
        };
        if !due {
            return self.must_be_safe(link.place());
        }
        // Whatever becomes of this question, nothing was changed by it.
        self.judge_again(link, op).await.map_err(|error| match error.kind {
            ErrorKind::Timeout => StoreError { kind: ErrorKind::Unavailable, ..error },
            _ => error,
        })
    }

    /// No job is taken from a server that may drop it.
    pub(super) fn must_be_safe(&self, place: &str) -> Result<(), StoreError> {
        match &self.known().unsafe_because {
            None => Ok(()),
            Some((why, hint)) => {
                Err(StoreError::new("use", place, ErrorKind::Unsafe, why).hint(hint.clone()))
            }
        }
    }
}

/// What of a risk forbids to work there: why, and the way out.
fn danger(risk: Option<&(ErrorKind, String, String)>) -> Option<(String, String)> {
    let (_, why, hint) = risk.filter(|(kind, ..)| *kind == ErrorKind::Unsafe)?;
    Some((why.clone(), hint.clone()))
}

/// Everything, in two calls. Managed servers do not allow CONFIG: then the fsync policy is unknown, and counts as the worse one.
async fn read(link: &Link, op: &'static str) -> Result<Facts, StoreError> {
    let info = link.command(op, Lane::Beat, &redis::cmd("INFO")).await?;
    let text = match info {
        redis::Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        redis::Value::VerbatimString { text, .. } => text,
        _ => return Err(super::value::strange(op, link.place())),
    };
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let facts = Facts {
        version: field("redis_version"),
        valkey: field("server_name") == "valkey",
        role: field("role"),
        replicas: field("connected_slaves").parse().unwrap_or(0),
        cluster: field("cluster_enabled") == "1",
        appendonly: field("aof_enabled") == "1",
        policy: Some(field("maxmemory_policy")).filter(|policy| !policy.is_empty()),
        appendfsync: None,
    };
    Ok(settings(link, op, facts.clone()).await?.unwrap_or(facts))
}

/// The facts with those settings that may change while it runs, in one call; `None` where CONFIG is not allowed.
async fn settings(link: &Link, op: &'static str, known: Facts) -> Result<Option<Facts>, StoreError> {
    let mut ask = redis::cmd("CONFIG");
    ask.arg("GET").arg(&["appendfsync", "appendonly", "maxmemory-policy"]);
    let values = match link.command(op, Lane::Beat, &ask).await {
        Ok(redis::Value::Array(values)) => values,
        Ok(_) => return Ok(None),
        Err(error) if error.is_transient() => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "the fsync policy of Redis is not known");
            return Ok(None);
        }
    };
    let texts: Vec<String> =
        values.iter().filter_map(|value| redis::from_redis_value_ref(value).ok()).collect();
    let setting = |name: &str| {
        texts.chunks_exact(2).find_map(|pair| match pair {
            [key, value] if key == name => Some(value.clone()),
            _ => None,
        })
    };
    Ok(Some(Facts {
        appendfsync: setting("appendfsync"),
        appendonly: setting("appendonly").map_or(known.appendonly, |value| value == "yes"),
        policy: setting("maxmemory-policy").or(known.policy.clone()),
        ..known
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it should be.
    fn good() -> Facts {
        Facts {
            version: "7.0.15".into(),
            role: "master".into(),
            replicas: 1,
            policy: Some("noeviction".into()),
            appendonly: true,
            appendfsync: Some("always".into()),
            ..Facts::default()
        }
    }

    fn judged(facts: &Facts, durability: Option<Durability>) -> Option<(ErrorKind, String)> {
        facts.risk(Options { durability }).map(|(kind, why, hint)| {
            assert!(!hint.is_empty());
            (kind, why)
        })
    }

    #[test]
    fn a_good_server_is_no_risk() {
        for durability in
            [None, Some(Durability::Memory), Some(Durability::Disk), Some(Durability::Replica(1))]
        {
            assert_eq!(judged(&good(), durability), None);
        }
        assert_eq!(good().durability(), Durability::Disk);
    }

    #[test]
    fn an_older_server_is_refused_with_its_version_and_the_wanted_one() {
        for version in ["6.2.14", "6.0.0", "5.0.7", "2.8.9", "6"] {
            let facts = Facts { version: version.into(), ..good() };
            let why = format!("`redis_version` is {version}, 7.0 or later is needed");
            assert_eq!(judged(&facts, None), Some((ErrorKind::Unsupported, why)));
        }
        for version in ["7.0.0", "7.2.4", "8.0.1", "10.0.0", "7.0.0-rc1"] {
            assert_eq!(judged(&Facts { version: version.into(), ..good() }, None), None, "{version}");
        }
        // Who does not tell is not judged by it: the scripts would not load.
        assert_eq!(judged(&Facts { version: String::new(), ..good() }, None), None);
    }

    #[test]
    fn every_risk_is_named_with_its_setting_its_value_and_the_wanted_value() {
        let cases: [(Facts, Option<Durability>, ErrorKind, [&str; 3]); 7] = [
            (
                Facts { role: "slave".into(), ..good() },
                None,
                ErrorKind::ReadOnly,
                ["`role`", "slave", "master"],
            ),
            (
                Facts { policy: Some("volatile-ttl".into()), ..good() },
                None,
                ErrorKind::Unsafe,
                ["`maxmemory-policy`", "volatile-ttl", "noeviction"],
            ),
            (
                Facts { cluster: true, ..good() },
                None,
                ErrorKind::Unsupported,
                ["`cluster-enabled`", "yes", "single"],
            ),
            (
                Facts { appendonly: false, ..good() },
                Some(Durability::Disk),
                ErrorKind::Unsafe,
                ["`appendonly`", "no", "yes"],
            ),
            (
                Facts { appendfsync: Some("everysec".into()), ..good() },
                Some(Durability::Disk),
                ErrorKind::Unsafe,
                ["`appendfsync`", "everysec", "always"],
            ),
            (
                Facts { appendfsync: None, ..good() },
                Some(Durability::Disk),
                ErrorKind::Unsafe,
                ["`appendfsync`", "unknown", "always"],
            ),
            (good(), Some(Durability::Replica(2)), ErrorKind::Unsafe, ["`connected_slaves`", "1", "2"]),
        ];
        for (facts, durability, kind, names) in cases {
            let (found, why) = judged(&facts, durability).expect("a risk");
            assert_eq!(found, kind, "{why}");
            for name in names {
                assert!(why.contains(name), "`{name}` is not in: {why}");
            }
        }
    }

    #[test]
    fn what_is_not_known_counts_as_the_worse() {
        assert_eq!(Facts { appendfsync: None, ..good() }.durability(), Durability::Memory);
        assert_eq!(Facts { appendonly: false, ..good() }.durability(), Durability::Memory);
        assert_eq!(
            judged(&Facts { policy: None, ..good() }, None),
            None,
            "a managed server that does not tell"
        );
    }
}
