//! `job list`.

use super::args::List;
use super::context::{Context, span};
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::out::Format;
use crate::clock::wall;
use crate::job::JobRecord;
use crate::names::{Kind, Queue};
use crate::store::{Page, PageAsk};

pub(super) async fn run(ctx: &Context, args: List) -> CliResult {
    let limit = usize::from(args.limit);
    let mut ask = ask(args)?;
    let (store, tier) = ctx.open().await?;
    let mut page = Page { jobs: Vec::new(), next: None };
    loop {
        ask.limit = limit - page.jobs.len();
        let found = store.page(&tier, ask.clone()).await?;
        page.jobs.extend(found.jobs);
        page.next = found.next;
        ask.token.clone_from(&page.next);
        if page.next.is_none() || page.jobs.len() >= limit {
            break;
        }
    }
    print(ctx, &page)?;
    if let Some(token) = &page.next {
        ctx.out.next(format!("{} job list --page-token {token} (with the same filters)", ctx.program));
    }
    Ok(Exit::Ok)
}

fn ask(args: List) -> Result<PageAsk, CliError> {
    Ok(PageAsk {
        state: args.state.map(|text| text.parse()).transpose().map_err(CliError::usage)?,
        queue: args.queue.map(|text| Queue::new(&text)).transpose().map_err(CliError::usage)?,
        kind: args.kind.map(|text| Kind::new(&text)).transpose().map_err(CliError::usage)?,
        tags: args.tags.iter().map(|tag| parse_tag(tag)).collect::<Result<_, _>>()?,
        error: args.error,
        older_than: args.older_than.map(|text| span("--older-than", &text)).transpose()?,
        limit: 0,
        token: args.page_token,
    })
}

pub(super) fn parse_tag(text: &str) -> Result<(String, String), CliError> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        CliError::usage(format!("--tag `{}`: expected KEY=VALUE", crate::names::shown(text)))
    })?;
    Ok((key.to_owned(), value.to_owned()))
}

fn print(ctx: &Context, page: &Page) -> Result<(), CliError> {
    let out = &ctx.out;
    match out.format {
        Format::Json => out.json(page),
        Format::Jsonl => page.jobs.iter().try_for_each(|job| out.json(job)),
        Format::Name => page.jobs.iter().try_for_each(|job| out.line(job.id)),
        Format::None => Ok(()),
        Format::Table => out.table(
            &["id", "state", "kind", "queue", "enqueued", "note"],
            page.jobs.iter().map(|job| row(ctx, job)).collect(),
        ),
        Format::Wide => {
            let wide = |job: &JobRecord| {
                let mut row = row(ctx, job);
                row.push(job.worker.as_ref().map_or_else(String::new, ToString::to_string));
                row.push(crate::names::shown(job.args.as_str()));
                row
            };
            out.table(
                &["id", "state", "kind", "queue", "enqueued", "note", "worker", "args"],
                page.jobs.iter().map(wide).collect(),
            )
        }
    }
}

fn row(ctx: &Context, job: &JobRecord) -> Vec<String> {
    let note = match (job.failures, job.last_error()) {
        (0, None) => String::new(),
        (0, Some(error)) => crate::names::shown(error),
        (n, error) => crate::names::shown(&format!("{n} failed: {}", error.unwrap_or(""))),
    };
    vec![
        job.id.to_string(),
        job.state.to_string(),
        job.kind.to_string(),
        job.queue.to_string(),
        ctx.out.time(job.enqueued_at, wall()),
        note,
    ]
}
