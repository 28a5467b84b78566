//! Owns what a `[[pool]]` is: its options, of which kind each is, their bounds, and what pools must not be
//! together. It must never start anything, or ask whether a command is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use config::{Map, Value, ValueKind};
use domain::agent::event::{Config, Profile};
use domain::operation::definition::Location;
use domain::pool::Policy;
use domain::{AgentId, Json};

use super::layers::shown;
use super::{Explained, Fault, Source, did_you_mean};

/// Most pools.
const POOLS_MAX: usize = 32;
/// Most workers of all pools together.
const WORKERS_MAX: i64 = 256;
const SLOTS_MAX: i64 = 1_000;
const DAY_SECONDS: i64 = 86_400;
/// The name of an agent is that of its pool and a number.
const NAME_MAX: usize = 64;
const ARGUMENTS_MAX: usize = 64;
const ARGUMENTS_BYTES_MAX: usize = 8_192;
const VARIABLES_MAX: usize = 32;

const OPTIONS: [&str; 12] = [
    "name",
    "capability",
    "min",
    "max",
    "target_queue_seconds",
    "idle_seconds",
    "command",
    "max_concurrent_steps",
    "location",
    "model",
    "labels",
    "environment",
];

/// A number of like workers that follows the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "config.toml says what each option is")]
pub struct Pool {
    pub name: String,
    pub capability: String,
    pub min: u32,
    pub max: u32,
    pub target_queue_seconds: u64,
    pub idle_seconds: u64,
    pub command: Vec<String>,
    pub max_concurrent_steps: u32,
    pub location: Location,
    pub model: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub environment: Vec<String>,
}

impl Pool {
    /// Whether the server starts its workers; without a command somebody else does.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        !self.command.is_empty()
    }

    /// What its owner allows.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            min: self.min,
            max: self.max,
            target_ms: self.target_queue_seconds * 1_000,
            idle_ms: self.idle_seconds * 1_000,
            slots: self.max_concurrent_steps,
        }
    }

    /// What each of its workers says of itself.
    #[must_use]
    pub fn profile(&self) -> Profile {
        Profile {
            name: self.name.clone(),
            model: self.model.clone().unwrap_or_else(|| "none".into()),
            capabilities: vec![self.capability.clone()],
            location: self.location,
            config: Config {
                max_concurrent_steps: self.max_concurrent_steps,
                labels: self.labels.clone(),
                ..Config::default()
            },
            metadata: Json::object(),
        }
    }
}

/// All pools of one file, with where each value came from.
pub(super) struct Pools {
    pub(super) pools: Vec<Pool>,
    pub(super) explained: Vec<Explained>,
}

/// Reads the list of tables that stands under `pool`.
pub(super) fn read(
    value: Value,
    path: &Path,
    lines: &BTreeMap<String, usize>,
    faults: &mut Vec<Fault>,
) -> Pools {
    let place = |key: &str| Source::File(path.to_owned(), lines.get(key).copied().unwrap_or(0));
    let mut refuse = |key: &str, reason: String| {
        let source_place = place(key);
        faults.push(Fault::Value { source_place, key: key.to_owned(), reason });
    };
    let mut read = Pools { pools: Vec::new(), explained: Vec::new() };
    let ValueKind::Array(items) = value.kind else {
        refuse("pool", "must be a list of tables: write [[pool]] with two brackets.".into());
        return read;
    };
    if items.len() > POOLS_MAX {
        refuse("pool", format!("must be at most {POOLS_MAX} tables, not {}.", items.len()));
    }
    let known = faults.len();
    for (index, item) in items.into_iter().enumerate().take(POOLS_MAX) {
        let section = format!("pool[{index}]");
        let ValueKind::Table(values) = item.kind else {
            let reason = "must be a table: write [[pool]] over its options.".into();
            faults.push(Fault::Value { source_place: place(&section), key: section, reason });
            continue;
        };
        let mut table = Table { section, path, lines, values, faults, explained: &mut read.explained };
        table.refuse_unknown();
        read.pools.push(table.pool());
    }
    // What is wrong with them together can only be said of tables that can be read.
    if faults.len() == known {
        check_together(&read.pools, &place, faults);
    }
    read
}

fn check_together(pools: &[Pool], place: &impl Fn(&str) -> Source, faults: &mut Vec<Fault>) {
    let mut names = BTreeSet::new();
    let mut workers = 0;
    for (index, pool) in pools.iter().enumerate() {
        let mut refuse = |option: &str, reason: String| {
            let key = format!("pool[{index}].{option}");
            faults.push(Fault::Value { source_place: place(&key), key, reason });
        };
        if !names.insert(&pool.name) {
            refuse("name", format!("must be another one: there is a pool '{}' already.", pool.name));
        }
        workers += if pool.is_managed() { i64::from(pool.max) } else { 0 };
        if workers > WORKERS_MAX {
            let sentence = "and those of the pools before must make at most";
            refuse("max", format!("{sentence} {WORKERS_MAX} together, not {workers}."));
            return;
        }
    }
}

/// One `[[pool]]` while it is read.
struct Table<'r> {
    section: String,
    path: &'r Path,
    lines: &'r BTreeMap<String, usize>,
    values: Map<String, Value>,
    faults: &'r mut Vec<Fault>,
    explained: &'r mut Vec<Explained>,
}

impl Table<'_> {
    fn pool(&mut self) -> Pool {
        let bounded = |number: i64| u32::try_from(number).unwrap_or_default();
        let pool = Pool {
            name: self.text("name", None),
            capability: self.text("capability", None),
            min: bounded(self.number("min", 0..=WORKERS_MAX, Some(0))),
            max: bounded(self.number("max", 1..=WORKERS_MAX, None)),
            target_queue_seconds: self.number("target_queue_seconds", 1..=DAY_SECONDS, None).unsigned_abs(),
            idle_seconds: self.number("idle_seconds", 0..=DAY_SECONDS, Some(60)).unsigned_abs(),
            command: self.texts("command"),
            max_concurrent_steps: bounded(self.number("max_concurrent_steps", 1..=SLOTS_MAX, Some(1))),
            location: self.location(),
            model: Some(self.text("model", Some(""))).filter(|model| !model.is_empty()),
            labels: self.labels(),
            environment: self.texts("environment"),
        };
        self.check(&pool);
        pool
    }

    /// What is wrong with values of the right kind.
    fn check(&mut self, pool: &Pool) {
        if pool.min > pool.max && self.values.contains_key("max") {
            self.refuse("min", format!("must be at most max, which is {}, not {}.", pool.max, pool.min));
        }
        let is_name = pool.name.len() <= NAME_MAX && pool.name.parse::<AgentId>().is_ok();
        if self.is_text("name") && !is_name {
            self.refuse("name", format!("must match [A-Za-z0-9._-]{{1,{NAME_MAX}}}, not '{}'.", pool.name));
        }
        for (pointer, sentence) in pool.profile().faults() {
            let option = ["capability", "model", "labels"].into_iter();
            let of_pointer = |option: &&str| pointer.contains(option.trim_end_matches('y'));
            if let Some(option) = option.filter(|option| self.has(option)).find(of_pointer) {
                self.refuse(option, format!("cannot be used: {sentence}."));
            }
        }
        self.check_command(&pool.command);
        let odd = pool.environment.iter().find(|name| !is_variable(name));
        if let Some(name) = odd {
            self.refuse("environment", format!("must hold names of variables, not '{name}'."));
        }
        if pool.environment.iter().any(|name| name.starts_with("PHOTON_")) {
            let reason = "must not name variables of Photon itself, which can hold keys.";
            self.refuse("environment", reason.to_owned());
        }
        if pool.environment.len() > VARIABLES_MAX {
            self.refuse("environment", format!("must hold at most {VARIABLES_MAX} names."));
        }
    }

    fn check_command(&mut self, command: &[String]) {
        let bytes: usize = command.iter().map(String::len).sum();
        if command.first().is_some_and(|program| program.trim().is_empty()) {
            self.refuse("command", "must begin with a program.".to_owned());
        }
        if command.iter().any(|argument| argument.contains('\0')) {
            self.refuse("command", "must not hold NUL characters.".to_owned());
        }
        if command.len() > ARGUMENTS_MAX || bytes > ARGUMENTS_BYTES_MAX {
            let most = format!("{ARGUMENTS_MAX} texts of {ARGUMENTS_BYTES_MAX} bytes together");
            self.refuse("command", format!("must be at most {most}."));
        }
    }

    fn refuse_unknown(&mut self) {
        let known = OPTIONS.map(|option| self.key(option));
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let mut stray: Vec<String> =
            self.values.keys().filter(|name| !OPTIONS.contains(&name.as_str())).cloned().collect();
        stray.sort();
        for name in stray {
            let key = self.key(&name);
            let meant = did_you_mean(&key, &known);
            self.faults.push(Fault::UnknownKey { source_place: self.place(&name), key, meant });
        }
    }

    fn text(&mut self, option: &str, default: Option<&str>) -> String {
        match self.values.get(option).map(|value| value.kind.clone()) {
            Some(ValueKind::String(text)) => {
                self.explain(option, format!("{text:?}"));
                text
            }
            None if default.is_some() => {
                let text = default.unwrap_or_default().to_owned();
                self.explain(option, format!("{text:?}"));
                text
            }
            given => self.unusable(option, "a text", given.is_some()),
        }
    }

    fn number(&mut self, option: &str, range: std::ops::RangeInclusive<i64>, default: Option<i64>) -> i64 {
        let (least, most) = (*range.start(), *range.end());
        let given = self.values.get(option).map(|value| value.kind.clone());
        let number = match (&given, default) {
            (Some(ValueKind::I64(number)), _) => *number,
            (None, Some(number)) => number,
            _ => {
                let kind = format!("a whole number from {least} to {most}");
                return self.unusable(option, &kind, given.is_some());
            }
        };
        if !range.contains(&number) {
            self.refuse(option, format!("must be from {least} to {most}, not {number}."));
            return 0;
        }
        self.explain(option, number.to_string());
        number
    }

    fn texts(&mut self, option: &str) -> Vec<String> {
        let value = self.values.get(option).map_or_else(|| ValueKind::Array(Vec::new()), |v| v.kind.clone());
        let texts = match &value {
            ValueKind::Array(items) => items.iter().map(text_of).collect::<Option<Vec<String>>>(),
            _ => None,
        };
        match texts {
            Some(texts) => {
                self.explain(option, shown(&value));
                texts
            }
            None => self.unusable(option, "a list of texts", true),
        }
    }

    fn labels(&mut self) -> BTreeMap<String, String> {
        let value =
            self.values.get("labels").map_or_else(|| ValueKind::Table(Map::new()), |v| v.kind.clone());
        let labels = match &value {
            ValueKind::Table(table) => {
                let pairs = table.iter().map(|(key, value)| Some((key.clone(), text_of(value)?)));
                pairs.collect::<Option<BTreeMap<String, String>>>()
            }
            _ => None,
        };
        match labels {
            Some(labels) => {
                let pairs: Vec<String> =
                    labels.iter().map(|(key, value)| format!("{key} = {value:?}")).collect();
                self.explain("labels", format!("{{{}}}", pairs.join(", ")));
                labels
            }
            None => self.unusable("labels", "a table of texts", true),
        }
    }

    fn location(&mut self) -> Location {
        let name = self.text("location", Some(Location::Local.name()));
        let known = Location::ALL.into_iter().find(|location| location.name() == name);
        if known.is_none() && self.is_text("location") {
            let names = Location::ALL.map(Location::name).join(", ");
            self.refuse("location", format!("must be one of {names}, not '{name}'."));
        }
        known.unwrap_or(Location::Local)
    }

    /// Refuses a value that is of another kind, or missing.
    fn unusable<T: Default>(&mut self, option: &str, kind: &str, is_given: bool) -> T {
        let reason =
            if is_given { format!("must be {kind}.") } else { format!("is missing: it must be {kind}.") };
        self.refuse(option, reason);
        T::default()
    }

    fn refuse(&mut self, option: &str, reason: String) {
        let (source_place, key) = (self.place(option), self.key(option));
        self.faults.push(Fault::Value { source_place, key, reason });
    }

    fn explain(&mut self, option: &str, value: String) {
        let source = if self.has(option) { self.place(option) } else { Source::Default };
        self.explained.push(Explained { key: self.key(option), value, source });
    }

    fn has(&self, option: &str) -> bool {
        self.values.contains_key(option)
    }

    fn is_text(&self, option: &str) -> bool {
        self.values.get(option).is_some_and(|value| matches!(value.kind, ValueKind::String(_)))
    }

    fn key(&self, option: &str) -> String {
        format!("{}.{option}", self.section)
    }

    /// The line of the option, or of the table's head when the option is missing.
    fn place(&self, option: &str) -> Source {
        let line = self.lines.get(&self.key(option)).or_else(|| self.lines.get(&self.section));
        Source::File(self.path.to_owned(), line.copied().unwrap_or(0))
    }
}

fn text_of(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn is_variable(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}
