//! Owns how the layers lie upon each other: defaults, file, environment, flags. Knows kinds of values.
//! It must never know their bounds, or show the value of a secret.

use std::collections::BTreeMap;
use std::path::Path;

use config::{Config, File, FileFormat, Value, ValueKind};

use super::pools::{self, Pool};
use super::{Explained, Fault, Settings, SettingsError, Source, did_you_mean};

/// Options whose values are never shown.
const SECRETS: &[&str] = &["auth.api_keys", "auth.admin_key"];

/// The flat values of one file, with the line of each.
pub(super) struct Layer {
    values: BTreeMap<String, (Value, usize)>,
    /// What stands under `pool`, which is no option but a list of tables.
    pools: Option<Value>,
    lines: BTreeMap<String, usize>,
}

/// All layers, merged; the default of an option says of which kind it is.
pub(super) struct Stack {
    /// In the order of config.toml.
    keys: Vec<String>,
    values: BTreeMap<String, (Value, Source)>,
    pools: Vec<Pool>,
    explained_pools: Vec<Explained>,
}

/// Reads a TOML text.
pub(super) fn read(text: &str, path: &Path) -> Result<Layer, Fault> {
    let parsed = Config::builder().add_source(File::from_str(text, FileFormat::Toml)).build();
    let table = parsed.and_then(Config::try_deserialize::<Value>).and_then(Value::into_table);
    let mut table = table.map_err(|error| {
        let cause = error.to_string().trim_end().to_owned();
        Fault::Syntax { path: path.display().to_string(), cause }
    })?;
    let mut values = BTreeMap::new();
    let lines = lines_of(text);
    let pools = table.remove("pool");
    for (key, value) in table {
        flatten(key, value, &lines, &mut values);
    }
    Ok(Layer { values, pools, lines })
}

fn flatten(
    key: String,
    value: Value,
    lines: &BTreeMap<String, usize>,
    out: &mut BTreeMap<String, (Value, usize)>,
) {
    match value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                flatten(format!("{key}.{name}"), value, lines, out);
            }
        }
        _ => {
            // A value inside of an inline table stands on the line of the table.
            let owner = key.rsplit_once('.').map_or("", |(owner, _)| owner);
            let line = lines.get(&key).or_else(|| lines.get(owner)).copied().unwrap_or(0);
            out.insert(key, (value, line));
        }
    }
}

/// The line of each `key =` under its `[section]`, and of each `[[table]]`, counted from 0. The parser keeps
/// no places, so this looks for them again; where it is fooled, by a text of several lines say, a message
/// lacks its line and nothing else.
fn lines_of(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    let mut section = String::new();
    let mut tables: BTreeMap<String, usize> = BTreeMap::new();
    let plain = |name: &str| {
        name.split('.').map(|part| part.trim().trim_matches(['"', '\''])).collect::<Vec<_>>().join(".")
    };
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix("[[") {
            let name = plain(header.split(']').next().unwrap_or_default());
            let count = tables.entry(name.clone()).or_default();
            section = format!("{name}[{count}]");
            *count += 1;
            lines.insert(section.clone(), index + 1);
        } else if let Some(header) = line.strip_prefix('[') {
            section = plain(header.split(']').next().unwrap_or_default());
        } else if let Some((name, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            let name = plain(name);
            let key = if section.is_empty() { name } else { format!("{section}.{name}") };
            lines.entry(key).or_insert(index + 1);
        }
    }
    lines
}

impl Stack {
    pub(super) fn over(defaults: Layer) -> Self {
        let mut by_line: Vec<(usize, String)> =
            defaults.values.iter().map(|(key, (_, line))| (*line, key.clone())).collect();
        by_line.sort();
        let keys = by_line.into_iter().map(|(_, key)| key).collect();
        let values = defaults.values.into_iter().map(|(key, (value, _))| (key, (value, Source::Default)));
        Self { keys, values: values.collect(), pools: Vec::new(), explained_pools: Vec::new() }
    }

    pub(super) fn add_file(&mut self, layer: Layer, path: &Path, faults: &mut Vec<Fault>) {
        if let Some(pools) = layer.pools {
            let read = pools::read(pools, path, &layer.lines, faults);
            (self.pools, self.explained_pools) = (read.pools, read.explained);
        }
        for (key, (value, line)) in layer.values {
            let source = Source::File(path.to_owned(), line);
            match self.kind_of(&key) {
                None => faults.push(self.unknown(&key, source)),
                Some(kind) if !kind.takes(&value.kind) => {
                    let reason = format!("must be {}.", kind.words());
                    faults.push(Fault::Value { source_place: source, key, reason });
                }
                Some(_) => {
                    self.values.insert(key, (value, source));
                }
            }
        }
    }

    /// Adds a value that came as text, in the kind that its option has.
    pub(super) fn add_text(&mut self, key: &str, text: &str, source: Source, faults: &mut Vec<Fault>) {
        let Some(kind) = self.kind_of(key) else {
            faults.push(self.unknown(key, source));
            return;
        };
        match kind.parse(text.trim()) {
            Some(value) => {
                self.values.insert(key.to_owned(), (Value::new(None, value), source));
            }
            None => {
                let seen = if SECRETS.contains(&key) { String::new() } else { format!(", not '{text}'") };
                let reason = format!("must be {}{seen}.", kind.words());
                faults.push(Fault::Value { source_place: source, key: key.to_owned(), reason });
            }
        }
    }

    pub(super) fn int(&self, key: &str) -> Option<i64> {
        self.values.get(key).and_then(|(value, _)| value.clone().into_int().ok())
    }

    pub(super) fn float(&self, key: &str) -> Option<f64> {
        self.values.get(key).and_then(|(value, _)| value.clone().into_float().ok())
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|(value, _)| matches!(value.kind, ValueKind::Boolean(true)))
    }

    pub(super) fn text(&self, key: &str) -> String {
        self.values.get(key).and_then(|(value, _)| value.clone().into_string().ok()).unwrap_or_default()
    }

    pub(super) fn source(&self, key: &str) -> Source {
        self.values.get(key).map_or(Source::Default, |(_, source)| source.clone())
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> &[String] {
        &self.keys
    }

    pub(super) fn explain(&self) -> Vec<Explained> {
        let explained = |key: &String| {
            let (value, source) = self.values.get(key)?;
            let value = match shown(&value.kind) {
                text if SECRETS.contains(&key.as_str()) && !matches!(text.as_str(), "\"\"" | "[]") => {
                    "redacted".to_owned()
                }
                text => text,
            };
            Some(Explained { key: key.clone(), value, source: source.clone() })
        };
        self.keys.iter().filter_map(explained).chain(self.explained_pools.iter().cloned()).collect()
    }

    pub(super) fn into_settings(self) -> Result<Settings, SettingsError> {
        let mut builder = Config::builder();
        for (key, (value, _)) in self.values {
            builder =
                builder.set_override(&key, value).map_err(|error| Fault::Defaults(error.to_string()))?;
        }
        let settings = builder.build().and_then(Config::try_deserialize);
        let mut settings: Settings = settings.map_err(|error| Fault::Defaults(error.to_string()))?;
        settings.pools = self.pools;
        Ok(settings)
    }

    fn kind_of(&self, key: &str) -> Option<Kind> {
        match self.values.get(key)?.0.kind {
            ValueKind::Boolean(_) => Some(Kind::Switch),
            ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
                Some(Kind::Int)
            }
            ValueKind::Float(_) => Some(Kind::Float),
            ValueKind::Array(_) => Some(Kind::List),
            ValueKind::String(_) | ValueKind::Nil | ValueKind::Table(_) => Some(Kind::Text),
        }
    }

    fn unknown(&self, key: &str, source: Source) -> Fault {
        let known: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        Fault::UnknownKey { source_place: source, key: key.to_owned(), meant: did_you_mean(key, &known) }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Switch,
    Int,
    Float,
    Text,
    List,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Switch => "true or false",
            Self::Int => "a whole number",
            Self::Float => "a number",
            Self::Text => "a text",
            Self::List => "a list of texts",
        }
    }

    fn takes(self, value: &ValueKind) -> bool {
        match (self, value) {
            (Self::Switch, ValueKind::Boolean(_))
            | (Self::Int | Self::Float, ValueKind::I64(_))
            | (Self::Float, ValueKind::Float(_))
            | (Self::Text, ValueKind::String(_)) => true,
            (Self::List, ValueKind::Array(items)) => {
                items.iter().all(|item| matches!(item.kind, ValueKind::String(_)))
            }
            _ => false,
        }
    }

    fn parse(self, text: &str) -> Option<ValueKind> {
        match self {
            Self::Switch => match text {
                "true" | "1" => Some(ValueKind::Boolean(true)),
                "false" | "0" => Some(ValueKind::Boolean(false)),
                _ => None,
            },
            Self::Int => text.parse().ok().map(ValueKind::I64),
            Self::Float => text.parse().ok().filter(|number: &f64| number.is_finite()).map(ValueKind::Float),
            Self::Text => Some(ValueKind::String(text.to_owned())),
            Self::List => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(ValueKind::Array(items.map(|item| Value::new(None, item)).collect()))
            }
        }
    }
}

pub(super) fn shown(value: &ValueKind) -> String {
    match value {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| shown(&item.kind)).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}
