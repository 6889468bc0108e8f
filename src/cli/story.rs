//! A job in words, for people: one line per thing that happened to it.

use super::error::CliError;
use super::out::Out;
use crate::clock::{Timestamp, human};
use crate::job::{JobRecord, State};

/// One line on where it is now.
pub(super) fn now_line(job: &JobRecord, now: Timestamp) -> String {
    let mut line = format!("{}  {}", job.id, job.state);
    match job.state {
        State::Available => {
            line += &format!("  queue {}, waiting {}", job.queue, human(now.since(waiting_since(job))))
        }
        State::Running => {
            let worker = job.worker.as_ref().map_or_else(String::new, ToString::to_string);
            let release = job.release.as_ref().map_or_else(String::new, |release| format!(" ({release})"));
            let waited = job.claimed_at.map_or(std::time::Duration::ZERO, |at| at.since(waiting_since(job)));
            line += &format!("  {worker}{release}, waited {}, attempt {}", human(waited), job.failures + 1);
        }
        State::Scheduled | State::Retryable => {
            if let Some(at) = job.run_at {
                line += &format!("  runs in {}", human(at.since(now)));
            }
            if let Some(error) = job.last_error().filter(|_| job.state == State::Retryable) {
                line += &format!(", after {} failed: {error}", attempts(job.failures));
            }
        }
        State::Completed => line += &job.ran.map_or_else(String::new, |ran| format!("  ran {}", human(ran))),
        State::Parked => {
            line += &format!(
                "  {}: {}",
                job.parked.map_or("waiting", crate::job::Parked::as_str),
                job.last_error().unwrap_or("")
            )
        }
        State::Dead | State::Cancelled | State::Expired => {
            line += &job.last_error().map_or_else(String::new, |error| format!("  {error}"))
        }
    }
    line
}

fn attempts(n: u32) -> String {
    if n == 1 { "1 attempt".into() } else { format!("{n} attempts") }
}

fn waiting_since(job: &JobRecord) -> Timestamp {
    job.run_at.unwrap_or(job.enqueued_at)
}

/// Everything that is known.
pub(super) fn tell(out: &Out, job: &JobRecord, now: Timestamp) -> Result<(), CliError> {
    let mut facts: Vec<(&str, String)> = vec![
        ("job", job.id.to_string()),
        ("state", job.state.to_string()),
        (
            "kind",
            if job.version == 1 {
                job.kind.to_string()
            } else {
                format!("{} (version {})", job.kind, job.version)
            },
        ),
        (
            "queue",
            if job.priority == 0 {
                job.queue.to_string()
            } else {
                format!("{} (priority {})", job.queue, job.priority)
            },
        ),
        ("tier", job.tier.to_string()),
        ("args", job.args.as_str().to_owned()),
        ("enqueued", format!("{} ({})", job.enqueued_at, out.time(job.enqueued_at, now))),
    ];
    let mut time = |name, at: Option<Timestamp>| {
        if let Some(at) = at {
            facts.push((name, format!("{at} ({})", out.time(at, now))));
        }
    };
    time("runs", job.run_at);
    time("expires", job.expires_at);
    time("claimed", job.claimed_at);
    time("ended", job.finished_at);
    let mut fact = |name, text: Option<String>| facts.extend(text.map(|text| (name, text)));
    fact("ran", job.ran.map(human));
    fact(
        "worker",
        job.worker.as_ref().map(|worker| {
            format!("{worker} ({})", job.release.as_ref().map_or("", |release| release.as_str()))
        }),
    );
    fact("parked", job.parked.map(|why| format!("{}: {}", why.as_str(), job.last_error().unwrap_or(""))));
    fact("failures", (job.failures > 0).then(|| job.failures.to_string()));
    fact("crashes", (job.crashes > 0).then(|| job.crashes.to_string()));
    let extras = &job.extras;
    fact("attempts", extras.retry.as_ref().map(|retry| format!("at most {}", retry.max_attempts)));
    fact("timeout", extras.timeout.map(human));
    fact("idempotency", extras.idempotency_key.clone());
    fact("unique", extras.unique.as_ref().map(|unique| unique.key.clone()));
    fact("trace", extras.traceparent.clone());
    let tags: Vec<String> = extras.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    fact("tags", (!tags.is_empty()).then(|| tags.join(" ")));
    for (name, text) in facts {
        out.line(format!("{name:<12} {}", crate::names::escaped(&text)))?;
    }
    for attempt in &job.history {
        let worker = attempt.worker.as_ref().map_or_else(String::new, |worker| format!(" on {worker}"));
        let ran = attempt.ran.map_or_else(String::new, |ran| format!(" after {}", human(ran)));
        let error = attempt.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        let line = format!("{}  {}{worker}{ran}{error}", out.time(attempt.at, now), attempt.outcome);
        out.line(format!("{:<12} {}", "history", crate::names::escaped(&line)))?;
    }
    Ok(())
}
