//! Configuration: defaults < file < environment < flags, with the origin of every value kept.
//!
//! The only place that reads the environment. A value that cannot be read is an error wherever it comes from; nothing
//! falls back to a default in silence.

mod file;
pub mod keys;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::parse_duration;
use crate::location::{Durability, StoreUrl};
use crate::names::{Queue, Release, Tier, WorkerName, shown};
use keys::{KEYS, Key};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A file.
    File {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A configuration that is refused.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// What, where, which value, which limit.
    pub message: String,
    /// The way out, if there is a known one.
    pub hint: Option<String>,
}

impl ConfigError {
    fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// One effective value.
#[derive(Debug, Clone)]
pub struct Value {
    /// As text; `None` when it is not set and has no default.
    pub text: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
}

/// What flags say: (path, flag, value).
pub type Flags = Vec<(&'static str, &'static str, String)>;

/// The effective configuration.
#[derive(Debug, Clone)]
pub struct Config {
    values: BTreeMap<&'static str, Value>,
    queues: BTreeMap<(Queue, &'static str), Value>,
    handlers: BTreeMap<String, (serde_json::Value, Origin)>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// The environment, as text. A name or value that is not UTF-8 is nobody's setting of ours, unless it claims to be.
fn environment() -> impl Iterator<Item = (String, Result<String, ()>)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().map_err(drop))))
}

/// One environment variable that is not empty.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    environment()
        .find(|(known, _)| known == name)
        .and_then(|(_, value)| value.ok())
        .filter(|value| !value.is_empty())
}

/// Who runs this program: `user@host`, for records of who did what.
#[must_use]
pub fn person() -> String {
    let user = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "unknown".into());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    if host.is_empty() { user } else { format!("{user}@{host}") }
}

/// The folder of everything that is kept: `$XDG_DATA_HOME/sluicegate`, else `~/.local/share/sluicegate`.
///
/// # Errors
/// When neither variable is set.
pub fn data_folder() -> Result<PathBuf, ConfigError> {
    folder("XDG_DATA_HOME", ".local/share").ok_or_else(|| {
        ConfigError::plain(
            "cannot tell where data belongs: neither `XDG_DATA_HOME` nor `HOME` is an absolute path",
        )
        .hint("name a store with `--store sqlite:PATH`")
    })
}

fn folder(xdg: &str, under_home: &str) -> Option<PathBuf> {
    let absolute = |text: String| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
    let base = variable(xdg)
        .and_then(absolute)
        .or_else(|| Some(variable("HOME").and_then(absolute)?.join(under_home)))?;
    Some(base.join("sluicegate"))
}

/// The file that is read: the named one, which must exist, or the first of the usual ones that does.
#[must_use]
pub fn usual_files() -> Vec<PathBuf> {
    let user = folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("sluicegate.toml"));
    user.into_iter().chain([PathBuf::from("/etc/sluicegate/sluicegate.toml")]).collect()
}

impl Config {
    /// Reads everything.
    ///
    /// # Errors
    /// Names the first value that is refused, and where it stands.
    pub fn load(named: Option<&Path>, flags: Flags) -> Result<Self, ConfigError> {
        let default = |key: &'static Key| {
            (key.path, Value { text: key.default.map(str::to_owned), origin: Origin::Default })
        };
        let mut config = Self {
            values: KEYS.iter().map(default).collect(),
            queues: BTreeMap::new(),
            handlers: BTreeMap::new(),
            file: None,
        };
        let file = named.map(Path::to_owned).or_else(|| usual_files().into_iter().find(|path| path.exists()));
        if let Some(path) = file {
            let read = file::read(&path)?;
            for (key, text, origin) in read.values {
                config.set(key.path, text, origin);
            }
            for (queue, key, text, origin) in read.queues {
                config.queues.insert((queue, key.word()), Value { text: Some(text), origin });
            }
            config.handlers = read.handlers;
            config.file = Some(path);
        }
        config.read_environment()?;
        for (path, flag, text) in flags {
            if let Some(key) = Key::find(path) {
                key.check(&text).map_err(|error| ConfigError::plain(format!("{flag}: {error}")))?;
                config.set(key.path, text, Origin::Flag(flag));
            }
        }
        config.check()?;
        Ok(config)
    }

    fn set(&mut self, path: &'static str, text: String, origin: Origin) {
        self.values.insert(path, Value { text: Some(text), origin });
    }

    fn read_environment(&mut self) -> Result<(), ConfigError> {
        self.read_standard_variables();
        for (name, value) in environment() {
            let Some(rest) = name.strip_prefix(keys::PREFIX) else { continue };
            if let Some((queue, key)) = of_a_queue(rest) {
                let text = value
                    .map_err(|()| ConfigError::plain(format!("environment variable {name} is not UTF-8")))?;
                key.check(&text)
                    .map_err(|error| ConfigError::plain(format!("environment variable {name}: {error}")))?;
                let origin = Origin::Environment(name);
                self.queues.insert((queue, key.word()), Value { text: Some(text), origin });
                continue;
            }
            let Some(key) = KEYS.iter().find(|key| key.variable() == name) else {
                let names: Vec<String> = KEYS.iter().map(Key::variable).collect();
                let error = ConfigError::plain(format!("unknown environment variable `{}`", shown(&name)));
                let names = names.iter().filter_map(|name| name.strip_prefix(keys::PREFIX));
                return Err(match keys::nearest(rest, names) {
                    Some(near) => error.hint(format!("did you mean `{}{near}`?", keys::PREFIX)),
                    None => error.hint("`sluicegate help environment` lists them"),
                });
            };
            let text = value
                .map_err(|()| ConfigError::plain(format!("environment variable {name} is not UTF-8")))?;
            key.check(&text)
                .map_err(|error| ConfigError::plain(format!("environment variable {name}: {error}")))?;
            self.set(key.path, text, Origin::Environment(name));
        }
        if variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            self.set_standard("telemetry.enabled", "false".to_owned(), "OTEL_SDK_DISABLED");
        }
        Ok(())
    }

    /// Variables of OpenTelemetry. Ours beat them, except its switch-off. They are set for whole hosts: one that cannot
    /// be used is passed over, as their standard has it.
    fn read_standard_variables(&mut self) {
        if let Some(endpoint) = variable("OTEL_EXPORTER_OTLP_ENDPOINT") {
            self.set_standard("telemetry.otlp_endpoint", endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT");
        }
        if let Some(every) = variable("OTEL_METRIC_EXPORT_INTERVAL") {
            self.set_standard("telemetry.metrics_every", every + "ms", "OTEL_METRIC_EXPORT_INTERVAL");
        }
    }

    fn set_standard(&mut self, path: &str, text: String, variable: &'static str) {
        if let Some(key) = Key::find(path).filter(|key| key.check(&text).is_ok()) {
            self.set(key.path, text, Origin::Environment(variable.to_owned()));
        }
    }

    /// What must hold between values.
    fn check(&self) -> Result<(), ConfigError> {
        let listen = self.api_listen();
        if !listen.ip().is_loopback() && self.text("api.token_file").is_none() {
            return Err(ConfigError::plain(format!(
                "`api.listen` is `{listen}` ({}), which others can reach, and there is no `api.token_file`",
                self.origin("api.listen")
            ))
            .hint("listen on 127.0.0.1, or name a file with a token"));
        }
        if let Some(path) = self.text("api.token_file") {
            check_secret_file("api.token_file", Path::new(path))?;
        }
        if let Some(path) = self.text("store.password_file") {
            check_secret_file("store.password_file", Path::new(path))?;
        }
        if let Some(StoreUrl::Redis(url)) = self.parsed("store.url", |text| text.parse().ok())
            && url.is_plain_remote()
            && self.text("store.allow_plaintext") != Some("true")
        {
            return Err(ConfigError::plain(format!(
                "`store.url` is `{url}` ({}): jobs and password would cross the network in plain text",
                self.origin("store.url")
            ))
            .hint("if the network between is one that you trust, set `store.allow_plaintext = true`"));
        }
        Ok(())
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.values.get(path).and_then(|value| value.text.as_deref())
    }

    /// A value that was checked when it was set.
    fn parsed<T>(&self, path: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.text(path).and_then(parse)
    }

    /// Where the value of a key comes from.
    #[must_use]
    pub fn origin(&self, path: &str) -> &Origin {
        self.values.get(path).map_or(&Origin::Default, |value| &value.origin)
    }

    /// Every key with its effective value, in the order of the table.
    pub fn values(&self) -> impl Iterator<Item = (&'static Key, &Value)> {
        KEYS.iter().filter_map(|key| Some((key, self.values.get(key.path)?)))
    }

    /// `store.url`, or `jobs.db` in the data folder; and why that one.
    ///
    /// # Errors
    /// When there is neither.
    pub fn store(&self) -> Result<(StoreUrl, String), ConfigError> {
        match self.parsed("store.url", |text| text.parse().ok()) {
            Some(url) => Ok((self.with_password(url)?, self.origin("store.url").to_string())),
            None => Ok((StoreUrl::Sqlite(data_folder()?.join("jobs.db")), "default: the data folder".into())),
        }
    }

    fn with_password(&self, url: StoreUrl) -> Result<StoreUrl, ConfigError> {
        let (StoreUrl::Redis(place), Some(path)) = (&url, self.text("store.password_file")) else {
            return Ok(url);
        };
        let password = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::plain(format!("`store.password_file`: cannot read `{path}`: {error}"))
        })?;
        Ok(StoreUrl::Redis(place.with_password(password.trim_end_matches(['\r', '\n']))))
    }

    /// `store.durability`
    #[must_use]
    pub fn durability(&self) -> Option<Durability> {
        self.parsed("store.durability", |text| text.parse().ok())
    }

    /// What a worker that this host starts must be told of the host's part, whatever file it reads: as variables. Only the
    /// release says how its jobs run.
    ///
    /// # Errors
    /// When the place of the store is not known.
    pub fn host_variables(&self) -> Result<Vec<(String, String)>, ConfigError> {
        const HOSTS: [&str; 5] = ["store.", "releases.", "health.", "log.", "telemetry."];
        let whole = |text: &str| std::path::absolute(text).map(|path| path.display().to_string());
        // It runs in another folder.
        let absolute = |path: &str, text: &str| {
            whole(text).map_err(|error| {
                ConfigError::plain(format!("`{path}`: cannot tell where `{text}` is: {error}"))
            })
        };
        let url = match self.text("store.url") {
            Some(text) => match text.parse() {
                Ok(StoreUrl::Sqlite(file)) => {
                    format!("sqlite:{}", absolute("store.url", &file.to_string_lossy())?)
                }
                _ => text.to_owned(),
            },
            None => format!("sqlite:{}", data_folder()?.join("jobs.db").display()),
        };
        let mut told = vec![("SLUICEGATE_STORE".to_owned(), url)];
        for (key, value) in self.values() {
            let hosts = HOSTS.iter().any(|section| key.path.starts_with(section));
            let (Some(text), true) = (&value.text, hosts && value.origin != Origin::Default) else {
                continue;
            };
            let text = match key.takes {
                keys::Takes::Store => continue,
                keys::Takes::Path => absolute(key.path, text)?,
                _ => text.clone(),
            };
            told.push((key.variable(), text));
        }
        Ok(told)
    }

    /// `releases.root`, or `releases` in the data folder.
    ///
    /// # Errors
    /// When there is neither.
    pub fn releases_root(&self) -> Result<PathBuf, ConfigError> {
        match self.text("releases.root") {
            Some(path) => Ok(PathBuf::from(path)),
            None => Ok(data_folder()?.join("releases")),
        }
    }

    /// `tier`
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.parsed("tier", |text| Tier::new(text).ok()).unwrap_or_default()
    }

    /// `worker.name`
    #[must_use]
    pub fn worker_name(&self) -> Option<WorkerName> {
        self.parsed("worker.name", |text| WorkerName::new(text).ok())
    }

    /// `worker.release`
    #[must_use]
    pub fn release(&self) -> Option<Release> {
        self.parsed("worker.release", |text| Release::new(text).ok())
    }

    /// `worker.queues`
    #[must_use]
    pub fn queues(&self) -> Option<Vec<Queue>> {
        self.parsed("worker.queues", |text| keys::queues(text).ok())
    }

    /// `worker.slots`
    #[must_use]
    pub fn slots(&self) -> usize {
        self.parsed("worker.slots", |text| text.parse().ok()).unwrap_or(200)
    }

    /// A duration by its path; zero for a path that is none.
    #[must_use]
    pub fn span(&self, path: &str) -> Duration {
        self.parsed(path, |text| parse_duration(text).ok()).unwrap_or_default()
    }

    /// `worker.activation_hook`, and how long it may take.
    #[must_use]
    pub fn activation_hook(&self) -> Option<(Vec<String>, Duration)> {
        let command = keys::command(self.text("worker.activation_hook")?)?;
        Some((command, self.span("worker.activation_hook_timeout")))
    }

    /// `api.listen`.
    #[must_use]
    pub fn api_listen(&self) -> SocketAddr {
        self.parsed("api.listen", |text| text.parse().ok())
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7434)))
    }

    /// `health.listen`
    #[must_use]
    pub fn health_listen(&self) -> SocketAddr {
        self.parsed("health.listen", |text| text.parse().ok())
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7433)))
    }

    /// The content of `api.token_file`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn api_token(&self) -> Result<Option<String>, ConfigError> {
        self.text("api.token_file")
            .map(|path| {
                std::fs::read_to_string(path).map_err(|error| {
                    ConfigError::plain(format!("`api.token_file`: cannot read `{path}`: {error}"))
                })
            })
            .transpose()
    }

    /// `dev.inbox`
    #[must_use]
    pub fn dev_inbox(&self) -> bool {
        self.text("dev.inbox") != Some("false")
    }

    /// `log.level` and whether `log.format` is JSON.
    #[must_use]
    pub fn log(&self) -> (&str, bool) {
        (self.text("log.level").unwrap_or("info"), self.text("log.format") == Some("json"))
    }

    /// `health.healthz`
    #[must_use]
    pub fn healthz(&self) -> Option<&str> {
        self.text("health.healthz")
    }

    /// `queues.NAME.slo`, by queue.
    #[must_use]
    pub fn slos(&self) -> BTreeMap<Queue, Duration> {
        let slo = |((queue, key), value): (&(Queue, &str), &Value)| {
            let span = parse_duration(value.text.as_deref()?).ok()?;
            (*key == "slo").then(|| (queue.clone(), span))
        };
        self.queues.iter().filter_map(slo).collect()
    }

    /// Every key of every queue that is set, with its path.
    pub fn queue_values(&self) -> impl Iterator<Item = (String, &Value)> {
        self.queues.iter().map(|((queue, key), value)| (format!("queues.{queue}.{key}"), value))
    }

    /// `telemetry.otlp_endpoint`, unless there is none or telemetry is switched off.
    #[must_use]
    pub fn collector(&self) -> Option<&str> {
        let endpoint = self.text("telemetry.otlp_endpoint").filter(|endpoint| !endpoint.is_empty());
        endpoint.filter(|_| self.text("telemetry.enabled") != Some("false"))
    }

    /// `handlers.KIND`: settings by kind.
    pub fn settings(&self) -> impl Iterator<Item = (String, serde_json::Value)> {
        self.handlers.iter().map(|(kind, (settings, _))| (kind.clone(), settings.clone()))
    }

    /// `handlers.KIND`: settings by kind, and where they stand.
    #[must_use]
    pub fn handlers(&self) -> &BTreeMap<String, (serde_json::Value, Origin)> {
        &self.handlers
    }
}

/// `QUEUES__MAIL__SLO`: only queues whose names fit in the name of a variable have one.
fn of_a_queue(variable: &str) -> Option<(Queue, &'static Key)> {
    let (queue, word) = variable.strip_prefix("QUEUES__")?.rsplit_once("__")?;
    let key = keys::QUEUE_KEYS.iter().find(|key| key.word().eq_ignore_ascii_case(word))?;
    Some((Queue::new(&queue.to_ascii_lowercase()).ok()?, key))
}

/// A file with a secret must not be readable by others.
fn check_secret_file(key: &str, path: &Path) -> Result<(), ConfigError> {
    use std::os::unix::fs::PermissionsExt as _;
    let meta = std::fs::metadata(path)
        .map_err(|error| ConfigError::plain(format!("`{key}`: cannot read `{}`: {error}", path.display())))?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o027 != 0 {
        return Err(ConfigError::plain(format!(
            "`{key}`: `{}` has mode {mode:04o}, others could read or change it",
            path.display()
        ))
        .hint(format!("chmod 0640 {}", path.display())));
    }
    Ok(())
}
