//! Help, version, completion.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use serde_json::json;

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::{Exit, TABLE};
use super::out::{escaped_lines, to_stderr};
use crate::config::keys::KEYS;
use crate::job::State;

/// What clap refuses, or prints because it was asked to.
pub(super) fn clap_error(error: &clap::Error, clap: &clap::Command, argv: &[OsString]) -> Exit {
    if error.use_stderr() {
        // The offending word comes back in it.
        to_stderr(&escaped_lines(error.render().to_string().trim_end()));
        if let Some(near) = nearest_command(error, clap, argv) {
            to_stderr(&format!("\nhint: did you mean `{near}`?"));
        }
        return Exit::Usage;
    }
    match error.print() {
        Ok(()) => Exit::Ok,
        Err(_) => Exit::Pipe,
    }
}

/// The command that was meant, where clap itself has no idea.
fn nearest_command(error: &clap::Error, clap: &clap::Command, argv: &[OsString]) -> Option<String> {
    let (Some(ContextValue::String(wrong)), None) =
        (error.get(ContextKind::InvalidSubcommand), error.get(ContextKind::SuggestedSubcommand))
    else {
        return None;
    };
    let mut group = clap;
    for word in argv.iter().skip(1).take_while(|word| word.to_str() != Some(wrong)) {
        group = word.to_str().and_then(|word| group.find_subcommand(word)).unwrap_or(group);
    }
    let names = group.get_subcommands().map(clap::Command::get_name);
    crate::config::keys::nearest(wrong, names).map(str::to_owned)
}

pub(super) fn topic(mut clap: clap::Command, words: &[String], ctx: &Context) -> CliResult {
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => ctx.out.line(clap.render_long_help().to_string().trim_end())?,
        ["exit-codes"] => exit_codes(ctx)?,
        ["environment"] => environment(ctx)?,
        ["states"] => states(ctx)?,
        path => {
            clap.build();
            let mut found = &mut clap;
            for word in path {
                found = found.find_subcommand_mut(word).ok_or_else(|| {
                    CliError::usage(format!(
                        "no command or topic `{}`",
                        crate::names::shown(&words.join(" "))
                    ))
                    .hint("topics: exit-codes, environment, states")
                })?;
            }
            let help = found.render_long_help();
            ctx.out.line(help.to_string().trim_end())?;
        }
    }
    Ok(Exit::Ok)
}

fn exit_codes(ctx: &Context) -> Result<(), CliError> {
    if !ctx.out.is_for_people() {
        let rows: Vec<_> = TABLE
            .iter()
            .map(|(exit, name, when)| json!({ "code": *exit as u8, "name": name, "when": when }))
            .collect();
        return ctx.out.json(&rows);
    }
    let rows = TABLE
        .iter()
        .map(|(exit, name, when)| vec![(*exit as u8).to_string(), (*name).to_owned(), (*when).to_owned()]);
    ctx.out.table(&["code", "name", "when"], rows.collect())
}

fn environment(ctx: &Context) -> Result<(), CliError> {
    let flags = ["config", "store", "tier", "output", "time", "color", "timeout", "ci", "release"];
    let mut rows: Vec<Vec<String>> = flags
        .iter()
        .map(|flag| vec![format!("SLUICEGATE_{}", flag.to_uppercase()), format!("the flag --{flag}")])
        .collect();
    rows.extend(KEYS.iter().map(|key| vec![key.variable(), key.doc.to_owned()]));
    rows.extend(
        [
            "OTEL_SERVICE_NAME",
            "OTEL_RESOURCE_ATTRIBUTES",
            "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_TRACES_SAMPLER",
        ]
        .map(|name| vec![name.to_owned(), "for traces and metrics, as OpenTelemetry has it".to_owned()]),
    );
    rows.extend(
        ["NO_COLOR", "CLICOLOR_FORCE", "FORCE_COLOR"]
            .map(|name| vec![name.to_owned(), "whether colour is used".to_owned()]),
    );
    rows.extend(
        ["XDG_DATA_HOME", "XDG_CONFIG_HOME"]
            .map(|name| vec![name.to_owned(), "where the data and the configuration are".to_owned()]),
    );
    ctx.out.table(&["variable", "what it sets"], rows)
}

fn states(ctx: &Context) -> Result<(), CliError> {
    let meaning = |state| match state {
        State::Available => "waiting: any active worker may claim it now",
        State::Running => "held by a worker under a lease",
        State::Scheduled => "waiting for its time",
        State::Retryable => "failed, waiting for its next attempt",
        State::Parked => "waiting for a capable release or a decision; costs no attempt",
        State::Completed => "done",
        State::Dead => "no attempts left, given up, or quarantined after crashes",
        State::Cancelled => "called off",
        State::Expired => "too late to be useful",
    };
    let rows = State::ALL.map(|state| vec![state.to_string(), meaning(state).to_owned()]);
    ctx.out.table(&["state", "meaning"], rows.into())
}

pub(super) fn version(ctx: &Context) -> CliResult {
    let version = env!("CARGO_PKG_VERSION");
    if ctx.out.is_for_people() {
        ctx.out.line(format!("{} {version}", ctx.name))?;
    } else {
        ctx.out.json(&json!({ "name": ctx.name, "version": version, "library": "sluicegate" }))?;
    }
    Ok(Exit::Ok)
}

pub(super) fn completion(mut clap: clap::Command, shell: clap_complete::Shell, ctx: &Context) -> CliResult {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut clap, &ctx.name, &mut script);
    ctx.out.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Ok)
}
