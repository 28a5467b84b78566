//! What a `[[pool]]` may be: what is refused, with its line, and what is shown.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may end it")]

use domain::operation::definition::Location;
use photon::settings::{DEFAULTS, Settings, Source, Sources};
use tempfile::TempDir;

use crate::support;

use support::called::call;

fn load(file: &str) -> Result<Settings, String> {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("config.toml"), file).unwrap();
    let sources = Sources { folder: folder.path().to_owned(), ..Sources::default() };
    Settings::load(&sources).map_err(|refusal| refusal.to_string())
}

/// The least that a pool must say, and this.
fn with(line: &str) -> String {
    let option = line.split('=').next().unwrap_or_default().trim();
    let least = ["name = \"crew\"", "capability = \"work\"", "max = 3", "target_queue_seconds = 5"];
    let others = least.into_iter().filter(|other| !other.starts_with(&format!("{option} ")));
    ["[[pool]]", line].into_iter().chain(others).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_pool_needs_four_options_and_has_defaults_for_the_rest() {
    assert!(load("").unwrap().pools.is_empty(), "there is none by default");
    let pools = load(&with("")).unwrap().pools;
    let pool = &pools[0];
    assert_eq!((pool.name.as_str(), pool.capability.as_str(), pool.min, pool.max), ("crew", "work", 0, 3));
    assert_eq!((pool.target_queue_seconds, pool.idle_seconds, pool.max_concurrent_steps), (5, 60, 1));
    assert_eq!((pool.location, pool.model.as_deref()), (Location::Local, None));
    assert!(pool.command.is_empty() && pool.labels.is_empty() && pool.environment.is_empty());
    assert!(!pool.is_managed(), "without a command it is only measured");
}

#[test]
fn the_example_of_the_shipped_file_is_valid() {
    let begin = DEFAULTS.find("# [[pool]]").unwrap();
    let plain = |line: &str| line.strip_prefix("# ").unwrap_or_default().to_owned();
    let options = DEFAULTS[begin..].lines().map(plain);
    let example: Vec<String> =
        options.filter(|line| line.contains(" = ") || line.starts_with("[[")).collect();
    let settings = load(&example.join("\n")).unwrap();
    let pool = &settings.pools[0];
    assert_eq!((pool.name.as_str(), pool.command.len(), pool.labels.len()), ("reviewers", 2, 1));
    assert!(pool.is_managed());
    let explained = settings.explain().iter().filter(|one| one.key.starts_with("pool[0]."));
    assert_eq!(explained.count() + 1, example.len(), "every option stands in the example and is explained");
}

#[test]
fn every_value_that_cannot_be_used_is_refused_with_its_line() {
    let cases = [
        ("name = \"a b\"", "pool[0].name must match [A-Za-z0-9._-]{1,64}, not 'a b'."),
        ("name = 5", "pool[0].name must be a text."),
        ("capability = \"no blanks\"", "pool[0].capability cannot be used: each of capabilities must match"),
        ("min = 4", "pool[0].min must be at most max, which is 3, not 4."),
        ("min = -1", "pool[0].min must be from 0 to 256, not -1."),
        ("max = 257", "pool[0].max must be from 1 to 256, not 257."),
        ("max = \"3\"", "pool[0].max must be a whole number from 1 to 256."),
        ("target_queue_seconds = 0", "pool[0].target_queue_seconds must be from 1 to 86400, not 0."),
        ("target_queue_seconds = 1.5", "pool[0].target_queue_seconds must be a whole number"),
        ("idle_seconds = 86401", "pool[0].idle_seconds must be from 0 to 86400, not 86401."),
        ("command = \"run it\"", "pool[0].command must be a list of texts."),
        ("command = [\"run\", 1]", "pool[0].command must be a list of texts."),
        ("command = [\" \"]", "pool[0].command must begin with a program."),
        ("command = [\"a\\u0000\"]", "pool[0].command must not hold NUL characters."),
        ("max_concurrent_steps = 0", "pool[0].max_concurrent_steps must be from 1 to 1000, not 0."),
        ("location = \"moon\"", "pool[0].location must be one of local, cloud, edge, mobile, remote"),
        ("model = \"a\\u0007\"", "pool[0].model cannot be used: model must not hold control characters."),
        ("labels = { zone = 1 }", "pool[0].labels must be a table of texts."),
        ("labels = [\"zone=a\"]", "pool[0].labels must be a table of texts."),
        ("environment = [\"a=b\"]", "pool[0].environment must hold names of variables, not 'a=b'."),
        ("environment = [\"PHOTON_ADMIN_KEY\"]", "pool[0].environment must not name variables of Photon"),
        ("maximum = 3", "there is no option 'pool[0].maximum'."),
        ("comand = []", "there is no option 'pool[0].comand'. Did you mean 'pool[0].command'?"),
    ];
    for (line, words) in cases {
        let refusal = load(&with(line)).unwrap_err();
        assert!(refusal.contains(words), "{line}: {refusal}");
        assert!(refusal.contains("config.toml:2: "), "{line}: {refusal}");
        assert_eq!(refusal.lines().count(), 1, "{line}: {refusal}");
    }
}

#[test]
fn lists_that_are_too_long_are_refused() {
    let many = |count: usize| (0..count).map(|n| format!("\"V{n}\"")).collect::<Vec<_>>().join(", ");
    assert!(load(&with(&format!("environment = [{}]", many(32)))).is_ok());
    assert!(load(&with(&format!("environment = [{}]", many(33)))).unwrap_err().contains("at most 32 names"));
    assert!(load(&with(&format!("command = [{}]", many(64)))).is_ok());
    let refusal = load(&with(&format!("command = [{}]", many(65)))).unwrap_err();
    assert!(refusal.contains("at most 64 texts of 8192 bytes together"), "{refusal}");
    let pools = |count: usize| {
        let one =
            |n| format!("[[pool]]\nname = \"p{n}\"\ncapability = \"c\"\nmax = 8\ntarget_queue_seconds = 1\n");
        (0..count).map(one).collect::<String>()
    };
    assert_eq!(load(&pools(32)).unwrap().pools.len(), 32);
    assert!(load(&pools(33)).unwrap_err().contains("pool must be at most 32 tables, not 33."));
}

#[test]
fn what_is_missing_is_named_with_the_line_of_its_pool() {
    let refusal = load("\n[server]\nport = 1\n\n[[pool]]\nmax = 1\n").unwrap_err();
    let missing: Vec<&str> = refusal.lines().collect();
    assert_eq!(missing.len(), 3, "{refusal}");
    for (line, option) in missing.iter().zip(["name", "capability", "target_queue_seconds"]) {
        let words = format!("config.toml:5: pool[0].{option} is missing: it must be");
        assert!(line.contains(&words), "{line}");
    }
}

#[test]
fn pools_together_have_names_of_their_own_and_a_bounded_number_of_workers() {
    let pool = |name: &str, max: u32, command: &str| {
        format!(
            "[[pool]]\nname = \"{name}\"\ncapability = \"c\"\nmax = {max}\ntarget_queue_seconds = 1\n\
             command = [{command}]\n"
        )
    };
    let twice = load(&(pool("a", 1, "") + &pool("a", 1, ""))).unwrap_err();
    assert!(twice.contains(":8: pool[1].name must be another one: there is a pool 'a' already."), "{twice}");
    let many = load(&(pool("a", 200, "\"x\"") + &pool("b", 57, "\"x\""))).unwrap_err();
    let words = ":10: pool[1].max and those of the pools before must make at most 256 together, not 257.";
    assert!(many.contains(words), "{many}");
    assert!(
        load(&(pool("a", 200, "\"x\"") + &pool("b", 57, ""))).is_ok(),
        "nothing is started for the second"
    );
}

#[test]
fn a_pool_that_is_no_list_of_tables_is_refused() {
    for file in ["[pool]\nname = \"a\"", "pool = 5"] {
        let refusal = load(file).unwrap_err();
        assert!(refusal.contains("pool must be a list of tables: write [[pool]]"), "{file}: {refusal}");
    }
    assert!(load("pool = [5]").unwrap_err().contains("pool[0] must be a table"));
}

#[test]
fn config_show_says_where_each_option_of_a_pool_comes_from() {
    let settings = load(&with("labels = { zone = \"lab\" }")).unwrap();
    let one = |key: &str| settings.explain().iter().find(|one| one.key == key).unwrap().clone();
    assert_eq!(one("pool[0].labels").value, "{zone = \"lab\"}");
    assert!(matches!(one("pool[0].labels").source, Source::File(_, 2)));
    assert_eq!((one("pool[0].min").value.as_str(), one("pool[0].min").source), ("0", Source::Default));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, with("command = [\"run\", \"--fast\"]")).unwrap();
    let shown = call(["config", "show", "--config", path.to_str().unwrap()]).ends_with(0).stdout;
    let line = shown.lines().find(|line| line.starts_with("pool[0].command")).unwrap();
    assert!(line.contains("[\"run\", \"--fast\"]") && line.contains("config.toml:2"), "{line}");
}
