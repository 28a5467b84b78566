//! Owns every choice of whoever runs Photon: its value, its bounds, and where it came from.
//! It must never open a port, touch the data folder, or show a secret.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

mod environment;
mod layers;
mod pools;
mod rules;

pub use environment::Environment;
pub use pools::Pool;

/// The file with every default. The same text is read for the defaults, so that the two cannot differ.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// Every setting, valid and whole.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each section is")]
pub struct Settings {
    pub server: Server,
    pub log: Log,
    pub storage: Storage,
    pub retention: Retention,
    pub snapshots: Snapshots,
    pub agents: Agents,
    pub limits: Limits,
    pub websocket: WebSocket,
    pub monitoring: Monitoring,
    pub selection: Selection,
    pub auth: Auth,
    pub ssl: Ssl,
    #[serde(skip)]
    pub pools: Vec<Pool>,
    #[serde(skip)]
    explained: Vec<Explained>,
    #[serde(skip)]
    warnings: Vec<String>,
}

/// Where and how the server listens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each option is")]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub max_connections: usize,
    pub request_timeout_ms: u64,
    pub keep_alive_timeout_ms: u64,
    pub shutdown_timeout_ms: u64,
}

/// How log lines look.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each option is")]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// The look of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where and how events are stored.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each option is")]
pub struct Storage {
    pub data_dir: PathBuf,
    pub queue_max: usize,
    pub queue_max_bytes: usize,
    pub generation_max_bytes: u64,
    pub generation_max_events: u64,
}

/// What leaves the log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each option is")]
pub struct Retention {
    pub keep_ended_ms: u64,
}

/// When snapshots are taken.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each option is")]
pub struct Snapshots {
    pub enabled: bool,
    pub every_events: u64,
    pub stream_events: u64,
}

/// How long agents may be silent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each option is")]
pub struct Agents {
    pub heartbeat_sample_interval_ms: u64,
    pub lease_ms: u64,
    pub offer_ms: u64,
    pub cancel_grace_ms: u64,
    pub release_hold_ms: u64,
    pub retry_elsewhere_ms: u64,
    pub losses_in_a_row: u32,
    pub untaken_in_a_row: u32,
    pub failures_in_a_row: u32,
}

/// Maxima.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each option is")]
pub struct Limits {
    pub max_body_bytes: usize,
    pub max_steps: usize,
    pub max_edges: usize,
    pub max_inputs_bytes: usize,
    pub max_result_bytes: usize,
    pub max_results_bytes: usize,
    pub max_checkpoint_bytes: usize,
    pub step_timeout_ms: u64,
    pub approval_timeout_ms: u64,
    pub idle_actor_ms: u64,
    pub max_agents: usize,
    pub max_idempotency_keys: usize,
    pub max_answer_bytes: u64,
    pub starvation_ms: u64,
    pub views_wait_ms: u64,
    pub stall_timeout_ms: u64,
    pub max_streams: usize,
    pub stream_hold_ms: u64,
    pub disk_low_water_bytes: u64,
    pub max_disk_bytes: u64,
}

/// When the client of a WebSocket is gone.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each option is")]
pub struct WebSocket {
    pub ping_ms: u64,
    pub pong_timeout_ms: u64,
}

/// What is sampled and how often.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each option is")]
pub struct Monitoring {
    pub enabled: bool,
    pub metrics_interval_ms: u64,
    pub health_check_interval_ms: u64,
    pub alert_p95_ms: u64,
    pub alert_ready_steps: u64,
}

/// The weights by which an agent is chosen.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each option is")]
pub struct Selection {
    pub capability: f64,
    pub performance: f64,
    pub availability: f64,
    pub location: f64,
}

/// Who may call. Not built yet; only off is valid.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each option is")]
pub struct Auth {
    pub enabled: bool,
    pub api_keys: Vec<Secret>,
    pub admin_key: Secret,
}

/// TLS. Not built yet; only off is valid.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each option is")]
pub struct Ssl {
    pub enabled: bool,
    pub cert_path: PathBuf,
    pub key_path: PathBuf,
}

/// A text that no output may show.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself. Whoever calls this answers for where it goes.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_empty() { "Secret(none)" } else { "Secret(redacted)" })
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The default.
    Default,
    /// A line of a file; 0 when the line could not be found.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A command-line flag.
    Flag(String),
}

impl Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(path, 0) => write!(formatter, "{}", path.display()),
            Self::File(path, line) => write!(formatter, "{}:{line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => formatter.write_str(name),
        }
    }
}

/// One value with its origin, for `photon config show`. Secrets are redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// `section.option`.
    pub key: String,
    /// As it would stand in the file.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

/// A value from the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As people write it: `--port`.
    pub name: String,
    /// The option that it sets: `server.port`.
    pub key: &'static str,
    /// Its value; for lists with commas.
    pub value: String,
}

/// All that settings are made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The value of `--config`.
    pub config: Option<PathBuf>,
    /// All other flags that set options.
    pub flags: Vec<Flag>,
    /// The environment.
    pub environment: Environment,
    /// `PHOTON_*` variables that something else reads, and that are no mistake therefore.
    pub other_variables: &'static [&'static str],
    /// The folder in which `config.toml` is looked for; the current one when empty.
    pub folder: PathBuf,
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Error)]
pub enum Fault {
    /// A file cannot be read.
    #[error("{path} cannot be read: {cause}.")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        cause: std::io::Error,
    },
    /// A file is not TOML.
    #[error("{path} is not valid TOML: {cause}")]
    Syntax {
        /// Which file.
        path: String,
        /// The parser's words, with line and column.
        cause: String,
    },
    /// A key that does not exist.
    #[error("{source_place}: there is no option '{key}'.{meant}")]
    UnknownKey {
        /// File and line, or flag.
        source_place: Source,
        /// The key.
        key: String,
        /// "Did you mean …?", or nothing.
        meant: String,
    },
    /// A value that cannot be used.
    #[error("{source_place}: {key} {reason}")]
    Value {
        /// Where the value came from.
        source_place: Source,
        /// The key.
        key: String,
        /// "must be …", with a full stop.
        reason: String,
    },
    /// A secret in a file that others may read, or given twice.
    #[error("{variable}: {reason}")]
    Secret {
        /// The environment variable.
        variable: String,
        /// What to do.
        reason: String,
    },
    /// The defaults themselves cannot be read. Only a mistake in the program can cause it.
    #[error("the defaults cannot be used: {0}")]
    Defaults(String),
}

/// Why there are no settings: all that is wrong, at once. The process ends with
/// [`crate::exit::Exit::CONFIGURATION`].
#[derive(Debug, Error)]
#[error("{}", .faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct SettingsError {
    /// At least one.
    pub faults: Vec<Fault>,
}

impl From<Fault> for SettingsError {
    fn from(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }
}

impl Settings {
    /// Reads flags, environment, file and defaults, in this order of weight, and checks all of it.
    ///
    /// # Errors
    /// Lists every unknown key and every value that cannot be used, each with its place.
    pub fn load(sources: &Sources) -> Result<Self, SettingsError> {
        let defaults = layers::read(DEFAULTS, Path::new("config.toml"))?;
        let mut faults = Vec::new();
        let mut stack = layers::Stack::over(defaults);
        if let Some((path, text)) = config_file(sources)? {
            stack.add_file(layers::read(&text, &path)?, &path, &mut faults);
        }
        sources.environment.apply(&mut stack, &mut faults);
        for flag in &sources.flags {
            stack.add_text(flag.key, &flag.value, Source::Flag(flag.name.clone()), &mut faults);
        }
        rules::check(&stack, &mut faults);
        if !faults.is_empty() {
            return Err(SettingsError { faults });
        }
        let explained = stack.explain();
        let mut settings: Self = stack.into_settings()?;
        settings.warnings = sources.environment.unknown(sources.other_variables);
        settings.warnings.extend(rules::warnings(&settings));
        settings.explained = explained;
        Ok(settings)
    }

    /// Every value with its origin, in the order of config.toml.
    #[must_use]
    pub fn explain(&self) -> &[Explained] {
        &self.explained
    }

    /// What is odd and yet no reason to stop, in sentences.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// The file that was named must be there; the one that was not may be missing.
fn config_file(sources: &Sources) -> Result<Option<(PathBuf, String)>, Fault> {
    let named =
        sources.config.clone().or_else(|| sources.environment.get("PHOTON_CONFIG").map(PathBuf::from));
    let must_exist = named.is_some();
    let path = named.unwrap_or_else(|| sources.folder.join("config.toml"));
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(cause) => Err(Fault::Unreadable { path: path.display().to_string(), cause }),
    }
}

/// " Did you mean '…'?" with the known name that is most like this one, or nothing.
fn did_you_mean(name: &str, known: &[&str]) -> String {
    let leaf = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |key: &&&str| strsim::damerau_levenshtein(name, key);
    let near = known.iter().min_by_key(distance).filter(|key| distance(key) <= 1.max(key.len() / 4));
    let same_leaf = || known.iter().find(|key| leaf(key) == leaf(name));
    near.or_else(same_leaf).map(|key| format!(" Did you mean '{key}'?")).unwrap_or_default()
}
