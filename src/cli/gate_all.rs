//! `gate … --all-tiers`: the verdict over all tiers, as commands tell it.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::ci;
use super::context::Context;
use super::error::CliError;
use super::gate::{Answer, troubles};
use crate::health::tier::{AllAsk, AllVerdict, Decision, look_all};
use crate::store::Store;

/// Looks at all tiers once.
pub(super) async fn look(ctx: &Context, store: &dyn Store, ask: &AllAsk) -> Result<AllVerdict, CliError> {
    look_all(store, ask).await.map_err(|managed| {
        CliError::usage(format!("`--release` is needed: {managed}"))
            .hint(format!("`{} gate check --all-tiers --release RELEASE`", ctx.program))
    })
}

impl Answer for AllVerdict {
    fn decision(&self) -> Decision {
        self.decision
    }

    fn is_unreachable(&self) -> bool {
        self.unreachable
    }

    fn output(&self) -> &str {
        &self.output
    }

    fn ends_in(&mut self, left: Duration) {
        self.deadline = Some(self.time.plus(left));
    }

    fn to_value(&self) -> serde_json::Result<Value> {
        AllVerdict::to_value(self)
    }

    /// The whole, and then each tier with what blocks it.
    fn show(&self, ctx: &Context) -> Result<(), CliError> {
        let out = &ctx.out;
        let release = self.release.as_ref().map(|release| format!("release {release}, ")).unwrap_or_default();
        let good = self.decision == Decision::Pass;
        let red: Vec<&str> = self.red().map(|tier| tier.tier.as_str()).collect();
        // Why, stands beside each of them.
        let words = match red.len() {
            0 => self.output.clone(),
            n => format!("{n} of {}: {}", self.tiers.len(), red.join(", ")),
        };
        let decision = self.decision.as_str();
        out.marked(good, format!("{decision}  {release}all tiers: {words}"))?;
        for tier in &self.tiers {
            let good = tier.decision == Decision::Pass;
            let word = tier.decision.as_str();
            out.marked(good, format!("{word:<10}  {:<16} {}", tier.tier, tier.output))?;
            troubles(ctx, tier, "    ")?;
        }
        for tier in &self.idle {
            out.line(format!("- {:<10}  {tier:<16} only its name is left", "idle"))?;
        }
        for tier in &self.excluded {
            out.line(format!("- {:<10}  {tier}", "left out"))?;
        }
        Ok(())
    }

    fn next(&self, ctx: &Context) {
        if let Some((tier, next)) = self.next() {
            ctx.out.next(ctx.own_in(tier, next));
        }
        let strangers: Vec<&str> = self.strangers().map(|tier| tier.as_str()).collect();
        if !strangers.is_empty() {
            let names = strangers.join(",");
            ctx.out.note(format!("what the release has no part in is left out by name: `--exclude {names}`"));
        }
    }

    fn report(&self, ctx: &Context, junit: Option<&Path>) -> Result<(), CliError> {
        ci::report_all(ctx, self)?;
        junit.map_or(Ok(()), |file| ci::junit_all(self, file))
    }
}
