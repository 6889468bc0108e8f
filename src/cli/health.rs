//! `health`: asks the local worker's probes; the exit code is the verdict. Without a store, so that it answers when the
//! store does not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::args::{Health, HealthFormat};
use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::fetch::{self, Answer};
use super::out::escaped_lines;
use crate::health::Probe;
use crate::names::{escaped, shown_long};

/// Probes answer in a millisecond, or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// What Nagios calls OK, WARNING, CRITICAL and UNKNOWN; the codes are its own, whatever they mean elsewhere.
const NAGIOS: [(&str, Exit); 4] =
    [("OK", Exit::Ok), ("WARNING", Exit::Error), ("CRITICAL", Exit::Usage), ("UNKNOWN", Exit::Unhealthy)];

pub(super) fn run(ctx: &Context, args: &Health) -> CliResult {
    let probe = args.group.or(args.of).unwrap_or(Probe::Ready);
    match args.format.unwrap_or(if ctx.out.is_for_people() { HealthFormat::Text } else { HealthFormat::Json })
    {
        HealthFormat::Text => text(ctx, args, probe),
        HealthFormat::Json => json(ctx, args, probe),
        // A monitor reads one line and four codes, whatever happens.
        HealthFormat::Nagios => match ask(ctx, args, probe, "application/health+json") {
            Ok(answer) => nagios(ctx, probe, &answer),
            Err(error) => say(ctx, 3, &error.message, ""),
        },
    }
}

/// Asks; anything but an answer to the question is "unreachable": nobody knows how the worker is.
fn ask(ctx: &Context, args: &Health, probe: Probe, accept: &str) -> Result<Answer, CliError> {
    let host = match &args.url {
        Some(url) => fetch::host_of(url).map_err(|error| CliError::usage(format!("--url: {error}")))?,
        None => local(ctx.config()?.health_listen())?.to_string(),
    };
    let verbose = if ctx.out.verbose { "?verbose" } else { "" };
    let path = format!("/health/{}{verbose}", probe.group());
    let unreachable = |message: String| {
        CliError::new(Exit::Unreachable, message)
            .hint("is a worker running here? `health.listen` or `--url` says where its probes are")
    };
    let answer = fetch::get(&host, &path, accept, ctx.timeout()?.min(PATIENCE)).map_err(unreachable)?;
    if !matches!(answer.status, 200 | 503) || answer.body.is_empty() {
        let (status, said) = (answer.status, shown_long(answer.body.trim()));
        return Err(unreachable(format!("{host} answered {status} to {path}: {said}")));
    }
    Ok(answer)
}

/// Where to ask for what listens everywhere.
fn local(listen: SocketAddr) -> Result<SocketAddr, CliError> {
    if listen.port() == 0 {
        return Err(CliError::usage("`health.listen` has port 0: nobody knows which port the worker took")
            .hint("say where with `--url http://127.0.0.1:PORT`; the worker's log names it"));
    }
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, listen.port()))
}

fn verdict(answer: &Answer) -> Exit {
    if answer.status == 200 { Exit::Ok } else { Exit::Unhealthy }
}

fn text(ctx: &Context, args: &Health, probe: Probe) -> CliResult {
    let answer = ask(ctx, args, probe, "text/plain")?;
    ctx.out.line(escaped_lines(&answer.body))?;
    Ok(verdict(&answer))
}

fn json(ctx: &Context, args: &Health, probe: Probe) -> CliResult {
    let answer = ask(ctx, args, probe, "application/health+json")?;
    let body: Value = serde_json::from_str(&answer.body).map_err(|error| {
        CliError::new(Exit::Unreachable, format!("the answer is no health+json: {error}"))
    })?;
    ctx.out.json(&body)?;
    Ok(verdict(&answer))
}

fn nagios(ctx: &Context, probe: Probe, answer: &Answer) -> CliResult {
    let Ok(body) = serde_json::from_str::<Value>(&answer.body) else {
        return say(ctx, 3, "the answer is no health+json", "");
    };
    let level = match body.get("status").and_then(Value::as_str) {
        Some("pass") => 0,
        Some("warn") => 1,
        Some("fail") => 2,
        _ => 3,
    };
    let told = body.get("output").and_then(Value::as_str).unwrap_or_default();
    let who = body.get("serviceId").and_then(Value::as_str).unwrap_or("worker");
    let message = if told.is_empty() { format!("{who} {}", probe.group()) } else { told.to_owned() };
    say(ctx, level, &message, &perfdata(&body))
}

/// `LEVEL - message | perfdata`, on one line.
fn say(ctx: &Context, level: usize, message: &str, perfdata: &str) -> CliResult {
    let (word, exit) = NAGIOS.get(level).copied().unwrap_or(("UNKNOWN", Exit::Unhealthy));
    let message = escaped(message).replace('|', "/");
    let perfdata = if perfdata.is_empty() { String::new() } else { format!(" | {perfdata}") };
    ctx.out.line(format!("{word} - {message}{perfdata}"))?;
    Ok(exit)
}

/// Every check that measured a number: `'label'=value[s];;critical`.
fn perfdata(body: &Value) -> String {
    let checks = body.get("checks").and_then(Value::as_object).into_iter().flatten();
    let one = |(key, found): (&String, &Value)| {
        let check = found.get(0)?;
        let value = check.get("observedValue")?.as_f64()?;
        let unit =
            check.get("observedUnit").and_then(Value::as_str).filter(|unit| *unit == "s").unwrap_or("");
        let limit =
            check.get("limit").and_then(Value::as_f64).map(|limit| limit.to_string()).unwrap_or_default();
        Some(format!("'{key}'={value}{unit};;{limit}"))
    };
    checks.filter_map(one).collect::<Vec<_>>().join(" ")
}
