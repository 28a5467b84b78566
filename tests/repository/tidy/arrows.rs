//! Checks of who may know whom: crate dependencies, foreign crates, clocks, and what every manifest states.
//! Each check is a pure function from path and text to violations; none reads a file.

use super::Check;
use super::source::{code_only, is_identifier, shipped_code};
use super::style::lines_with_word;

/// Each of our crates (its folder; the root is empty) and the ones of ours it may name.
const ARROWS: [(&str, &[&str]); 6] = [
    ("", &["actors", "domain", "events", "platforms", "snapshots"]),
    ("actors", &["domain", "events", "platforms", "snapshots"]),
    ("domain", &[]),
    ("events", &[]),
    ("platforms", &["domain"]),
    ("snapshots", &["events"]),
];

/// What the pure core may use: nothing here can read a clock, a file or a socket as we configure it.
const DOMAIN_DEPENDENCIES: [&str; 6] = ["chrono", "petgraph", "serde", "serde_json", "strsim", "thiserror"];

const ACTIX_FOLDERS: [&str; 2] = ["actors/", "src/"];
const SLED_FOLDER: &str = "events/";
const CLOCKS: [&str; 4] = ["SystemTime", "Instant", "Utc::now", "Local::now"];
const MACHINE_FOLDERS: [&str; 3] = ["/work/", "/home/", "/root/"];

/// Crates of ours are named only along the arrows, in every kind of dependency.
pub(crate) fn crate_arrows(path: &str, text: &str) -> Vec<String> {
    let folder = path.strip_suffix("Cargo.toml").unwrap_or(path).trim_end_matches('/');
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == folder) else {
        return vec![format!(
            "{path}:1: unknown crate: add it and its arrows to tests/repository/tidy/arrows.rs"
        )];
    };
    let ours = |name: &str| ARROWS.iter().any(|(folder, _)| *folder == name && !folder.is_empty());
    let wrong = dependencies(text).into_iter().filter(|found| ours(&found.name) && found.name != folder);
    wrong
        .filter(|found| !allowed.contains(&found.name.as_str()))
        .map(|found| {
            format!("{path}:{}: must not depend on `{}`: turn the arrow round", found.line, found.name)
        })
        .collect()
}

/// Foreign crates stay where they may: the core's short list, actix in the shell, sled in the log.
pub(crate) fn foreign_crates(path: &str, text: &str) -> Vec<String> {
    let mut violations = Vec::new();
    for found in dependencies(text) {
        let (line, name) = (found.line, found.name);
        if path.starts_with("domain/") && !found.is_dev && !DOMAIN_DEPENDENCIES.contains(&name.as_str()) {
            violations.push(format!("{path}:{line}: the core must stay pure: take `{name}` out of domain"));
        }
        let root_or_actors = path == "Cargo.toml" || path.starts_with("actors/");
        if is_actix(&name.replace('-', "_")) && !root_or_actors {
            violations.push(format!("{path}:{line}: only actors and the root may depend on `{name}`"));
        }
        if name == "sled" && !path.starts_with(SLED_FOLDER) {
            violations.push(format!("{path}:{line}: only events may depend on sled"));
        }
    }
    violations
}

pub(crate) fn only_the_shell_names_actix(path: &str, text: &str) -> Vec<String> {
    if ACTIX_FOLDERS.iter().any(|folder| path.starts_with(folder)) {
        return Vec::new();
    }
    let lines = lines_that_name(text, is_actix).into_iter();
    lines.map(|line| format!("{path}:{line}: only actors/ and src/ may name actix")).collect()
}

pub(crate) fn only_the_log_names_sled(path: &str, text: &str) -> Vec<String> {
    if path.starts_with(SLED_FOLDER) {
        return Vec::new();
    }
    let lines = lines_that_name(text, |name| name == "sled").into_iter();
    lines.map(|line| format!("{path}:{line}: only events/ may name sled")).collect()
}

pub(crate) fn no_clock_in_the_core(path: &str, text: &str) -> Vec<String> {
    if !path.starts_with("domain/src/") {
        return Vec::new();
    }
    let code = shipped_code(text);
    let mut violations = Vec::new();
    for clock in CLOCKS {
        for line in lines_with_word(&code, clock, |_| true) {
            violations.push(format!(
                "{path}:{line}: `{clock}` in domain: the core is told the time, it never asks"
            ));
        }
    }
    violations
}

/// A folder of one machine makes a file wrong on every other.
pub(crate) fn no_machine_paths(path: &str, text: &str) -> Vec<String> {
    let is_machine_path = |line: &str| {
        MACHINE_FOLDERS.iter().any(|folder| {
            line.match_indices(folder).any(|(at, _)| {
                // Behind a name it is a relative path or the path of a URL.
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "_-.~})]*$".contains(c))
            })
        })
    };
    let lines = text.lines().enumerate().filter(|(_, line)| is_machine_path(line));
    lines.map(|(index, _)| format!("{path}:{}: path of one machine: make it relative", index + 1)).collect()
}

/// What every manifest states or must not state.
pub(crate) fn manifest_settings(path: &str, text: &str) -> Vec<String> {
    let mut violations = Vec::new();
    let squeezed = |line: &str| line.split_whitespace().collect::<String>();
    for (index, line) in text.lines().enumerate() {
        if squeezed(line).starts_with("panic=\"abort\"") {
            let line = index + 1;
            violations
                .push(format!("{path}:{line}: a panic must end one actor, not the process: take it out"));
        }
    }
    let package = text.lines().skip_while(|line| line.trim() != "[package]").skip(1);
    let mut package = package.take_while(|line| !line.starts_with('['));
    let has_license = package.any(|line| {
        let line = squeezed(line);
        line.starts_with("license=") || line == "license.workspace=true"
    });
    if !has_license {
        violations.push(format!("{path}:1: [package] has no license: add `license.workspace = true`"));
    }
    violations
}

/// What exists for tests only is in no build that did not ask for it: no default features, and nobody
/// depends on `testing` but tests.
pub(crate) fn test_features(path: &str, text: &str) -> Vec<String> {
    let (mut violations, mut section) = (Vec::new(), "");
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = header;
        } else if section == "features" && line.trim_start().starts_with("default") {
            violations.push(format!("{path}:{line_number}: a feature is asked for by name: no default"));
        } else if section.contains("dependencies")
            && !section.contains("dev-")
            && line.contains("\"testing\"")
        {
            let rule = "only [dev-dependencies] may turn `testing` on";
            violations.push(format!("{path}:{line_number}: {rule}"));
        }
    }
    violations
}

/// One dependency as a manifest names it.
struct Dependency {
    line: usize,
    name: String,
    is_dev: bool,
}

/// Lists the dependencies of every table but `[workspace.dependencies]`, which only fixes versions.
fn dependencies(text: &str) -> Vec<Dependency> {
    let mut found = Vec::new();
    let mut section = String::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = header.to_owned();
            let single = section.rsplit_once("dependencies.").filter(|_| !section.starts_with("workspace"));
            if let Some((_, name)) = single {
                let is_dev = section.contains("dev-");
                found.push(Dependency { line: line_number, name: name.to_owned(), is_dev });
            }
        } else if section.ends_with("dependencies") && section != "workspace.dependencies" {
            let key: String = line.chars().take_while(|c| is_identifier(*c) || *c == '-').collect();
            let renamed = line.split("package = \"").nth(1).and_then(|rest| rest.split('"').next());
            if !key.is_empty() {
                let name = renamed.unwrap_or(&key).to_owned();
                found.push(Dependency { line: line_number, name, is_dev: section.contains("dev-") });
            }
        }
    }
    found
}

/// Lines of code where a crate is named: in an import, or as the start of a path.
fn lines_that_name(text: &str, is_crate: fn(&str) -> bool) -> Vec<usize> {
    let names_crate = |line: &str| {
        line.split_inclusive("::").any(|part| {
            let (name, is_path) = part.strip_suffix("::").map_or((part, false), |name| (name, true));
            let first = |text: &str| text.chars().take_while(|c| is_identifier(*c)).collect::<String>();
            let last = |text: &str| text.rsplit(|c| !is_identifier(c)).next().unwrap_or("").to_owned();
            let is_import = |keyword| name.split(keyword).skip(1).any(|rest| is_crate(&first(rest)));
            (is_path && is_crate(&last(name))) || is_import("use ") || is_import("extern crate ")
        })
    };
    let code = code_only(text);
    let lines = code.lines().enumerate().filter(|(_, line)| names_crate(line));
    lines.map(|(index, _)| index + 1).collect()
}

fn is_actix(name: &str) -> bool {
    name == "actix" || name.starts_with("actix_")
}

#[test]
fn arrows_between_crates_are_checked() {
    let table = [
        ("domain/Cargo.toml", "[dependencies]\nserde = \"1\"", 0),
        ("domain/Cargo.toml", "[dependencies]\nevents.workspace = true", 1),
        ("events/Cargo.toml", "[dev-dependencies]\ndomain = { path = \"../domain\" }", 1),
        ("snapshots/Cargo.toml", "[dependencies]\nevents.workspace = true", 0),
        ("platforms/Cargo.toml", "[dependencies.events]\nworkspace = true", 1),
        ("actors/Cargo.toml", "[dependencies]\nx = { package = \"photon\" }\ndomain.workspace = true", 0),
        ("platforms/Cargo.toml", "[dependencies]\nx = { package = \"actors\" }", 1),
        (
            "Cargo.toml",
            "[workspace.dependencies]\nactors = { path = \"actors\" }\n[dependencies]\nactors = \"1\"",
            0,
        ),
        ("novelty/Cargo.toml", "", 1),
    ];
    for (path, text, violations) in table {
        assert_eq!(crate_arrows(path, text).len(), violations, "{path}: {text}");
    }
}

#[test]
fn foreign_crates_are_checked() {
    let table = [
        ("domain/Cargo.toml", "[dependencies]\nserde = \"1\"\n[dev-dependencies]\nproptest = \"1\"", 0),
        ("domain/Cargo.toml", "[dependencies]\ntokio = \"1\"", 1),
        ("events/Cargo.toml", "[dependencies]\nsled = \"1\"\nactix-rt = \"2\"", 1),
        ("actors/Cargo.toml", "[dependencies]\nsled = \"1\"\nactix = \"2\"", 1),
        ("snapshots/Cargo.toml", "[dependencies]\nsled = \"1\"", 1),
        ("Cargo.toml", "[workspace.dependencies]\nsled = \"1\"\n[dependencies]\nactix-web = \"4\"", 0),
    ];
    for (path, text, violations) in table {
        assert_eq!(foreign_crates(path, text).len(), violations, "{path}: {text}");
    }
}

#[test]
fn foreign_names_in_code_are_checked() {
    let table: [(Check, &str, &str, usize); 11] = [
        (only_the_shell_names_actix, "events/src/a.rs", "use actix_web::web;", 1),
        (only_the_shell_names_actix, "events/src/a.rs", "#[actix_web::test]\nlet actix_port = 1;", 1),
        (only_the_shell_names_actix, "events/src/a.rs", "// actix never comes here", 0),
        (only_the_shell_names_actix, "src/a.rs", "use actix::Actor;", 0),
        (only_the_log_names_sled, "src/app.rs", "let db = sled::open(p); use sled;", 1),
        (only_the_log_names_sled, "src/app.rs", "use events::sled_log::SledLog;", 0),
        (only_the_log_names_sled, "events/src/a.rs", "use sled::Tree;", 0),
        (only_the_log_names_sled, "snapshots/src/a.rs", "use sled::Tree;", 1),
        (no_clock_in_the_core, "domain/src/a.rs", "Utc::now(); Instant::now(); SystemTime::now()", 3),
        (no_clock_in_the_core, "domain/src/a.rs", "// SystemTime\nInstantaneous", 0),
        (no_clock_in_the_core, "src/a.rs", "Instant::now()", 0),
    ];
    for (check, path, text, violations) in table {
        assert_eq!(check(path, text).len(), violations, "{path}: {text}");
    }
}

#[test]
fn machine_paths_are_found_and_urls_are_not() {
    let table = [
        ("cd /home/me", 1),
        ("file:///root/a", 1),
        ("https://a.org/home/b", 0),
        ("$HOME/work/a", 0),
        ("/homework", 0),
    ];
    for (text, violations) in table {
        assert_eq!(no_machine_paths("README.md", text).len(), violations, "{text}");
    }
}

#[test]
fn manifests_state_a_licence_and_never_abort() {
    let good = "[package]\nlicense.workspace = true\n";
    assert_eq!(manifest_settings("a/Cargo.toml", good).len(), 0);
    assert_eq!(manifest_settings("a/Cargo.toml", "[package]\nname = \"a\"\n[x]\nlicense = \"MIT\"").len(), 1);
    let aborting = format!("{good}[profile.release]\npanic  =  \"abort\"");
    assert!(manifest_settings("a/Cargo.toml", &aborting)[0].starts_with("a/Cargo.toml:4: "));
}

#[test]
fn features_for_tests_are_kept_out_of_builds() {
    let table = [
        ("[features]\ntesting = [\"actors/testing\"]", 0),
        ("[features]\ndefault = [\"testing\"]", 1),
        ("[dependencies]\nactors = { path = \"a\", features = [\"testing\"] }", 1),
        ("[workspace.dependencies.actors]\nfeatures = [\"testing\"]", 1),
        ("[dev-dependencies]\nactors = { path = \"a\", features = [\"testing\"] }", 0),
    ];
    for (text, violations) in table {
        assert_eq!(test_features("Cargo.toml", text).len(), violations, "{text}");
    }
}
