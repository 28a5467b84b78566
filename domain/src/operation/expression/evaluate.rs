//! Evaluates one parsed expression. Values are borrowed where they stand; what is built from others is
//! paid for before it is built. It must never read anything but its scope.

use std::borrow::Cow;

use serde_json::Value;

use super::operators::{equal, is_in, kind, mismatch, negative, order, reckon, text_of, truth};
use super::syntax::{Binary, Node, object};
use super::{ExpressionError, Scope};
use crate::bounds::cut;
use crate::json;

/// Bytes of a key that a sentence shows.
const KEY_SHOWN_MAX: usize = 64;

/// Why there is no value.
pub(super) enum Absent {
    /// It is not there; a default can stand for it.
    Missing(String),
    Failed(ExpressionError),
}

impl From<ExpressionError> for Absent {
    fn from(error: ExpressionError) -> Self {
        Self::Failed(error)
    }
}

impl From<Absent> for ExpressionError {
    fn from(absent: Absent) -> Self {
        match absent {
            Absent::Missing(message) => Self::template(message),
            Absent::Failed(error) => error,
        }
    }
}

type Evaluated<'v> = Result<Cow<'v, Value>, Absent>;

/// What can be read, and how many bytes may still be moved.
pub(super) struct Evaluator<'s> {
    pub(super) scope: &'s Scope,
    pub(super) work_left: usize,
}

impl<'s> Evaluator<'s> {
    /// The value of an expression.
    pub(super) fn value<'v>(&mut self, node: &'v Node) -> Evaluated<'v>
    where
        's: 'v,
    {
        match node {
            Node::Constant(value) => Ok(Cow::Borrowed(value)),
            Node::Step(number) => match self.scope.steps.get(number) {
                Some(step) => Ok(Cow::Borrowed(step)),
                None => Err(Absent::Missing(format!("there is no step {number} here"))),
            },
            Node::Operation => Ok(Cow::Borrowed(&self.scope.operation)),
            Node::Member { of, key } => {
                let of = self.value(of)?;
                let key = self.value(key)?;
                self.member(of, &key)
            }
            Node::Slice { of, from, to } => self.slice(of, from.as_deref(), to.as_deref()),
            Node::List(items) => {
                let items = items.iter().map(|item| self.owned(item));
                Ok(Cow::Owned(items.collect::<Result<Vec<_>, _>>()?.into()))
            }
            Node::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| Ok((key.clone(), self.owned(value)?)));
                Ok(Cow::Owned(object(fields.collect::<Result<Vec<_>, Absent>>()?)))
            }
            Node::Not(of) => Ok(owned(!truth("not", &*self.value(of)?)?)),
            Node::Negative(of) => Ok(Cow::Owned(negative(&*self.value(of)?)?)),
            Node::Binary { sign: Binary::Or, left, right } => {
                Ok(owned(truth("or", &*self.value(left)?)? || truth("or", &*self.value(right)?)?))
            }
            Node::Binary { sign: Binary::And, left, right } => {
                Ok(owned(truth("and", &*self.value(left)?)? && truth("and", &*self.value(right)?)?))
            }
            Node::Binary { sign, left, right } => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.binary(*sign, &left, &right).map(Cow::Owned)
            }
            Node::If { condition, yes, no } => {
                let holds = truth("if", &*self.value(condition)?)?;
                self.value(if holds { yes } else { no })
            }
            Node::Filter { filter, of, arguments } => {
                let of = self.value(of);
                if matches!(filter.name, "d" | "default") {
                    return match of {
                        Err(Absent::Missing(_)) => self.value(&arguments[0]),
                        of => of,
                    };
                }
                let (of, arguments) = (of?, self.arguments(arguments)?);
                self.pay(&of)?;
                Ok(Cow::Owned((filter.apply)(&of, &arguments)?))
            }
            Node::Test { test, of, arguments } => {
                let of = match self.value(of) {
                    Err(Absent::Missing(_)) if matches!(test.name, "defined" | "undefined") => {
                        return Ok(owned(test.name == "undefined"));
                    }
                    of => of?,
                };
                let arguments = self.arguments(arguments)?;
                self.pay(&of)?;
                Ok(owned((test.holds)(&of, &arguments)?))
            }
        }
    }

    /// Takes the size of a value from what may still be moved.
    fn pay(&mut self, value: &Value) -> Result<(), ExpressionError> {
        let too_much =
            || ExpressionError::too_large("the expressions of one step process too much data".into());
        self.work_left -= json::size_within(value, self.work_left).ok_or_else(too_much)?;
        Ok(())
    }

    fn owned(&mut self, node: &Node) -> Result<Value, Absent> {
        let value = self.value(node)?;
        self.pay(&value)?;
        Ok(value.into_owned())
    }

    fn arguments(&mut self, arguments: &[Node]) -> Result<Vec<Value>, Absent> {
        arguments.iter().map(|argument| self.owned(argument)).collect()
    }

    fn binary(&mut self, sign: Binary, left: &Value, right: &Value) -> Result<Value, Absent> {
        self.pay(left)?;
        self.pay(right)?;
        let ordered = |left, right| order(sign.sign(), left, right);
        Ok(match sign {
            Binary::Equal => equal(left, right).into(),
            Binary::Unequal => (!equal(left, right)).into(),
            Binary::Less => ordered(left, right)?.is_lt().into(),
            Binary::LessOrEqual => ordered(left, right)?.is_le().into(),
            Binary::Greater => ordered(left, right)?.is_gt().into(),
            Binary::GreaterOrEqual => ordered(left, right)?.is_ge().into(),
            Binary::In => is_in(left, right)?.into(),
            Binary::Join => format!("{}{}", text_of(left), text_of(right)).into(),
            sign => reckon(sign, left, right)?,
        })
    }

    fn member<'v>(&mut self, of: Cow<'v, Value>, key: &Value) -> Evaluated<'v> {
        let found = match of {
            Cow::Borrowed(of) => place(of, key)?.map(Cow::Borrowed),
            Cow::Owned(of) => match place(&of, key)? {
                Some(value) => {
                    self.pay(value)?;
                    Some(Cow::Owned(value.clone()))
                }
                None => None,
            },
        };
        found.ok_or_else(|| Absent::Missing(format!("there is no {}", shown(key))))
    }

    fn slice<'v>(&mut self, of: &'v Node, from: Option<&'v Node>, to: Option<&'v Node>) -> Evaluated<'v>
    where
        's: 'v,
    {
        let of = self.value(of)?;
        let len = match &*of {
            Value::Array(items) => items.len(),
            Value::String(text) => text.chars().count(),
            other => return Err(mismatch(format!("{} cannot be sliced", kind(other))).into()),
        };
        let mut end = |node: Option<&'v Node>, otherwise: usize| match node {
            None => Ok(otherwise),
            Some(node) => {
                let at = self.value(node)?;
                let at = at.as_i64().ok_or_else(|| mismatch("a slice needs whole numbers".into()))?;
                Ok::<_, Absent>(counted(at, len).min(len))
            }
        };
        let (from, to) = (end(from, 0)?, end(to, len)?);
        self.pay(&of)?;
        let count = to.saturating_sub(from);
        Ok(Cow::Owned(match &*of {
            Value::Array(items) => items.iter().skip(from).take(count).cloned().collect(),
            other => text_of(other).chars().skip(from).take(count).collect::<String>().into(),
        }))
    }
}

/// A key as it may stand in a sentence.
fn shown(key: &Value) -> String {
    cut(&text_of(key), KEY_SHOWN_MAX).to_owned()
}

fn owned<'v>(truth: bool) -> Cow<'v, Value> {
    Cow::Owned(truth.into())
}

/// The place that `at` names in a list of `len` values; negative numbers count from the end.
fn counted(at: i64, len: usize) -> usize {
    let back = || len.saturating_sub(usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX));
    usize::try_from(at).unwrap_or_else(|_| back())
}

fn place<'v>(of: &'v Value, key: &Value) -> Result<Option<&'v Value>, Absent> {
    match (of, key) {
        (Value::Object(fields), Value::String(key)) => Ok(fields.get(key)),
        (Value::Array(items), Value::Number(at)) => {
            let at = at.as_i64().filter(|at| at.unsigned_abs() <= items.len() as u64);
            Ok(at.and_then(|at| items.get(counted(at, items.len()))))
        }
        (Value::Object(_) | Value::Array(_), key) => {
            Err(mismatch(format!("{} has no {} as a place", kind(of), kind(key))).into())
        }
        (other, key) => {
            Err(Absent::Missing(format!("there is no {}: it is looked for in {}", shown(key), kind(other))))
        }
    }
}
