//! How a worker runs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::hook::Hook;
use super::watch::Observer;
use crate::location::{host, word_of};
use crate::names::{MAX_NAME, Queue, Release, Tier, WorkerName};

/// How a worker runs. `Default` is what `sluicegate work` does.
#[derive(Clone)]
pub struct Options {
    /// The tier it belongs to.
    pub tier: Tier,
    /// Its name; the same name again takes over.
    pub name: WorkerName,
    /// Its release; `None` runs as the implicit release `default`, which activates itself when the tier has no
    /// activation yet.
    pub release: Option<Release>,
    /// The queues it serves; `None` for all of the tier.
    pub queues: Option<Vec<Queue>>,
    /// How many jobs run at once.
    pub slots: usize,
    /// How long a stop waits for running jobs before it cancels them and gives them back.
    pub grace: Duration,
    /// How long a lease lasts without renewal.
    pub lease: Duration,
    /// How often leases are renewed.
    pub renew_every: Duration,
    /// How often the worker says that it lives.
    pub presence_every: Duration,
    /// After its time-out and the cancellation, a job has this long to end by itself.
    pub cancel_grace: Duration,
    /// How often the worker proves itself with a canary.
    pub canary_every: Duration,
    /// The activation hook, if there is one.
    pub hook: Option<Hook>,
    /// SHA-256 of the program, in hex, once somebody has read it.
    pub artifact: Arc<OnceLock<String>>,
    /// Where its probes listen, for others to find.
    pub health: Option<String>,
    /// Settings per kind, from the configuration.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Who looks at attempts as they end.
    pub observer: Option<Arc<dyn Observer>>,
}

/// Settings hold secrets: only the names of their kinds are shown.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tier, name, release, queues, slots, grace, lease, renew_every, presence_every, .. } = self;
        f.debug_struct("Options")
            .field("tier", tier)
            .field("name", name)
            .field("release", release)
            .field("queues", queues)
            .field("slots", slots)
            .field("grace", grace)
            .field("lease", lease)
            .field("renew_every", renew_every)
            .field("presence_every", presence_every)
            .field("cancel_grace", &self.cancel_grace)
            .field("hook", &self.hook)
            .field("settings", &self.settings.keys())
            .finish()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tier: Tier::default(),
            name: own_name(),
            release: None,
            queues: None,
            slots: 200,
            grace: Duration::from_secs(25),
            lease: Duration::from_secs(15),
            renew_every: Duration::from_secs(4),
            presence_every: Duration::from_secs(3),
            cancel_grace: Duration::from_secs(5),
            canary_every: Duration::from_secs(10),
            hook: None,
            artifact: Arc::default(),
            health: None,
            settings: BTreeMap::new(),
            observer: None,
        }
    }
}

/// Host and process id, made valid by the rule for names.
#[must_use]
pub fn own_name() -> WorkerName {
    name_of(&host(), std::process::id())
}

#[expect(clippy::expect_used, reason = "made valid by construction, and the test tries hostile hosts")]
fn name_of(host: &str, pid: u32) -> WorkerName {
    let tail = format!("-{pid}");
    let name: String = word_of(host).chars().take(MAX_NAME - tail.len()).collect();
    WorkerName::new(&(name + &tail)).expect("a valid name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_gives_a_valid_name() {
        for (host, wanted) in [
            ("Web-01.Example", "web-01.example-7"),
            ("", "host-7"),
            ("---", "host-7"),
            ("häuschen", "h-uschen-7"),
        ] {
            assert_eq!(name_of(host, 7).as_str(), wanted);
        }
        assert_eq!(name_of(&"x".repeat(300), u32::MAX).as_str().len(), MAX_NAME);
    }
}
