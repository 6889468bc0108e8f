//! What can be typed. The doc comments are the help texts.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::ci::Ci;
use super::deploy_cmd::DeployArgs;
use super::out::{Colour, Format, Times};
use super::release_cmd::ReleaseCommand;
use super::rollback::Rollback;
use super::supervise::Supervise;
use super::tier_cmd::TierCommand;
use crate::health::Probe;
use crate::health::tier::simulate::Illness;
use crate::job::Bypass;

/// A job-queue worker runtime that proves it is running
#[derive(Debug, Parser)]
#[command(
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Configuration file, instead of the usual ones
    #[arg(long, global = true, env = "SLUICEGATE_CONFIG", hide_env = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Store: `sqlite:PATH` (default: jobs.db in the data folder)
    #[arg(
        long,
        global = true,
        env = "SLUICEGATE_STORE",
        hide_env = true,
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(super) store: Option<String>,
    /// Tier (default: `default`)
    #[arg(long, global = true, env = "SLUICEGATE_TIER", hide_env = true)]
    pub(super) tier: Option<String>,
    /// How data is written
    #[arg(
        short,
        long,
        global = true,
        env = "SLUICEGATE_OUTPUT",
        hide_env = true,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub(super) output: Format,
    /// The same as `-o json`
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Tables without their first line
    #[arg(long, global = true)]
    pub(super) no_headers: bool,
    /// How times are written in tables
    #[arg(
        long,
        global = true,
        env = "SLUICEGATE_TIME",
        hide_env = true,
        value_enum,
        default_value = "relative"
    )]
    pub(super) time: Times,
    /// When colour is used
    #[arg(
        long,
        global = true,
        env = "SLUICEGATE_COLOR",
        hide_env = true,
        value_enum,
        default_value = "auto",
        value_name = "WHEN"
    )]
    pub(super) color: Colour,
    /// No messages, only data and errors
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// More messages: which store and why
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(super) verbose: bool,
    /// How long commands that wait do so
    #[arg(
        long,
        global = true,
        env = "SLUICEGATE_TIMEOUT",
        hide_env = true,
        default_value = "5m",
        value_name = "DUR"
    )]
    pub(super) timeout: String,
    /// For whose pages a verdict is written up too
    #[arg(
        long,
        global = true,
        env = "SLUICEGATE_CI",
        hide_env = true,
        value_enum,
        default_value = "auto",
        value_name = "WHERE"
    )]
    pub(super) ci: Ci,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Everything on this machine, with no set-up: store, worker, API, inbox
    Dev(Listen),
    /// Run a worker in the foreground
    Work(Work),
    /// Serve the API
    Serve(Listen),
    /// Keep this host's worker processes as the store wants them: active, and warm for the way back
    Supervise(Supervise),
    /// One screen: activation, workers, queues
    Status(Status),
    /// Ask the local worker how it is; the exit code is the verdict
    Health(Health),
    /// Switch a tier to a release by hand, or commit a provisional activation
    Activate(Box<Activate>),
    /// Whether a release may be left alone with the work of its tier
    #[command(subcommand)]
    Gate(GateCommand),
    /// Why is nothing running? What blocks comes first, with the command that helps
    Doctor(Doctor),
    /// Enqueue and look after jobs
    #[command(subcommand)]
    Job(JobCommand),
    /// See queues
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Switch the tier to a release, by the proof of jobs that it really ran, with a way back
    Deploy(Box<DeployArgs>),
    /// Go back to the last verified release, which still runs: one flip
    Rollback(Rollback),
    /// Releases: put them on this host's shelf, see, check and prune them
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// What was done to the tier, by whom and why
    Events(Events),
    /// How many workers each host keeps
    #[command(subcommand)]
    Tier(TierCommand),
    /// See workers, and tell them what to do
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script
    Completion {
        /// For which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
    /// Help on a command or a topic: exit-codes, environment, states
    Help {
        /// A command, or a topic
        topic: Vec<String>,
    },
}

#[derive(Debug, Clone, Args)]
pub(super) struct Listen {
    /// Where the API listens (default: 127.0.0.1:7434; port 0 takes a free one)
    #[arg(long, value_name = "ADDR")]
    pub(super) api_listen: Option<String>,
    /// Where the probes listen (default: 127.0.0.1:7433; port 0 takes a free one)
    #[arg(long, value_name = "ADDR")]
    pub(super) health_listen: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Health {
    /// The question (default: ready)
    #[arg(value_enum, value_name = "GROUP")]
    pub(super) of: Option<Probe>,
    /// The same, as a flag
    #[arg(long, value_enum, conflicts_with = "of")]
    pub(super) group: Option<Probe>,
    /// Where the probes are, such as http://127.0.0.1:7433 (default: `health.listen`)
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,
    /// How it is told
    #[arg(long, value_enum)]
    pub(super) format: Option<HealthFormat>,
}

impl ValueEnum for Illness {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()).help(match self {
            Self::Inactive => "A worker that came up and does not become active",
            Self::Stuck => "A worker whose slots hold jobs that ignore their cancellation",
            Self::NoClaims => "A worker that answers and claims nothing",
        }))
    }
}

impl ValueEnum for Probe {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.group()).help(self.question()))
    }
}

/// How it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum HealthFormat {
    /// Lines for people; `-v` for every check
    Text,
    /// The whole document
    Json,
    /// One line, and the exit codes of Nagios: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    Nagios,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Work {
    /// This worker's name (default: host and process id)
    #[arg(long)]
    pub(super) name: Option<String>,
    /// This worker's release (default: the implicit release `default`)
    #[arg(long, env = "SLUICEGATE_RELEASE", hide_env = true)]
    pub(super) release: Option<String>,
    /// The queues it serves, separated by commas (default: all)
    #[arg(long, value_name = "A,B")]
    pub(super) queues: Option<String>,
    /// Jobs it runs at once (default: 200)
    #[arg(long, value_name = "N")]
    pub(super) slots: Option<String>,
    /// Where the probes listen (default: 127.0.0.1:7433; port 0 takes a free one)
    #[arg(long, value_name = "ADDR")]
    pub(super) health_listen: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// Enqueue a job, or many from a file
    Enqueue(Box<Enqueue>),
    /// List jobs, newest first
    #[command(visible_alias = "ls")]
    List(List),
    /// Tell a job's story
    Show {
        /// The job
        id: String,
    },
    /// Wait until jobs have ended
    Wait {
        /// The jobs
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Run again what is dead, cancelled or expired; run now what waits
    Retry(Act),
    /// Call off what waits; ask the worker to stop what runs
    Cancel(Act),
}

#[derive(Debug, Clone, Args)]
pub(super) struct Act {
    /// The jobs
    #[arg(required = true)]
    pub(super) ids: Vec<String>,
    /// Why, for the ledger
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// Only say what would happen
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Enqueue {
    /// The kind, such as `echo` or `notify.email`
    #[arg(required_unless_present = "from_file", conflicts_with = "from_file")]
    pub(super) kind: Option<String>,
    /// Arguments as JSON; `-` reads them from standard input (default: `{}`)
    #[arg(conflicts_with = "from_file")]
    pub(super) args: Option<String>,
    /// Queue (default: `default`)
    #[arg(long)]
    pub(super) queue: Option<String>,
    /// Delay before the first attempt, such as 10m
    #[arg(long = "in", value_name = "DUR", conflicts_with = "at")]
    pub(super) delay: Option<String>,
    /// Time of the first attempt, such as 2026-01-10T09:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(super) at: Option<String>,
    /// Too late to be useful after so long, such as 1h
    #[arg(long, value_name = "DUR", conflicts_with = "expires_at")]
    pub(super) expires_in: Option<String>,
    /// Too late to be useful from this time on
    #[arg(long, value_name = "TIME")]
    pub(super) expires_at: Option<String>,
    /// A job id of your own
    #[arg(long, conflicts_with = "idempotency_key")]
    pub(super) id: Option<String>,
    /// The same key and content again is the same job
    #[arg(long, value_name = "KEY")]
    pub(super) idempotency_key: Option<String>,
    /// At most one such job at a time: refused while another of this kind and these arguments exists within so long
    #[arg(long, value_name = "DUR")]
    pub(super) unique: Option<String>,
    /// The key that makes it unique, instead of kind and arguments
    #[arg(long, value_name = "KEY")]
    pub(super) unique_key: Option<String>,
    /// Failed attempts after which it is dead
    #[arg(long, value_name = "N")]
    pub(super) retry: Option<u32>,
    /// Time-out of one attempt, such as 30s
    #[arg(long, value_name = "DUR")]
    pub(super) job_timeout: Option<String>,
    /// Higher goes first, -9 to 9
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) priority: Option<i64>,
    /// Run it here first, or when no worker is active, and queue only what fails: `never`, `when-inactive`, `first`
    #[arg(long, value_name = "WHEN")]
    pub(super) bypass: Option<Bypass>,
    /// A label to find it by
    #[arg(long = "tag", value_name = "K=V")]
    pub(super) tags: Vec<String>,
    /// Wait for its end and say how it went
    #[arg(long, conflicts_with = "from_file")]
    pub(super) wait: bool,
    /// Enqueue a file of JSON lines, one enqueue body each; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["queue", "delay", "at", "expires_in", "expires_at", "id",
        "idempotency_key", "unique", "unique_key", "retry", "job_timeout", "priority", "bypass", "tags"])]
    pub(super) from_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct List {
    /// Only this state
    #[arg(long)]
    pub(super) state: Option<String>,
    /// Only this queue
    #[arg(long)]
    pub(super) queue: Option<String>,
    /// Only this kind
    #[arg(long)]
    pub(super) kind: Option<String>,
    /// Only with this text in the last error
    #[arg(long, value_name = "TEXT")]
    pub(super) error: Option<String>,
    /// Only with this tag
    #[arg(long = "tag", value_name = "K=V")]
    pub(super) tags: Vec<String>,
    /// Only enqueued at least so long ago, such as 1h
    #[arg(long, value_name = "DUR")]
    pub(super) older_than: Option<String>,
    /// Most jobs to list
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(super) limit: u16,
    /// Where the last page ended
    #[arg(long, value_name = "TOKEN")]
    pub(super) page_token: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List queues with their depth by state
    #[command(visible_alias = "ls")]
    List,
    /// One queue, by kind
    Show {
        /// The queue
        queue: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum WorkerCommand {
    /// List workers with their state, and why they are in it
    #[command(visible_alias = "ls")]
    List,
    /// Everything about one worker
    Show {
        /// The worker
        worker: String,
    },
    /// Stop claiming for a while; what runs goes on
    Quiet(QuietArgs),
    /// Claim again
    Resume(ResumeArgs),
    /// Stop a worker: it finishes what runs, and gives the rest back
    Stop(StopArgs),
    /// The jobs that a worker runs now
    Dump {
        /// The worker
        worker: String,
    },
}

#[derive(Debug, Clone, Args)]
pub(super) struct WhichWorkers {
    /// The worker
    pub(super) worker: Option<String>,
    /// All of the tier, also those that come later
    #[arg(long, conflicts_with_all = ["worker", "release"])]
    pub(super) all: bool,
    /// All of a release, also those that come later
    #[arg(long, value_name = "R", conflicts_with = "worker")]
    pub(super) release: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    pub(super) which: WhichWorkers,
    /// Why, for the ledger
    #[arg(long)]
    pub(super) reason: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct QuietArgs {
    #[command(flatten)]
    pub(super) which: WhichWorkers,
    /// For how long; after that they claim again by themselves
    #[arg(long = "for", value_name = "DUR", default_value = "30m")]
    pub(super) span: String,
    /// Until somebody resumes them; health warns of it
    #[arg(long, conflicts_with = "span")]
    pub(super) indefinitely: bool,
    /// Why; shown wherever the worker is shown
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// Only say what would happen
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct StopArgs {
    /// The worker
    pub(super) worker: String,
    /// Why, for the ledger
    #[arg(long)]
    pub(super) reason: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// The effective configuration
    Show {
        /// And where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Check it without starting anything
    Validate,
    /// Every key: what it takes, its default, what it is for
    Docs {
        /// Only this section
        section: Option<String>,
    },
    /// Which files are looked for, and which is read
    Path,
}

#[derive(Debug, Subcommand)]
pub(super) enum GateCommand {
    /// One look: 0 pass, 3 fail, 8 pending, 9 superseded, 10 unknown, 13 store unreachable
    Check(Box<Gate>),
    /// Look until it is decided: 0 pass, 3 fail, 9 superseded, 124 not decided within `--timeout`
    Wait(Box<Gate>),
    /// Members, thresholds and current values of a gate
    Explain {
        /// Which gate
        #[arg(default_value = "default")]
        name: String,
        #[command(flatten)]
        gate: Box<Gate>,
    },
}

#[derive(Debug, Clone, Args)]
pub(super) struct Gate {
    /// The release; an unmanaged tier has only `default`
    #[arg(long, env = "SLUICEGATE_RELEASE", hide_env = true)]
    pub(super) release: Option<String>,
    /// Every tier that the store knows, whatever `--tier` says; the worst of them counts
    #[arg(long, conflicts_with = "queues")]
    pub(super) all_tiers: bool,
    /// Tiers that the release has no part in, separated by commas
    #[arg(long, value_name = "A,B", requires = "all_tiers")]
    pub(super) exclude: Option<String>,
    /// How many of its workers must be active, such as 6 or 80% (default: 100%)
    #[arg(long, value_name = "N|P%")]
    pub(super) min_active: Option<String>,
    /// How many workers of it there should be (default: those that are there)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) expect: Option<u32>,
    /// Queues that must be served, separated by commas
    #[arg(long, value_name = "A,B")]
    pub(super) queues: Option<String>,
    /// A provisional activation will do
    #[arg(long)]
    pub(super) allow_provisional: bool,
    /// The longest that the oldest waiting job may wait (without a duration: `queues.NAME.slo`, else 60s)
    #[arg(long, value_name = "DUR", num_args = 0..=1, default_missing_value = "")]
    pub(super) slo: Option<String>,
    /// Write a JUnit report too, as GitLab shows it
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Activate {
    /// The release that shall be the active one
    pub(super) release: String,
    /// Reverts by itself after so long, such as 30s, unless it is committed with `--confirm`
    #[arg(long, value_name = "DUR")]
    pub(super) provisional: Option<String>,
    /// To which release it reverts (default: the one that is active now)
    #[arg(long, value_name = "RELEASE", requires = "provisional")]
    pub(super) fallback: Option<String>,
    /// Commit the provisional activation of this release; the generation stays
    #[arg(long, conflicts_with_all = ["provisional", "force"])]
    pub(super) confirm: bool,
    /// Only if this generation is active (0: none yet); else nothing is changed, and the exit code is 9
    #[arg(long, value_name = "G")]
    pub(super) expect_generation: Option<u64>,
    /// Also when no living worker of the release has proved itself
    #[arg(long)]
    pub(super) force: bool,
    /// Do not wait until a worker is active
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Why, for the ledger
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// Only say what would happen
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Events {
    /// Most events to list, the newest ones
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(super) limit: u16,
    /// Go on, and print what comes
    #[arg(short, long)]
    pub(super) follow: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Status {
    /// One section for every tier that the store knows
    #[arg(long)]
    pub(super) all_tiers: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Doctor {
    /// Every tier that the store knows; one that is ill makes the exit code
    #[arg(long, conflicts_with = "simulate")]
    pub(super) all_tiers: bool,
    /// Make up a sick worker, to watch your own pipeline go red; it takes no job
    #[arg(long, value_enum, value_name = "ILLNESS")]
    pub(super) simulate: Option<Illness>,
    /// For how long
    #[arg(long = "for", value_name = "DUR", default_value = "60s", requires = "simulate")]
    pub(super) span: String,
}
