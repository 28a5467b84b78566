//! Owns how a person names an operation or an agent: by its id, or by the beginning or the end of it; an
//! operation also as the newest one. It must never choose one of several.

use super::exit::{Complaint, Exit};
use crate::client::{Client, ClientError};

/// The newest one.
const LAST: &str = "@last";
/// Digits of an operation's id.
const DIGITS: usize = 32;
/// Fewest characters of a shortened id.
const LENGTH_MIN: usize = 4;

/// What `--help` says of an id.
pub(super) const OPERATION_HELP: &str =
    "Id of the operation, at least 4 characters of its beginning or end, or @last for the newest";
/// The same of an agent.
pub(super) const AGENT_HELP: &str = "Id of the agent, or at least 4 characters of its beginning or end";

/// The id of the operation that is meant.
pub(super) async fn operation(client: &Client, named: &str) -> Result<String, Complaint> {
    if named == LAST {
        let newest = client.operations(&[("sort", "-createdAt".to_owned())], 1).await?;
        return newest.into_iter().next().map(|one| one.id).ok_or_else(none_yet);
    }
    if is_whole(named) {
        return Ok(named.to_owned());
    }
    long_enough(named, "operation")?;
    let found = client.operations(&[("id", named.to_owned())], 2).await?;
    only(named, "op", found.into_iter().map(|one| one.id).collect())
}

/// The id of the agent that is meant; agents choose their ids, so that any text may be a whole one.
pub(super) async fn agent(client: &Client, named: &str) -> Result<String, Complaint> {
    if named.len() < LENGTH_MIN {
        return Ok(named.to_owned());
    }
    let found = client.agents(&[("id", named.to_owned())], 2).await;
    let found = match found {
        // What no id can look like is refused where it is used, with the reason.
        Err(ClientError::Refused(refusal)) if refusal.status == 400 => return Ok(named.to_owned()),
        found => found?,
    };
    only(named, "agent", found.into_iter().map(|one| one.id).collect())
}

fn is_whole(named: &str) -> bool {
    let digits = named.strip_prefix("op_").unwrap_or_default();
    digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn long_enough(named: &str, noun: &str) -> Result<(), Complaint> {
    if named.strip_prefix("op_").unwrap_or(named).len() >= LENGTH_MIN {
        return Ok(());
    }
    let sentence =
        format!("'{named}' is too short for an id of an {noun}; write at least 4 characters of it.");
    Err(Complaint::new(Exit::USAGE, sentence))
}

fn none_yet() -> Complaint {
    Complaint::new(Exit::NOT_FOUND, format!("There is no operation yet, so {LAST} names none."))
}

/// The only one that fits.
fn only(named: &str, command: &str, mut found: Vec<String>) -> Result<String, Complaint> {
    let noun = if command == "op" { "operation" } else { command };
    match (found.pop(), found.pop()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            let sentence = format!(
                "There is no {noun} whose id begins or ends with '{named}'; see 'photon {command} list'."
            );
            Err(Complaint::new(Exit::NOT_FOUND, sentence))
        }
        (Some(one), Some(other)) => {
            let sentence =
                format!("'{named}' fits more than one {noun}: {other}, {one}. Write more of the id.");
            Err(Complaint::new(Exit::USAGE, sentence))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_fits_is_meant_and_of_several_none() {
        let found = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        assert_eq!(only("abcd", "op", found(&["op_1"])).unwrap(), "op_1");
        let none = only("abcd", "op", found(&[])).unwrap_err();
        assert_eq!(none.voice(), Exit::NOT_FOUND);
        let several = only("abcd", "agent", found(&["a", "b"])).unwrap_err();
        assert_eq!(several.voice(), Exit::USAGE);
    }

    #[test]
    fn a_whole_id_is_not_looked_up_and_a_short_one_refused() {
        assert!(is_whole(&format!("op_{}", "0".repeat(32))));
        assert!(!is_whole(&"0".repeat(32)) && !is_whole("op_0123"));
        assert!(long_enough("0123", "operation").is_ok() && long_enough("op_012", "operation").is_err());
    }
}
