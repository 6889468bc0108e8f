//! The command line, for our binary and for an app's own: one file per command, which parses, calls and prints, and
//! decides nothing. `--help` touches nothing.

mod act;
mod activate;
mod args;
mod bypass;
mod ci;
mod config_cmd;
mod context;
mod deploy_cmd;
mod dev;
mod doctor;
mod enqueue;
mod error;
mod events;
mod exit;
mod fetch;
mod from_file;
mod gate;
mod gate_all;
mod health;
mod help;
mod list;
mod out;
mod queue;
mod release_cmd;
mod rollback;
mod serve;
mod show;
mod status;
mod story;
mod systemd;
mod tiers;
mod wait;
mod work;
mod worker_cmd;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::handlers::{self, Delivery};
use crate::job::Handler;
use crate::worker::{Registry, RegistryError};
use args::{Cli, Command, ConfigCommand, JobCommand, QueueCommand};
use context::Context;
use error::CliResult;
pub use exit::Exit;

/// A program with all commands of `sluicegate`, and an app's own kinds.
///
/// ```no_run
/// # use serde::{Deserialize, Serialize};
/// # use sluicegate::{Context, Handler, Job, JobResult, Outcome};
/// #[derive(Serialize, Deserialize)]
/// struct Greet { name: String }
/// impl Job for Greet { const KIND: &'static str = "greet"; }
/// impl Handler for Greet {
///     async fn run(self, _: Context) -> JobResult { Ok(Outcome::Done) }
/// }
/// fn main() -> std::process::ExitCode {
///     sluicegate::cli::App::new().job::<Greet>().main()
/// }
/// ```
#[derive(Debug, Default)]
pub struct App {
    registry: Registry,
    /// The first kind that could not be registered.
    refused: Option<RegistryError>,
}

impl App {
    /// A program that knows the built-in kinds only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind. One that is refused is an error when the program starts.
    #[must_use]
    pub fn job<H: Handler>(mut self) -> Self {
        if let Err(error) = self.registry.add::<H>() {
            self.refused.get_or_insert(error);
        }
        self
    }

    /// Adds a value that handlers get from `ctx.shared`.
    #[must_use]
    pub fn share<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.registry.share(value);
        self
    }

    /// Runs the command line of this process to its exit code.
    #[must_use]
    pub fn main(self) -> ExitCode {
        let exit = self.run(std::env::args_os());
        ExitCode::from(exit as u8)
    }

    fn run(self, argv: impl Iterator<Item = OsString>) -> Exit {
        let argv: Vec<OsString> = argv.collect();
        let typed = argv.first().and_then(|word| word.to_str()).unwrap_or("sluicegate").to_owned();
        let program = context::base_name(&typed);
        let command = Cli::command().name(program.clone()).bin_name(program.clone());
        let parsed =
            command.clone().try_get_matches_from(&argv).and_then(|matches| Cli::from_arg_matches(&matches));
        let cli = match parsed {
            Ok(cli) => cli,
            Err(error) => return help::clap_error(&error, &command, &argv),
        };
        let result = match self.refused {
            Some(error) => Err(error::CliError::usage(format!("this program cannot start: {error}"))),
            None => dispatch(cli, self.registry, command, &typed),
        };
        result.unwrap_or_else(|error| {
            out::fail(&error, &typed);
            error.exit
        })
    }
}

/// The built-in kinds are added last, when it is known where what they send goes.
fn with_builtin(mut registry: Registry, delivery: Delivery) -> Result<Registry, error::CliError> {
    handlers::register(&mut registry, delivery)
        .map_err(|error| error::CliError::usage(format!("this program cannot start: {error}")))?;
    Ok(registry)
}

fn dispatch(cli: Cli, registry: Registry, clap: clap::Command, typed: &str) -> CliResult {
    let Cli { global, command } = cli;
    let mut ctx = Context::new(global, registry, typed);
    match command {
        Command::Dev(args) => dev::run(ctx, args),
        Command::Work(args) => work::run(ctx, args),
        Command::Serve(args) => serve::run(ctx, args),
        Command::Health(args) => health::run(&ctx, &args),
        Command::Status(args) => ctx.block_on(async move |ctx| status::run(ctx, &args).await),
        Command::Activate(args) => ctx.block_on(async move |ctx| activate::run(ctx, *args).await),
        Command::Doctor(args) => doctor::run(ctx, &args),
        Command::Events(args) => ctx.block_on(async move |ctx| events::run(ctx, args).await),
        Command::Gate(command) => ctx.block_on(async move |ctx| gate::run(ctx, command).await),
        Command::Job(JobCommand::Enqueue(args)) => {
            ctx.block_on(async move |ctx| enqueue::run(ctx, args).await)
        }
        Command::Job(JobCommand::List(args)) => ctx.block_on(async move |ctx| list::run(ctx, args).await),
        Command::Job(JobCommand::Show { id }) => ctx.block_on(async move |ctx| show::run(ctx, id).await),
        Command::Job(JobCommand::Wait { ids }) => ctx.block_on(async move |ctx| wait::run(ctx, ids).await),
        Command::Job(JobCommand::Retry(args)) => ctx.block_on(async move |ctx| act::retry(ctx, args).await),
        Command::Job(JobCommand::Cancel(args)) => ctx.block_on(async move |ctx| act::cancel(ctx, args).await),
        Command::Queue(QueueCommand::List) => ctx.block_on(queue::list),
        Command::Queue(QueueCommand::Show { queue }) => {
            ctx.block_on(async move |ctx| queue::show(ctx, queue).await)
        }
        Command::Deploy(args) => ctx.block_on(async move |ctx| Box::pin(deploy_cmd::run(ctx, *args)).await),
        Command::Rollback(args) => ctx.block_on(async move |ctx| rollback::run(ctx, args).await),
        Command::Release(command) => ctx.block_on(async move |ctx| release_cmd::run(ctx, command).await),
        Command::Worker(command) => ctx.block_on(async move |ctx| worker_cmd::run(ctx, command).await),
        Command::Config(ConfigCommand::Show { origin }) => config_cmd::show(&mut ctx, origin),
        Command::Config(ConfigCommand::Validate) => config_cmd::validate(&mut ctx),
        Command::Config(ConfigCommand::Docs { section }) => config_cmd::docs(&ctx, section.as_deref()),
        Command::Config(ConfigCommand::Path) => config_cmd::path(&mut ctx),
        Command::Completion { shell } => help::completion(clap, shell, &ctx),
        Command::Version => help::version(&ctx),
        Command::Help { topic } => help::topic(clap, &topic, &ctx),
    }
}
