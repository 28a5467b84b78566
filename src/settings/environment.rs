//! Owns which environment variables there are and what each sets. Read from a copy: tests have their own.
//! It must never guess: a variable that is not in the table sets nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::layers::Stack;
use super::{Fault, Source, did_you_mean};

/// A copy of the environment's `PHOTON_*` variables.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl fmt::Debug for Environment {
    /// Names only: a value may be a secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

const VARIABLES: &[(&str, &str)] = &[
    ("PHOTON_HOST", "server.host"),
    ("PHOTON_PORT", "server.port"),
    ("PHOTON_MAX_CONNECTIONS", "server.max_connections"),
    ("PHOTON_REQUEST_TIMEOUT", "server.request_timeout_ms"),
    ("PHOTON_KEEP_ALIVE_TIMEOUT", "server.keep_alive_timeout_ms"),
    ("PHOTON_LOG_LEVEL", "log.level"),
    ("PHOTON_DATA_DIR", "storage.data_dir"),
    ("PHOTON_AUTH_ENABLED", "auth.enabled"),
    ("PHOTON_SSL_ENABLED", "ssl.enabled"),
    ("PHOTON_SSL_CERT_PATH", "ssl.cert_path"),
    ("PHOTON_SSL_KEY_PATH", "ssl.key_path"),
    ("PHOTON_MONITORING_ENABLED", "monitoring.enabled"),
    ("PHOTON_METRICS_INTERVAL", "monitoring.metrics_interval_ms"),
    ("PHOTON_HEALTH_CHECK_INTERVAL", "monitoring.health_check_interval_ms"),
];

/// Each also as `…_FILE`, the path of a file that holds it.
const SECRET_VARIABLES: &[(&str, &str)] =
    &[("PHOTON_API_KEYS", "auth.api_keys"), ("PHOTON_ADMIN_KEY", "auth.admin_key")];

impl Environment {
    /// The environment of this process. What is not UTF-8 is kept with replacement characters.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os();
        let lossy = variables
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        Self::from_pairs(lossy)
    }

    /// An environment of these variables. An empty value counts as absent: container files cannot unset one.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(pairs.filter(|(name, value)| name.starts_with("PHOTON_") && !value.is_empty()).collect())
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn apply(&self, stack: &mut Stack, faults: &mut Vec<Fault>) {
        for (name, key) in VARIABLES {
            if let Some(value) = self.get(name) {
                stack.add_text(key, value, Source::Variable((*name).to_owned()), faults);
            }
        }
        for (name, key) in SECRET_VARIABLES {
            let file_name = format!("{name}_FILE");
            let (value, source) = match (self.get(name), self.get(&file_name)) {
                (None, None) => continue,
                (Some(value), None) => (Ok(value.to_owned()), (*name).to_owned()),
                (None, Some(path)) => (secret_in(Path::new(path)), file_name),
                (Some(_), Some(_)) => {
                    (Err(format!("is given, and {name} too; keep one of them.")), file_name)
                }
            };
            match value {
                Ok(value) => stack.add_text(key, &value, Source::Variable(source), faults),
                Err(reason) => faults.push(Fault::Secret { variable: source, reason }),
            }
        }
    }

    /// A sentence for each `PHOTON_*` that nothing reads.
    pub(super) fn unknown(&self, elsewhere: &[&str]) -> Vec<String> {
        let table = VARIABLES.iter().chain(SECRET_VARIABLES).map(|(name, _)| (*name).to_owned());
        let files = SECRET_VARIABLES.iter().map(|(name, _)| format!("{name}_FILE"));
        let others = elsewhere.iter().copied().chain(["PHOTON_CONFIG"]).map(str::to_owned);
        let known: Vec<String> = table.chain(files).chain(others).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let stray = self.0.keys().filter(|name| !known.contains(&name.as_str()));
        let sentence = |name: &String| {
            let meant = did_you_mean(name, &known);
            format!("The environment variable {name} is not known and has no effect.{meant}")
        };
        stray.map(sentence).collect()
    }
}

fn secret_in(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|cause| format!("{shown} cannot be read: {cause}."))?;
    if readable_by_all(path) {
        return Err(format!("{shown} can be read by everybody; run chmod 600 on it."));
    }
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return Err(format!("{shown} is empty; write the secret into it."));
    }
    Ok(lines.join(","))
}

#[cfg(unix)]
fn readable_by_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    // When the answer is not to be had, the careful one is given.
    path.metadata().map_or(true, |metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn readable_by_all(_path: &Path) -> bool {
    false
}
