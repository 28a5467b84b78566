//! Texts with expressions between `{{` and `}}`. It must never read a text that is not marked as one.

use super::ExpressionError;
use super::check::{Checked, checked};

/// Expressions that one template may hold.
const PER_TEMPLATE_MAX: usize = 64;

/// One part of a template.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Text(String),
    Expression(String, Box<Checked>),
}

/// Splits a template into plain texts and checked expressions.
///
/// # Errors
/// A sentence about the first expression that is wrong.
pub(super) fn parts(template: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let (mut rest, mut expressions) = (template, 0);
    while let Some(start) = rest.find("{{") {
        let body = &rest[start + 2..];
        let end = end(body).ok_or("an expression is opened by {{ and not closed by }}")?;
        expressions += 1;
        if expressions > PER_TEMPLATE_MAX {
            return Err(format!("a template may hold at most {PER_TEMPLATE_MAX} expressions"));
        }
        if start > 0 {
            parts.push(Part::Text(rest[..start].to_owned()));
        }
        let source = body[..end].trim();
        let checked = checked(source).map_err(|fault| described(source, &fault))?;
        parts.push(Part::Expression(source.to_owned(), Box::new(checked)));
        rest = &body[end + 2..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// Where `}}` closes the expression: outside of its texts and of braces of its own.
fn end(body: &str) -> Option<usize> {
    let bytes = body.as_bytes();
    let (mut at, mut quote, mut depth) = (0, None, 0_u32);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, _) => {}
        }
        at += 1;
    }
    None
}

/// A sentence that shows where it belongs.
pub(super) fn described(source: &str, fault: &str) -> String {
    let mut shown: String = source.chars().take(120).collect();
    if shown.len() < source.len() {
        shown.push('…');
    }
    format!("in {shown}: {fault}")
}

impl ExpressionError {
    /// The same with the expression it is about.
    pub(super) fn within(mut self, source: &str) -> Self {
        self.message = described(source, &self.message);
        self
    }
}
