//! Owns how a query string is read: known names only, each value checked, every refusal names its parameter.
//! It must never know what a parameter filters.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use actix_web::HttpRequest;
use chrono::{DateTime, Utc};

use super::error::{ApiError, Code, FieldError};

/// Parameters that say which part of a list is asked for, and when.
const OF_PAGE: [&str; 5] = ["cursor", "limit", "count", "minPosition", "at"];

/// The parameters of one request, decoded, each known and given once.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    path: String,
    values: BTreeMap<String, String>,
}

impl Parameters {
    /// Reads the query string of a request; see [`Parameters::parse`].
    ///
    /// # Errors
    /// As [`Parameters::parse`].
    pub fn of(request: &HttpRequest, names: &[&str], prefixes: &[&str]) -> Result<Self, ApiError> {
        let path = request.path().to_owned();
        Ok(Self { path, ..Self::parse(request.query_string(), names, prefixes)? })
    }

    /// Reads a query string. `names` are the parameters known here, `prefixes` open families (`metadata.`).
    ///
    /// # Errors
    /// 400 `unknown_parameter` with the nearest known name; 400 `invalid_parameter` for one that is given
    /// twice, is not UTF-8, is badly escaped or holds control characters.
    pub fn parse(query: &str, names: &[&str], prefixes: &[&str]) -> Result<Self, ApiError> {
        let mut values = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(raw_name).ok_or_else(|| unreadable(raw_name))?;
            let in_family = |prefix: &&str| name.strip_prefix(*prefix).is_some_and(|key| !key.is_empty());
            if !names.contains(&name.as_str()) && !prefixes.iter().any(in_family) {
                return Err(unknown(&name, names, prefixes));
            }
            let value = decode(raw_value).ok_or_else(|| unreadable(&name))?;
            if values.insert(name.clone(), value).is_some() {
                let detail = format!("The parameter '{name}' is given more than once; give it once.");
                return Err(ApiError::invalid_parameter(&name, detail));
            }
        }
        Ok(Self { path: String::new(), values })
    }

    /// Which list is asked for, and in which order: of the path and every parameter but those that say which
    /// part of it. Equal for the same list.
    #[must_use]
    pub fn list(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let of_list = self.values.iter().filter(|(name, _)| !OF_PAGE.contains(&name.as_str()));
        let parts = of_list.flat_map(|(name, value)| [name, value]);
        for part in std::iter::once(&self.path).chain(parts) {
            // The length keeps two neighbours from being read as other two.
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// The value as it was sent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A whole number within a range.
    ///
    /// # Errors
    /// 400 `invalid_parameter`.
    pub fn get_u64(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let hint = format!("a whole number from {} to {}", range.start(), range.end());
        self.parsed(name, &hint, |text| {
            // `parse` alone would take "+5".
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| digits && range.contains(number))
        })
    }

    /// `true` or `false`; the bare name means true.
    ///
    /// # Errors
    /// 400 `invalid_parameter`.
    pub fn get_bool(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.parsed(name, "true or false", |text| match text {
            "true" | "1" | "" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })
    }

    /// A duration such as `30s`, `500ms` or `2m`, no longer than `max`.
    ///
    /// # Errors
    /// 400 `invalid_parameter`.
    pub fn get_duration(&self, name: &str, max: Duration) -> Result<Option<Duration>, ApiError> {
        let hint = format!("a duration such as 30s or 500ms, at most {}ms", max.as_millis());
        self.parsed(name, &hint, |text| parse_duration(text).filter(|duration| *duration <= max))
    }

    /// A time in RFC 3339, in any offset.
    ///
    /// # Errors
    /// 400 `invalid_parameter`.
    pub fn get_time(&self, name: &str) -> Result<Option<DateTime<Utc>>, ApiError> {
        let hint = "a time in RFC 3339 such as 2026-11-23T01:40:00Z (write a '+' of an offset as %2B)";
        self.parsed(name, hint, |text| DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc()))
    }

    /// One of a few words.
    ///
    /// # Errors
    /// 400 `invalid_parameter` with the nearest of them.
    pub fn get_choice<'a>(&self, name: &str, choices: &[&'a str]) -> Result<Option<&'a str>, ApiError> {
        self.get(name).map(|value| choice(name, value, choices)).transpose()
    }

    /// Some of a few words, separated by commas; none when the parameter is absent.
    ///
    /// # Errors
    /// 400 `invalid_parameter` with the nearest of them, or for an empty item.
    pub fn get_choices<'a>(&self, name: &str, choices: &[&'a str]) -> Result<Vec<&'a str>, ApiError> {
        self.get_list(name)?.into_iter().map(|value| choice(name, value, choices)).collect()
    }

    /// The items of a comma list; empty when the parameter is absent.
    ///
    /// # Errors
    /// 400 `invalid_parameter` for an empty item.
    pub fn get_list(&self, name: &str) -> Result<Vec<&str>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let items: Vec<&str> = value.split(',').map(str::trim).collect();
        if items.iter().any(|item| item.is_empty()) {
            let detail =
                format!("The parameter '{name}' must be a list with commas and without empty items.");
            return Err(ApiError::invalid_parameter(name, detail));
        }
        Ok(items)
    }

    /// The members of a family: for `metadata.` each (KEY, value).
    pub fn family<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.values.iter().filter_map(move |(name, value)| {
            name.strip_prefix(prefix).filter(|key| !key.is_empty()).map(|key| (key, value.as_str()))
        })
    }

    fn parsed<T>(
        &self,
        name: &str,
        hint: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let refusal = || ApiError::invalid_parameter(name, format!("The parameter '{name}' must be {hint}."));
        read(value).map(Some).ok_or_else(refusal)
    }
}

/// Reads `500ms`, `30s`, `2m` or `1h`. Also for the durations within bodies.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    let factor_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(factor_ms).map(Duration::from_millis)
}

/// A second sentence with the nearest known name, or nothing.
#[must_use]
pub fn did_you_mean(name: &str, known: &[&str]) -> String {
    domain::nearest::nearest(name, known).map(|best| format!(" Did you mean '{best}'?")).unwrap_or_default()
}

/// A client's text as it may stand in a message: short, without control or invisible characters.
#[must_use]
pub fn shown(text: &str) -> String {
    let plain =
        |letter: char| if letter.is_ascii_graphic() || letter.is_alphanumeric() { letter } else { '?' };
    text.chars().take(64).map(plain).collect()
}

fn choice<'a>(name: &str, value: &str, choices: &[&'a str]) -> Result<&'a str, ApiError> {
    choices.iter().find(|choice| **choice == value).copied().ok_or_else(|| {
        let meant = did_you_mean(value, choices);
        let detail = format!("The parameter '{name}' must be one of {}.{meant}", choices.join(", "));
        ApiError::invalid_parameter(name, detail)
    })
}

fn unknown(name: &str, names: &[&str], prefixes: &[&str]) -> ApiError {
    let families = prefixes.iter().map(|prefix| format!("{prefix}KEY"));
    let known: Vec<String> = names.iter().map(|name| (*name).to_owned()).chain(families).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let listed = match known.as_slice() {
        [] => "This path takes no parameters.".to_owned(),
        known => format!("Known here: {}.", known.join(", ")),
    };
    let meant = did_you_mean(name, &known);
    let name = shown(name);
    let detail = format!("The parameter '{name}' is not known.{meant} {listed}");
    ApiError::new(Code::UnknownParameter, detail.clone()).with(FieldError::parameter(name, detail))
}

fn unreadable(name: &str) -> ApiError {
    let name = shown(name);
    let detail = format!(
        "The parameter '{name}' cannot be read; escape it as UTF-8 with %XX and leave out control characters."
    );
    ApiError::invalid_parameter(&name, detail)
}

/// Undoes form encoding; nothing for a broken escape, bad UTF-8 or a control character.
fn decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["limit", "cursor", "status", "wait", "count", "createdAfter"];

    fn read(query: &str) -> Parameters {
        Parameters::parse(query, NAMES, &["metadata."]).unwrap()
    }

    fn refused(query: &str) -> ApiError {
        Parameters::parse(query, NAMES, &["metadata."]).unwrap_err()
    }

    #[test]
    fn an_unknown_parameter_is_refused_with_the_nearest() {
        let error = refused("limt=5");
        assert_eq!(error.code, Code::UnknownParameter);
        assert!(
            error.message.contains("'limt'") && error.message.contains("Did you mean 'limit'?"),
            "{error}"
        );
        assert_eq!(error.errors[0].parameter.as_deref(), Some("limt"));
        assert!(!refused("zzzzzz=5").message.contains("Did you mean"));
        assert_eq!(refused("metadata.=5").code, Code::UnknownParameter);
    }

    #[test]
    fn a_repeated_or_unreadable_parameter_is_refused() {
        for query in
            ["limit=1&limit=2", "limit=%zz", "limit=%f", "status=%ff", "status=a%00b", "status=%0d%0a"]
        {
            let error = refused(query);
            assert_eq!(error.code, Code::InvalidParameter, "{query}");
            assert!(error.errors[0].parameter.is_some());
        }
    }

    #[test]
    fn a_page_size_outside_of_its_range_is_refused() {
        for bad in ["1000000000", "-1", "0", "501", "+5", "abc", "", "99999999999999999999", "5.0"] {
            let error =
                read(&format!("limit={}", bad.replace('+', "%2B"))).get_u64("limit", 1..=500).unwrap_err();
            assert_eq!(error.code, Code::InvalidParameter);
            assert!(error.message.contains("'limit'") && error.message.contains("1 to 500"), "{error}");
        }
        assert_eq!(read("limit=500").get_u64("limit", 1..=500).unwrap(), Some(500));
        assert_eq!(read("").get_u64("limit", 1..=500).unwrap(), None);
    }

    #[test]
    fn durations_have_units_and_a_maximum() {
        let max = Duration::from_secs(55);
        for (text, ms) in [("30s", 30_000), ("500ms", 500), ("0s", 0), ("55s", 55_000)] {
            let read = read(&format!("wait={text}")).get_duration("wait", max).unwrap();
            assert_eq!(read, Some(Duration::from_millis(ms)));
        }
        for bad in ["30", "1m", "s", "-1s", "1.5s", "99999999999999999999h", "18446744073709551615h"] {
            assert!(read(&format!("wait={bad}")).get_duration("wait", max).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_lists_choices_and_families_are_read() {
        let given =
            read("createdAfter=2026-11-23T01:00:00%2B01:00&status=a,%20b&metadata.team.x=core+one&count");
        let time = given.get_time("createdAfter").unwrap().unwrap();
        assert_eq!(time.to_rfc3339(), "2026-11-23T00:00:00+00:00");
        assert_eq!(given.get_list("status").unwrap(), ["a", "b"]);
        assert_eq!(given.family("metadata.").collect::<Vec<_>>(), [("team.x", "core one")]);
        assert_eq!(given.get_bool("count").unwrap(), Some(true));
        assert!(read("createdAfter=yesterday").get_time("createdAfter").is_err());
        assert!(read("status=a,,b").get_list("status").is_err());
        assert!(read("count=perhaps").get_bool("count").is_err());
        let error = read("status=runing").get_choice("status", &["running", "failed"]).unwrap_err();
        assert!(error.message.contains("Did you mean 'running'?"), "{error}");
        let several = read("status=failed,running").get_choices("status", &["running", "failed"]).unwrap();
        assert_eq!(several, ["failed", "running"]);
        let error = read("status=failed,runing").get_choices("status", &["running", "failed"]).unwrap_err();
        assert!(error.message.contains("Did you mean 'running'?"), "{error}");
        assert!(read("").get_choices("status", &["running"]).unwrap().is_empty());
        assert!(read("status=").get_choices("status", &["running"]).is_err());
    }

    #[test]
    fn a_list_is_told_by_its_path_filters_and_order() {
        let list = |query: &str| read(query).list();
        assert_eq!(list("status=a&limit=5"), list("limit=7&count&cursor=c&status=a"));
        assert_ne!(list("status=a"), list("status=b"));
        assert_ne!(list("status=a"), list(""));
        assert_ne!(list("metadata.a=b"), list("metadata.ab="));
        let other = Parameters { path: "/other".into(), ..read("status=a") };
        assert_ne!(other.list(), list("status=a"));
    }

    #[test]
    fn a_message_shows_no_control_characters() {
        assert_eq!(shown("a\r\n\u{202e}b"), "a???b");
        assert_eq!(shown(&"x".repeat(1000)).len(), 64);
    }
}
