//! What every command starts with: output, configuration, store. Each is opened when it is first needed, so that a
//! command that needs none touches none.

use std::sync::Arc;
use std::time::Duration;

use super::args::{Global, Listen};
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::out::{Format, Out};
use crate::clock::{duration_from_secs, parse_duration};
use crate::config::{Config, Flags, person};
use crate::location::StoreUrl;
use crate::names::Tier;
use crate::store::{self, Actor, Store};
use crate::worker::Registry;

pub(super) struct Context {
    pub(super) out: Out,
    pub(super) registry: Registry,
    /// What this program is called.
    pub(super) name: String,
    /// How it is called from here, for this store and tier: what a command that is printed begins with.
    pub(super) program: String,
    /// The same without the tier, for commands about another one.
    tierless: String,
    global: Global,
    /// Flags of the command that are also keys.
    pub(super) flags: Flags,
}

impl Context {
    pub(super) fn new(global: Global, registry: Registry, typed: &str) -> Self {
        let format = if global.json { Format::Json } else { global.output };
        let out =
            Out::new(format, !global.no_headers, global.time, global.color, global.quiet, global.verbose);
        let mut flags = Flags::new();
        for (path, flag, value) in [("store.url", "--store", &global.store), ("tier", "--tier", &global.tier)]
        {
            if let Some(value) = value {
                flags.push((path, flag, value.clone()));
            }
        }
        let mut program = quoted(typed);
        if let Some(file) = &global.config {
            program += &format!(" --config {}", quoted(&file.to_string_lossy()));
        }
        let mut tierless = program.clone();
        for (path, flag, value) in &flags {
            let typed = format!(" {flag} {}", quoted(value));
            program += &typed;
            if *path != "tier" {
                tierless += &typed;
            }
        }
        Self { out, registry, name: base_name(typed), program, tierless, global, flags }
    }

    pub(super) fn flag(&mut self, path: &'static str, flag: &'static str, value: Option<String>) {
        if let Some(value) = value {
            self.flags.push((path, flag, value));
        }
    }

    pub(super) fn listen(&mut self, listen: Listen) {
        self.flag("api.listen", "--api-listen", listen.api_listen);
        self.flag("health.listen", "--health-listen", listen.health_listen);
    }

    pub(super) fn config(&self) -> Result<Config, CliError> {
        Ok(Config::load(self.global.config.as_deref(), self.flags.clone())?)
    }

    pub(super) fn store_url(&self, config: &Config) -> Result<StoreUrl, CliError> {
        let (url, why) = config.store()?;
        self.out.detail(format!("store {url} ({why})"));
        Ok(url)
    }

    pub(super) async fn store(&self, config: &Config) -> Result<Arc<dyn Store>, CliError> {
        let url = self.store_url(config)?;
        Ok(store::open_wanting(&url, config.durability()).await?)
    }

    /// The store and the tier, for commands that look or change what is there: a file that does not exist is an error, since a
    /// slip in its path would otherwise create an empty one and say that all is well.
    pub(super) async fn open(&self) -> Result<(Arc<dyn Store>, Tier), CliError> {
        let config = self.config()?;
        let url = self.store_url(&config)?;
        if url.path().is_some_and(|path| !path.exists()) {
            return Err(CliError::new(
                Exit::Unreachable,
                format!("cannot open store {url}: it does not exist yet"),
            )
            .hint("`dev`, `work`, `serve` and `job enqueue` create it; nothing was created now"));
        }
        Ok((store::open_wanting(&url, config.durability()).await?, config.tier()))
    }

    /// `--timeout`.
    pub(super) fn timeout(&self) -> Result<Duration, CliError> {
        let timeout = span("--timeout", &self.global.timeout)?;
        duration_from_secs(timeout.as_secs_f64()).ok_or_else(|| CliError::usage("--timeout: out of range"))
    }

    /// `--ci`.
    pub(super) fn ci(&self) -> super::ci::Ci {
        self.global.ci
    }

    /// A command that begins with `sluicegate `, as it is called from here.
    pub(super) fn own(&self, command: &str) -> String {
        command
            .strip_prefix("sluicegate ")
            .map_or_else(|| command.to_owned(), |rest| format!("{} {rest}", self.program))
    }

    /// The same about a tier, whichever this command was called for.
    pub(super) fn own_in(&self, tier: &Tier, command: &str) -> String {
        command
            .strip_prefix("sluicegate ")
            .map_or_else(|| command.to_owned(), |rest| format!("{} --tier {tier} {rest}", self.tierless))
    }

    pub(super) fn actor(reason: Option<String>) -> Actor {
        Actor { who: person(), reason }
    }

    /// Runs a short command on a runtime of one thread; Ctrl-C ends it.
    pub(super) fn block_on(self, command: impl AsyncFnOnce(&Self) -> CliResult) -> CliResult {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::select! {
                result = command(&self) => result,
                interrupted = tokio::signal::ctrl_c() => {
                    interrupted?;
                    Ok(Exit::Interrupted)
                }
            }
        })
    }

    /// A runtime for workers and servers.
    pub(super) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 4);
        Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?)
    }
}

/// The last part of a path.
pub(super) fn base_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The duration that a flag was given.
pub(super) fn span(flag: &str, text: &str) -> Result<Duration, CliError> {
    parse_duration(text).map_err(|error| CliError::usage(format!("{flag}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_survives_the_shell() {
        for (word, typed) in [("a/b.db", "a/b.db"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("", "''")] {
            assert_eq!(quoted(word), typed);
        }
        assert_eq!(base_name("target/debug/app"), "app");
    }
}
