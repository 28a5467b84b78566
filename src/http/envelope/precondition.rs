//! Owns `If-Match`: which revisions of something a change may find (RFC 9110, section 13.1.1).
//! It must never know which revision there is.

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderValue};
use events::Version;

use super::super::error::{ApiError, Code};

/// What a change demands of what it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Precondition {
    /// None when every revision will do.
    versions: Option<Vec<Version>>,
    /// The first tag, when all of them are weak.
    weak: Option<String>,
}

impl Precondition {
    /// Reads `If-Match`. A tag that is no revision of ours fits none.
    ///
    /// # Errors
    /// 400 for what is neither `*` nor a list of entity tags.
    pub fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let mut values = request.headers().get_all(header::IF_MATCH).peekable();
        if values.peek().is_none() {
            return Ok(Self { versions: None, weak: None });
        }
        let read = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let text = values.map(read).collect::<Option<Vec<_>>>().ok_or_else(malformed)?.join(",");
        if text.trim() == "*" {
            return Ok(Self { versions: None, weak: None });
        }
        let tags = tags(&text).filter(|tags| !tags.is_empty()).ok_or_else(malformed)?;
        let strong = tags.iter().filter(|tag| !tag.weak);
        let versions = strong.filter_map(|tag| revision(tag.text)).collect();
        let weak = tags.iter().all(|tag| tag.weak).then(|| tags[0].text.to_owned());
        Ok(Self { versions: Some(versions), weak })
    }

    /// The revisions of which a change may find any; none when every revision will do.
    #[must_use]
    pub fn versions(&self) -> Option<Vec<Version>> {
        self.versions.clone()
    }

    /// The refusal of a change, with the true reason if no revision could have met the precondition.
    #[must_use]
    pub fn explained(&self, mut refusal: ApiError) -> ApiError {
        let Some(tag) = self.weak.as_ref().filter(|_| refusal.code == Code::RevisionMismatch) else {
            return refusal;
        };
        let tag = crate::http::query::shown(tag);
        refusal.message = format!(
            "If-Match compares strong entity tags only, and W/\"{tag}\" is weak, so that no revision matches \
             it; send \"{tag}\" without W/."
        );
        refusal
    }
}

fn malformed() -> ApiError {
    let message = "If-Match must be * or entity tags in double quotes, as the ETag header gives them, such \
                   as \"7\".";
    ApiError::new(Code::MalformedRequest, message)
}

struct Tag<'t> {
    weak: bool,
    text: &'t str,
}

/// The entity tags of a list; none for a text that is no such list.
fn tags(text: &str) -> Option<Vec<Tag<'_>>> {
    let mut tags = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let strong = rest.strip_prefix("W/");
        let (text, after) = strong.unwrap_or(rest).strip_prefix('"')?.split_once('"')?;
        tags.push(Tag { weak: strong.is_some(), text });
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if after.is_empty() => after,
            None => return None,
        };
    }
    Some(tags)
}

/// The revision that an entity tag names: a change only minds the history of what is changed.
fn revision(tag: &str) -> Option<Version> {
    let text = match tag.split_once('.') {
        Some((revision, position)) if position.parse::<u64>().is_ok() => revision,
        _ => tag,
    };
    let revision: u64 = text.parse().ok()?;
    // One revision has one spelling.
    (revision.to_string() == text).then(|| Version::new(revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn of(tags: &[&str]) -> Result<Precondition, ApiError> {
        let request = tags
            .iter()
            .fold(TestRequest::put(), |request, tag| request.append_header((header::IF_MATCH, *tag)));
        Precondition::of(&request.to_http_request())
    }

    fn named(tags: &[&str]) -> Option<Vec<u64>> {
        Some(of(tags).unwrap().versions()?.into_iter().map(Version::get).collect())
    }

    #[test]
    fn a_change_holds_to_the_revision_it_names() {
        assert_eq!(named(&["\"7\""]), Some(vec![7]));
        assert_eq!(named(&["\"7.31\""]), Some(vec![7]));
        assert_eq!(named(&["\"6\", \"7\""]), Some(vec![6, 7]));
        assert_eq!(named(&["\"6\"", " W/\"7\" ,\"8\""]), Some(vec![6, 8]));
        assert_eq!(named(&["*"]), None);
        assert_eq!(named(&[]), None);
        for none in ["W/\"7\"", "\"+7\"", "\"07\"", "\"x\"", "\"a, b\""] {
            assert_eq!(named(&[none]), Some(vec![]), "{none}");
        }
    }

    #[test]
    fn what_is_no_entity_tag_is_refused() {
        for tags in
            [&["7"] as &[&str], &[""], &["\"7"], &["7\""], &["\"7\" \"8\""], &["w/\"7\""], &["*", "\"7\""]]
        {
            let refused = of(tags).unwrap_err();
            assert_eq!(refused.code, Code::MalformedRequest, "{tags:?}");
            assert!(refused.message.contains("double quotes"), "{refused}");
        }
    }

    #[test]
    fn a_weak_tag_is_told_from_an_old_one() {
        let mismatch = || ApiError::new(Code::RevisionMismatch, "The present revision is 7.");
        let weak = of(&["W/\"7\""]).unwrap().explained(mismatch());
        assert!(weak.message.contains("W/\"7\" is weak") && weak.code == Code::RevisionMismatch, "{weak}");
        for tags in ["\"6\"", "W/\"7\", \"6\""] {
            assert_eq!(of(&[tags]).unwrap().explained(mismatch()).message, mismatch().message);
        }
        let absent = || ApiError::not_found("There is no such agent.");
        assert_eq!(of(&["W/\"7\""]).unwrap().explained(absent()).message, absent().message);
    }
}
