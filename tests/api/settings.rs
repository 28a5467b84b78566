//! Settings from flags, environment, file and defaults: which wins, what is refused, what is shown.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may end it")]

use std::path::{Path, PathBuf};

use photon::settings::{DEFAULTS, Environment, Flag, LogFormat, Secret, Settings, Source, Sources};
use tempfile::TempDir;

struct Bench {
    folder: TempDir,
    sources: Sources,
}

impl Bench {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let sources = Sources { folder: folder.path().to_owned(), ..Sources::default() };
        Self { folder, sources }
    }

    fn file(self, text: &str) -> Self {
        std::fs::write(self.path("config.toml"), text).unwrap();
        self
    }

    fn variables(mut self, pairs: &[(&str, &str)]) -> Self {
        self.sources.environment = Environment::from_pairs(pairs.iter().copied());
        self
    }

    fn flag(mut self, name: &str, key: &'static str, value: &str) -> Self {
        self.sources.flags.push(Flag { name: name.to_owned(), key, value: value.to_owned() });
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self) -> Settings {
        Settings::load(&self.sources).unwrap()
    }

    fn refusal(&self) -> String {
        Settings::load(&self.sources).unwrap_err().to_string()
    }
}

fn source_of(settings: &Settings, key: &str) -> Source {
    settings.explain().iter().find(|explained| explained.key == key).unwrap().source.clone()
}

fn secret_file(path: &Path, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn without_anything_the_defaults_hold() {
    let settings = Bench::new().load();
    assert_eq!((settings.server.host.as_str(), settings.server.port), ("127.0.0.1", 8080));
    assert_eq!(settings.server.request_timeout_ms, 30_000);
    assert_eq!(settings.storage.data_dir, Path::new("data"));
    assert_eq!((settings.log.level.as_str(), settings.log.format), ("info", LogFormat::Text));
    assert_eq!(settings.limits.max_body_bytes, 1024 * 1024);
    assert_eq!(settings.limits.max_steps, 10_000);
    assert_eq!((settings.monitoring.alert_p95_ms, settings.monitoring.alert_ready_steps), (500, 10_000));
    assert!(settings.monitoring.enabled && !settings.auth.enabled && !settings.ssl.enabled);
    assert!(settings.warnings().is_empty());
    assert!(settings.explain().iter().all(|explained| explained.source == Source::Default));
}

#[test]
fn the_shipped_file_is_a_valid_file() {
    let from_file = Bench::new().file(DEFAULTS).load();
    let defaults = Bench::new().load();
    let values = |settings: &Settings| -> Vec<(String, String)> {
        settings.explain().iter().map(|one| (one.key.clone(), one.value.clone())).collect()
    };
    assert_eq!(values(&from_file), values(&defaults));
}

#[test]
fn every_option_of_the_file_has_a_comment() {
    let lines: Vec<&str> = DEFAULTS.lines().collect();
    let is_option = |line: &str| line.contains(" = ") && !line.starts_with('#');
    let options: Vec<_> = lines.windows(2).filter(|pair| is_option(pair[1])).collect();
    for pair in &options {
        assert!(pair[0].starts_with("# ") && pair[0].ends_with('.'), "{}", pair[1]);
    }
    assert_eq!(options.len(), Bench::new().load().explain().len());
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let file = "[server]\nport = 1\nmax_connections = 1\nrequest_timeout_ms = 1\n";
    let variables = [("PHOTON_PORT", "2"), ("PHOTON_MAX_CONNECTIONS", "2")];
    let bench = Bench::new().file(file).variables(&variables).flag("--port", "server.port", "3");
    let settings = bench.load();
    let server = &settings.server;
    assert_eq!((server.port, server.max_connections, server.request_timeout_ms), (3, 2, 1));
    assert_eq!(source_of(&settings, "server.port"), Source::Flag("--port".into()));
    assert_eq!(source_of(&settings, "server.max_connections").to_string(), "PHOTON_MAX_CONNECTIONS");
    let place = source_of(&settings, "server.request_timeout_ms");
    assert_eq!(place, Source::File(bench.path("config.toml"), 4));
    assert_eq!(source_of(&settings, "server.host"), Source::Default);
}

#[test]
fn every_variable_of_the_specification_is_read() {
    let settings = Bench::new()
        .variables(&[
            ("PHOTON_HOST", "::1"),
            ("PHOTON_PORT", "0"),
            ("PHOTON_LOG_LEVEL", "debug"),
            ("PHOTON_AUTH_ENABLED", "false"),
            ("PHOTON_SSL_ENABLED", "0"),
            ("PHOTON_SSL_CERT_PATH", "/c"),
            ("PHOTON_SSL_KEY_PATH", "/k"),
            ("PHOTON_MAX_CONNECTIONS", "7"),
            ("PHOTON_REQUEST_TIMEOUT", "8"),
            ("PHOTON_KEEP_ALIVE_TIMEOUT", "9"),
            ("PHOTON_MONITORING_ENABLED", "false"),
            ("PHOTON_METRICS_INTERVAL", "1000"),
            ("PHOTON_HEALTH_CHECK_INTERVAL", "1001"),
            ("PHOTON_DATA_DIR", "0123"),
            ("HOME", "/root"),
        ])
        .load();
    assert_eq!((settings.server.host.as_str(), settings.server.port), ("::1", 0));
    assert_eq!(settings.server.max_connections, 7);
    assert_eq!((settings.server.request_timeout_ms, settings.server.keep_alive_timeout_ms), (8, 9));
    assert!(!settings.monitoring.enabled);
    assert_eq!(settings.monitoring.metrics_interval_ms, 1000);
    assert_eq!(settings.monitoring.health_check_interval_ms, 1001);
    assert_eq!((settings.ssl.cert_path, settings.ssl.key_path), ("/c".into(), "/k".into()));
    assert_eq!(settings.storage.data_dir, Path::new("0123"), "a text stays a text");
    assert_eq!(settings.log.level, "debug");
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest() {
    let bench = Bench::new().file("[server]\n# a comment\nprot = 1\n\n[agnets]\nlease_ms = 60000\n");
    let refusal = bench.refusal();
    let path = bench.path("config.toml");
    let port = format!("{}:3: there is no option 'server.prot'. Did you mean 'server.port'?", path.display());
    let lease = "toml:6: there is no option 'agnets.lease_ms'. Did you mean 'agents.lease_ms'?";
    assert!(refusal.contains(&port) && refusal.contains(lease), "{refusal}");
    let top = Bench::new().file("port = 1\n").refusal();
    assert!(top.contains(":1: there is no option 'port'. Did you mean 'server.port'?"), "{top}");
}

#[test]
fn an_unknown_variable_is_a_warning_with_the_nearest() {
    let variables = [("PHOTON_PROT", "1"), ("PHOTON_URL", "x"), ("PHOTON_XYZZY", "1")];
    let mut bench = Bench::new().variables(&variables);
    bench.sources.other_variables = &["PHOTON_URL"];
    let sentence =
        "The environment variable PHOTON_PROT is not known and has no effect. Did you mean 'PHOTON_PORT'?";
    let other = "The environment variable PHOTON_XYZZY is not known and has no effect.";
    assert_eq!(bench.load().warnings(), [sentence, other]);
}

#[test]
fn values_that_cannot_be_used_are_refused_with_their_place() {
    let cases = [
        ("[server]\nport = 70000", "server.port must be from 0 to 65535, not 70000."),
        ("[server]\nport = -1", "server.port must be from 0 to 65535"),
        ("[server]\nport = \"8080\"", "server.port must be a whole number."),
        ("[server]\nport = 80.5", "server.port must be a whole number."),
        ("[server]\nhost = 5", "server.host must be a text."),
        ("[server]\nkeep_alive_timeout_ms = 60001", "server.keep_alive_timeout_ms must be from 0 to 60000"),
        ("[log]\nlevel = \"inf\"", "log.level must be one of"),
        ("[log]\nformat = \"xml\"", "log.format must be text or json, not 'xml'."),
        ("[storage]\ndata_dir = \"\"", "storage.data_dir must name a folder."),
        ("[limits]\nmax_body_bytes = 1", "limits.max_body_bytes must be from 1024"),
        ("[limits]\nmax_steps = 0", "limits.max_steps must be from 1"),
        ("[monitoring]\nenabled = 1", "monitoring.enabled must be true or false."),
        ("[monitoring]\nalert_p95_ms = -1", "monitoring.alert_p95_ms must be from 0 to 3600000, not -1."),
        ("[monitoring]\nalert_ready_steps = 1.5", "monitoring.alert_ready_steps must be a whole number."),
        ("[selection]\ncapability = 0.5", "selection.capability and the other three weights must make 1"),
        ("[selection]\ncapability = -1", "selection.capability must be from 0 to 1"),
        ("[selection]\ncapability = nan", "selection.capability must be from 0 to 1"),
        ("[auth]\napi_keys = [1]", "auth.api_keys must be a list of texts."),
    ];
    for (file, words) in cases {
        let refusal = Bench::new().file(file).refusal();
        assert!(refusal.contains(words), "{file}: {refusal}");
        assert!(refusal.contains("config.toml:2: "), "{file}: {refusal}");
    }
    let variable = Bench::new().variables(&[("PHOTON_PORT", "eighty")]).refusal();
    assert_eq!(variable, "PHOTON_PORT: server.port must be a whole number, not 'eighty'.");
    let flag = Bench::new().flag("--port", "server.port", "99999").refusal();
    assert_eq!(flag, "--port: server.port must be from 0 to 65535, not 99999.");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let bench = Bench::new().file("[server]\nport = 70000\nhots = \"x\"\n");
    let bench = bench.variables(&[("PHOTON_LOG_LEVEL", "loud")]);
    assert_eq!(Settings::load(&bench.sources).unwrap_err().faults.len(), 3);
}

#[test]
fn what_is_not_built_or_not_safe_is_refused() {
    let auth = Bench::new().variables(&[("PHOTON_AUTH_ENABLED", "true")]).refusal();
    let start = "PHOTON_AUTH_ENABLED: auth.enabled must be false: authentication is not built yet.";
    assert!(auth.starts_with(start), "{auth}");
    let tls = Bench::new().variables(&[("PHOTON_SSL_ENABLED", "1")]).refusal();
    assert!(tls.contains("TLS is not built yet"), "{tls}");
    for host in ["0.0.0.0", "::", "192.168.1.5", "photon.example.org"] {
        let refusal = Bench::new().variables(&[("PHOTON_HOST", host)]).refusal();
        assert!(refusal.contains("must be a loopback address"), "{refusal}");
    }
}

#[test]
fn a_file_that_was_named_must_be_there_and_be_toml() {
    let mut bench = Bench::new();
    bench.sources.config = Some(bench.path("missing.toml"));
    assert!(bench.refusal().contains("missing.toml cannot be read"));
    bench.sources.config = None;
    let path = bench.path("other.toml");
    std::fs::write(&path, "[server]\nport = = 5\n").unwrap();
    bench.sources.environment = Environment::from_pairs([("PHOTON_CONFIG", path.to_str().unwrap())]);
    let refusal = bench.refusal();
    assert!(refusal.contains("other.toml is not valid TOML") && refusal.contains("line 2"), "{refusal}");
}

#[test]
fn secrets_are_read_from_files_and_never_shown() {
    let bench = Bench::new();
    let keys = bench.path("keys");
    secret_file(&keys, "canary-one\ncanary-two\n", 0o600);
    let variables = [("PHOTON_API_KEYS_FILE", keys.to_str().unwrap()), ("PHOTON_ADMIN_KEY", "canary-three")];
    let bench = bench.variables(&variables);
    let settings = bench.load();
    let read: Vec<&str> = settings.auth.api_keys.iter().map(Secret::expose).collect();
    assert_eq!(read, ["canary-one", "canary-two"]);
    assert_eq!(settings.auth.admin_key.expose(), "canary-three");
    assert!(!format!("{settings:?}").contains("canary"));
    assert!(!format!("{:?}", bench.sources).contains("canary"));
    assert!(settings.explain().iter().all(|explained| !explained.value.contains("canary")));
    assert_eq!(settings.warnings().len(), 1, "keys without authentication deserve a word");
}

#[test]
fn a_secret_that_others_can_read_or_that_is_given_twice_is_refused() {
    let bench = Bench::new();
    let keys = bench.path("keys");
    secret_file(&keys, "canary", 0o644);
    let path = keys.to_str().unwrap().to_owned();
    let bench = bench.variables(&[("PHOTON_ADMIN_KEY_FILE", &path)]);
    let refusal = bench.refusal();
    assert!(refusal.contains("chmod 600") && !refusal.contains("canary"), "{refusal}");
    secret_file(&keys, "canary", 0o600);
    let bench = bench.variables(&[("PHOTON_ADMIN_KEY_FILE", &path), ("PHOTON_ADMIN_KEY", "canary")]);
    assert!(bench.refusal().contains("keep one of them"));
    secret_file(&keys, "\n", 0o600);
    assert!(bench.variables(&[("PHOTON_ADMIN_KEY_FILE", &path)]).refusal().contains("is empty"));
}
