//! `job enqueue --from-file`: JSON lines, a batch at a time, in bounded memory. A line that is refused does not hold the
//! others up; it is named with its number and reason.

use std::io::{BufRead, BufReader, IsTerminal as _, Read as _};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::bypass;
use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use crate::client::{Client, EnqueueError, Enqueued, Way};
use crate::job::EnqueueBody;
use crate::job::NewJob;
use crate::job::args::MAX_ARGS;
use crate::store::MAX_BATCH;

/// Longest line, in bytes: the largest arguments and everything around them.
const MAX_LINE: usize = MAX_ARGS + 64 * 1024;

#[derive(Default)]
struct Sums {
    /// Ran here.
    inline: u64,
    stored: u64,
    replayed: u64,
    refused: u64,
}

pub(super) async fn run(ctx: &Context, path: &Path) -> CliResult {
    let config = ctx.config()?;
    let store = ctx.store(&config).await?;
    let client = bypass::client(store, config.tier(), bypass::handlers(ctx, &config)?);
    let mut input: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = std::fs::File::open(path)
            .map_err(|error| CliError::usage(format!("cannot read `{}`: {error}", path.display())))?;
        Box::new(BufReader::with_capacity(256 * 1024, file))
    };
    let bar = bar(ctx);
    let (mut sums, mut number, mut batch) = (Sums::default(), 0, Vec::with_capacity(MAX_BATCH));
    loop {
        let line = next_line(&mut input)?;
        let ended = line.is_none();
        if let Some(line) = line {
            number += 1;
            match line.and_then(|line| parse(&line, &client)) {
                Ok(None) => {}
                Ok(Some(job)) => batch.push((number, job)),
                Err(reason) => refuse(ctx, &mut sums, number, &reason)?,
            }
        }
        if batch.len() == MAX_BATCH || ended && !batch.is_empty() {
            send(ctx, &client, &mut sums, std::mem::take(&mut batch)).await?;
            bar.set_position(sums.stored + sums.replayed + sums.inline);
        }
        if ended {
            break;
        }
    }
    bar.finish_and_clear();
    finish(ctx, &sums)
}

fn bar(ctx: &Context) -> ProgressBar {
    if !ctx.out.is_for_people() || ctx.out.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} jobs enqueued, {per_sec}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// The next line, or why it is refused; `None` at the end. A line over the limit is skipped without being kept.
fn next_line(input: &mut dyn BufRead) -> Result<Option<Result<Vec<u8>, String>>, CliError> {
    let mut line = Vec::new();
    let read = input.take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.len() > MAX_LINE && line.last() != Some(&b'\n') {
        input.skip_until(b'\n')?;
        return Ok(Some(Err(format!("longer than {MAX_LINE} bytes"))));
    }
    Ok(Some(Ok(line)))
}

fn parse(line: &[u8], client: &Client) -> Result<Option<NewJob>, String> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let job = EnqueueBody::read(line).and_then(|body| body.into_job(client.tier()));
    job.map(Some).map_err(|error| error.to_string())
}

fn refuse(ctx: &Context, sums: &mut Sums, line: u64, reason: &str) -> Result<(), CliError> {
    sums.refused += 1;
    if ctx.out.is_for_people() {
        ctx.out.note(format!("line {line} refused: {reason}"));
        return Ok(());
    }
    ctx.out.json_line(&json!({ "line": line, "error": reason }))
}

async fn send(
    ctx: &Context,
    client: &Client,
    sums: &mut Sums,
    batch: Vec<(u64, NewJob)>,
) -> Result<(), CliError> {
    let (numbers, jobs): (Vec<u64>, Vec<NewJob>) = batch.into_iter().unzip();
    for (line, answer) in numbers.into_iter().zip(client.insert_many(jobs).await) {
        match answer {
            Ok(done) if done.replayed => sums.replayed += 1,
            Ok(Enqueued { way: Way::Inline { .. } | Way::InlineUnrecorded { .. }, .. }) => sums.inline += 1,
            Ok(_) => sums.stored += 1,
            // The store is away: going on would only fail line by line.
            Err(error @ (EnqueueError::Store(_) | EnqueueError::Unknown { .. })) => {
                let stored = sums.stored + sums.replayed;
                return Err(CliError::from(error).hint(format!(
                    "{stored} jobs were stored before line {line}; lines with an `id` or `idempotency_key` can be sent again without storing them twice"
                )));
            }
            Err(error) => refuse(ctx, sums, line, &error.to_string())?,
        }
    }
    Ok(())
}

fn finish(ctx: &Context, sums: &Sums) -> CliResult {
    let Sums { inline, stored, replayed, refused } = sums;
    if ctx.out.is_for_people() {
        let ran = if *inline > 0 { format!(", {inline} ran here") } else { String::new() };
        ctx.out.line(format!("{stored} enqueued, {replayed} enqueued before{ran}, {refused} refused"))?;
        ctx.out.next(format!("{} status", ctx.program));
    } else {
        ctx.out.json_line(
            &json!({ "enqueued": stored, "replayed": replayed, "inline": inline, "refused": refused }),
        )?;
    }
    Ok(if *refused > 0 { Exit::Partial } else { Exit::Ok })
}
