//! What this program runs itself when it enqueues, and how that is told.

use std::sync::Arc;

use super::context::Context;
use super::error::CliError;
use super::{dev, with_builtin};
use crate::client::{Client, Enqueued, Handlers, Way};
use crate::clock::human;
use crate::config::Config;
use crate::handlers::Delivery;
use crate::names::Tier;
use crate::store::Store;
use crate::worker::Registry;

/// The kinds of this program. `None` beside a running `dev`, which runs them itself: what they send belongs into its inbox.
pub(super) fn handlers(ctx: &Context, config: &Config) -> Result<Option<Handlers>, CliError> {
    if config.dev_inbox() && dev::is_running(&config.store()?.0) {
        ctx.out.detail("`dev` uses this store: jobs run there, so that what they send lands in its inbox");
        return Ok(None);
    }
    Ok(Some(of(config, with_builtin(ctx.registry.clone(), Delivery::Real)?)))
}

/// Kinds with their settings.
pub(super) fn of(config: &Config, registry: Registry) -> Handlers {
    Handlers::from(registry).settings(config.settings())
}

/// Enqueues, and runs what it is to run itself.
pub(super) fn client(store: Arc<dyn Store>, tier: Tier, handlers: Option<Handlers>) -> Client {
    let client = Client::new(store, tier);
    match handlers {
        Some(handlers) => client.with_handlers(handlers),
        None => client,
    }
}

/// How a job went, for people.
pub(super) fn told(done: &Enqueued) -> String {
    let stored = done.durability.map_or_else(String::new, |level| format!("stored({level})"));
    match &done.way {
        Way::Queued { why: None } => stored,
        Way::Queued { why: Some(why) } => format!("{stored}, not run here: {why}"),
        Way::Existing => "enqueued before".to_owned(),
        Way::Inline { took } => format!("ran here in {}", human(*took)),
        Way::InlineUnrecorded { took, may_repeat, error } => {
            let again = if *may_repeat { "; it may run again" } else { "" };
            format!("ran here in {}, not recorded{again}: {error}", human(*took))
        }
        Way::QueuedAfterInline { error } => format!("{stored}, failed here: {error}"),
    }
}
