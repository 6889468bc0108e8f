//! What a pipeline's own pages show of a verdict: GitHub's step summary and annotations, GitLab's JUnit report.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use clap::ValueEnum;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::out::to_stderr;
use crate::clock::Timestamp;
use crate::config;
use crate::health::tier::{AllVerdict, Decision, TierVerdict};
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
    let title = format!("gate {} for {}", verdict.decision.as_str(), verdict.release);
    let notes = vec![(verdict.decision, title, verdict.output.as_str())];
    write_up(ctx, &notes, || markdown(verdict))
}

/// The same over all tiers: what each is, under what they come to; an annotation for each that is red.
pub(super) fn report_all(ctx: &Context, verdict: &AllVerdict) -> Result<(), CliError> {
    let title = |decision: Decision, of: &str| format!("gate {} for {of}", decision.as_str());
    let mut notes: Vec<_> = verdict
        .tiers
        .iter()
        .map(|t| (t.decision, title(t.decision, &format!("{} in tier {}", t.release, t.tier)), &*t.output))
        .collect();
    if notes.is_empty() {
        notes.push((verdict.decision, title(verdict.decision, "all tiers"), verdict.output.as_str()));
    }
    write_up(ctx, &notes, || {
        let (mark, word) = (mark(verdict.decision), verdict.decision.as_str());
        let head = format!("## {mark} gate {word}: all tiers\n\n{}\n\n", cell(&verdict.output));
        verdict.tiers.iter().fold(head, |text, tier| text + &markdown(tier))
    })
}

fn write_up(
    ctx: &Context,
    notes: &[(Decision, String, &str)],
    summary: impl Fn() -> String,
) -> Result<(), CliError> {
    if !ctx.ci().is_github() {
        return Ok(());
    }
    if let Some(file) = config::variable("GITHUB_STEP_SUMMARY") {
        append(Path::new(&file), &summary())?;
    }
    for (decision, title, output) in notes.iter().filter(|(decision, ..)| *decision != Decision::Pass) {
        let word = if *decision == Decision::Pending { "warning" } else { "error" };
        let title = command_data(title).replace(':', "%3A").replace(',', "%2C");
        to_stderr(&format!("::{word} title={title}::{}", command_data(output)));
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

fn mark(decision: Decision) -> &'static str {
    match decision {
        Decision::Pass => "✅",
        Decision::Pending => "⏳",
        _ => "❌",
    }
}

fn markdown(verdict: &TierVerdict) -> String {
    let mark = mark(verdict.decision);
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

/// What failed of a test case: how, why, and what to do.
type Failure<'a> = Option<(&'a str, &'a str, Option<&'a str>)>;

/// One test case per check, as GitLab (and others) show them.
pub(super) fn junit(verdict: &TierVerdict, file: &Path) -> Result<(), CliError> {
    write_xml(file, &suite_of(verdict))
}

/// One suite per tier, and one that tells what they come to: without any tier there is no pass.
pub(super) fn junit_all(verdict: &AllVerdict, file: &Path) -> Result<(), CliError> {
    let whole = failed(verdict.decision, &verdict.output, None);
    let mut suites = suite("gate over all tiers", verdict.time, vec![("verdict".to_owned(), whole)]);
    verdict.tiers.iter().for_each(|tier| suites += &suite_of(tier));
    write_xml(file, &format!("<testsuites>\n{suites}</testsuites>\n"))
}

fn write_xml(file: &Path, suites: &str) -> Result<(), CliError> {
    let failed = |error| CliError::new(Exit::Error, format!("cannot write `{}`: {error}", file.display()));
    std::fs::write(file, format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{suites}")).map_err(failed)
}

fn failed<'a>(decision: Decision, output: &'a str, hint: Option<&'a str>) -> Failure<'a> {
    (decision != Decision::Pass).then(|| (decision.as_str(), output, hint))
}

fn suite_of(verdict: &TierVerdict) -> String {
    let whole = failed(verdict.decision, &verdict.output, verdict.next.as_deref());
    let mut cases = vec![("verdict".to_owned(), whole)];
    cases.extend(verdict.checks.iter().map(|check| {
        let name = match &check.component_id {
            Some(of) => format!("{} {of}", check.key()),
            None => check.key().to_owned(),
        };
        let bad = check.status == crate::health::Status::Fail;
        let word = if check.pending { "pending" } else { "fail" };
        (name, bad.then(|| (word, check.output.as_deref().unwrap_or_default(), check.hint.as_deref())))
    }));
    suite(&format!("gate {} in tier {}", verdict.release, verdict.tier), verdict.time, cases)
}

fn suite(name: &str, time: Timestamp, cases: Vec<(String, Failure<'_>)>) -> String {
    let failures = cases.iter().filter(|(_, bad)| bad.is_some()).count();
    let mut text = format!(
        "<testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" timestamp=\"{time}\">\n",
        xml(name),
        cases.len(),
    );
    for (name, bad) in cases {
        // Writing to a `String` cannot fail.
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
