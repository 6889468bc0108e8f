//! What a pipeline's own pages show of a verdict: GitHub's step summary and annotations, GitLab's JUnit report.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use clap::ValueEnum;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::out::to_stderr;
use crate::config;
use crate::health::tier::{Decision, TierVerdict};
use crate::names::escaped;

/// For whose pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Ci {
    /// As the environment tells.
    Auto,
    Github,
    Gitlab,
    Off,
}

impl Ci {
    fn is_github(self) -> bool {
        match self {
            Self::Auto => config::variable("GITHUB_ACTIONS").as_deref() == Some("true"),
            other => other == Self::Github,
        }
    }
}

/// Appends the step summary, and annotates what is not a pass. Annotations go to standard error, which the runner reads
/// as well, so that standard output stays data.
pub(super) fn report(ctx: &Context, verdict: &TierVerdict) -> Result<(), CliError> {
    if !ctx.ci().is_github() {
        return Ok(());
    }
    if let Some(file) = config::variable("GITHUB_STEP_SUMMARY") {
        append(Path::new(&file), &markdown(verdict))?;
    }
    if verdict.decision != Decision::Pass {
        let word = if verdict.decision == Decision::Pending { "warning" } else { "error" };
        let title = format!("gate {} for {}", verdict.decision.as_str(), verdict.release);
        let title = command_data(&title).replace(':', "%3A").replace(',', "%2C");
        to_stderr(&format!("::{word} title={title}::{}", command_data(&verdict.output)));
    }
    Ok(())
}

/// As GitHub's workflow commands want it.
fn command_data(text: &str) -> String {
    escaped(text).replace('%', "%25")
}

fn append(file: &Path, text: &str) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::new(Exit::Error, format!("cannot write `{}`: {error}", file.display()))
    };
    let mut file = std::fs::File::options().create(true).append(true).open(file).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

fn markdown(verdict: &TierVerdict) -> String {
    let mark = match verdict.decision {
        Decision::Pass => "✅",
        Decision::Pending => "⏳",
        _ => "❌",
    };
    let mut text = format!(
        "### {mark} gate {}: release `{}`, tier `{}`\n\n{}\n",
        verdict.decision.as_str(),
        verdict.release,
        verdict.tier,
        cell(&verdict.output)
    );
    if !verdict.checks.is_empty() {
        text += "\n| | check | observed | why |\n|---|---|---|---|\n";
    }
    for check in &verdict.checks {
        let of = check.component_id.as_ref().map(|of| format!(" {of}")).unwrap_or_default();
        let why = cell(check.output.as_deref().unwrap_or_default());
        // Writing to a `String` cannot fail.
        let _ok = writeln!(
            text,
            "| {} | {}{} | {} | {why} |",
            check.sign(),
            check.key(),
            cell(&of),
            cell(&check.observed_value.to_string())
        );
    }
    if let Some(next) = &verdict.next {
        let _ok = writeln!(text, "\nNext: `{}`", cell(next));
    }
    text.push('\n');
    text
}

/// A text that stays in its cell, and cannot be markup: errors of jobs come from anywhere.
fn cell(text: &str) -> String {
    escaped(text).replace('&', "&amp;").replace('<', "&lt;").replace('|', "\\|").replace('`', "'")
}

/// One test case per check, as GitLab (and others) show them.
pub(super) fn junit(verdict: &TierVerdict, file: &Path) -> Result<(), CliError> {
    let failed = |error| CliError::new(Exit::Error, format!("cannot write `{}`: {error}", file.display()));
    std::fs::write(file, junit_text(verdict)).map_err(failed)
}

fn junit_text(verdict: &TierVerdict) -> String {
    let suite = format!("gate {} in tier {}", verdict.release, verdict.tier);
    let mut cases = vec![(
        "verdict".to_owned(),
        (verdict.decision != Decision::Pass)
            .then(|| (verdict.decision.as_str(), verdict.output.as_str(), verdict.next.as_deref())),
    )];
    cases.extend(verdict.checks.iter().map(|check| {
        let name = match &check.component_id {
            Some(of) => format!("{} {of}", check.key()),
            None => check.key().to_owned(),
        };
        let bad = check.status == crate::health::Status::Fail;
        let word = if check.pending { "pending" } else { "fail" };
        (name, bad.then(|| (word, check.output.as_deref().unwrap_or_default(), check.hint.as_deref())))
    }));
    let failures = cases.iter().filter(|(_, bad)| bad.is_some()).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" timestamp=\"{}\">\n",
        xml(&suite),
        cases.len(),
        verdict.time
    );
    for (name, bad) in cases {
        let _ok = match bad {
            None => writeln!(text, "  <testcase classname=\"sluicegate.gate\" name=\"{}\"/>", xml(&name)),
            Some((word, why, hint)) => writeln!(
                text,
                "  <testcase classname=\"sluicegate.gate\" name=\"{}\"><failure type=\"{word}\" message=\"{}\">{}</failure></testcase>",
                xml(&name),
                xml(why),
                xml(hint.unwrap_or_default())
            ),
        };
    }
    text + "</testsuite>\n"
}

fn xml(text: &str) -> String {
    escaped(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
