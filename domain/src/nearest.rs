//! The known name that a mistyped one is most like. It must never decide what was meant.

/// Longest name that is compared, in bytes; nobody mistypes a longer one.
const NAME_MAX: usize = 64;

/// The known name that is most like `name`, when one is like it at all.
#[must_use]
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // The measure takes the product of both lengths.
    if name.len() > NAME_MAX {
        return None;
    }
    let lower = name.to_lowercase();
    let scored = known.iter().map(|candidate| {
        let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
        (distance, *candidate)
    });
    let (distance, best) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1.max(best.chars().count() / 3)).then_some(best)
}
