//! What an expression is made of, and the parser that makes it. Recursion is bounded by the number of
//! tokens. It must never evaluate anything.

use serde_json::{Map, Value};

use super::filters::{self, Filter, Test};
use super::lexer::{Token, tokens};
use super::names;

/// Brackets within brackets.
const NESTING_MAX: usize = 16;

/// One expression, or a part of one.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Constant(Value),
    /// `steps[N]`.
    Step(u32),
    Operation,
    /// `of.key` and `of[key]`.
    Member {
        of: Box<Node>,
        key: Box<Node>,
    },
    /// `of[from:to]`.
    Slice {
        of: Box<Node>,
        from: Option<Box<Node>>,
        to: Option<Box<Node>>,
    },
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
    Not(Box<Node>),
    Negative(Box<Node>),
    Binary {
        sign: Binary,
        left: Box<Node>,
        right: Box<Node>,
    },
    If {
        condition: Box<Node>,
        yes: Box<Node>,
        no: Box<Node>,
    },
    Filter {
        filter: &'static Filter,
        of: Box<Node>,
        arguments: Vec<Node>,
    },
    Test {
        test: &'static Test,
        of: Box<Node>,
        arguments: Vec<Node>,
    },
}

/// An operator between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Join,
    Multiply,
    Divide,
    DivideWhole,
    Remainder,
}

impl Binary {
    /// How it is written, and how tightly it binds.
    const ALL: [(&'static str, Self, u8); 16] = [
        ("or", Self::Or, OR),
        ("and", Self::And, AND),
        ("==", Self::Equal, COMPARISON),
        ("!=", Self::Unequal, COMPARISON),
        ("<", Self::Less, COMPARISON),
        ("<=", Self::LessOrEqual, COMPARISON),
        (">", Self::Greater, COMPARISON),
        (">=", Self::GreaterOrEqual, COMPARISON),
        ("in", Self::In, COMPARISON),
        ("+", Self::Add, SUM),
        ("-", Self::Subtract, SUM),
        ("~", Self::Join, SUM + 1),
        ("*", Self::Multiply, PRODUCT),
        ("/", Self::Divide, PRODUCT),
        ("//", Self::DivideWhole, PRODUCT),
        ("%", Self::Remainder, PRODUCT),
    ];

    /// How it is written.
    pub(super) fn sign(self) -> &'static str {
        Self::ALL.iter().find(|(_, binary, _)| *binary == self).map_or("", |(sign, _, _)| sign)
    }
}

const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const COMPARISON: u8 = 4;
const SUM: u8 = 5;
const PRODUCT: u8 = 7;

/// Parses one expression.
///
/// # Errors
/// A sentence about what is not allowed in it.
pub(super) fn parse(source: &str) -> Result<Node, String> {
    let mut parser = Parser { tokens: tokens(source)?, at: 0, nesting: 0 };
    let node = parser.choice()?;
    match parser.peek() {
        None => Ok(node),
        Some(token) => Err(format!("{} is not expected here", shown(token))),
    }
}

fn shown(token: &Token<'_>) -> String {
    match token {
        Token::Word(word) => (*word).to_owned(),
        Token::Number(number) => number.to_string(),
        Token::Text(_) => "a string".into(),
        Token::Sign(sign) => (*sign).to_owned(),
    }
}

struct Parser<'s> {
    tokens: Vec<Token<'s>>,
    at: usize,
    nesting: usize,
}

impl<'s> Parser<'s> {
    fn peek(&self) -> Option<&Token<'s>> {
        self.tokens.get(self.at)
    }

    /// Takes the sign or word if it comes next.
    fn take(&mut self, wanted: &str) -> bool {
        let found = match self.peek() {
            Some(Token::Word(word)) => *word == wanted,
            Some(Token::Sign(sign)) => *sign == wanted,
            _ => false,
        };
        self.at += usize::from(found);
        found
    }

    fn require(&mut self, wanted: &str) -> Result<(), String> {
        if self.take(wanted) {
            return Ok(());
        }
        let found = self.peek().map_or_else(|| "the end".to_owned(), shown);
        Err(format!("{wanted} is expected instead of {found}"))
    }

    fn word(&mut self) -> Result<&'s str, String> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let word = *word;
                self.at += 1;
                Ok(word)
            }
            other => {
                let found = other.map_or_else(|| "the end".to_owned(), shown);
                Err(format!("a name is expected instead of {found}"))
            }
        }
    }

    /// `yes if condition else no`, and everything that binds more tightly.
    fn choice(&mut self) -> Result<Node, String> {
        let yes = self.binary(OR)?;
        if !self.take("if") {
            return Ok(yes);
        }
        let condition = Box::new(self.binary(OR)?);
        self.require("else")?;
        Ok(Node::If { condition, yes: Box::new(yes), no: Box::new(self.choice()?) })
    }

    fn binary(&mut self, least: u8) -> Result<Node, String> {
        let mut left = if least <= NOT && self.take("not") {
            Node::Not(Box::new(self.binary(NOT)?))
        } else {
            self.filtered()?
        };
        let mut compared = false;
        while let Some((sign, binds, negated)) = self.operator().filter(|(_, binds, _)| *binds >= least) {
            if binds == COMPARISON && std::mem::replace(&mut compared, true) {
                return Err("compare two values at a time, joined by and".into());
            }
            self.at += 1 + usize::from(negated);
            let right = Box::new(self.binary(binds + 1)?);
            left = Node::Binary { sign, left: Box::new(left), right };
            if negated {
                left = Node::Not(Box::new(left));
            }
        }
        Ok(left)
    }

    /// The operator that comes next, how tightly it binds, and whether it is `not in`.
    fn operator(&self) -> Option<(Binary, u8, bool)> {
        let text = match self.peek()? {
            Token::Word("not") if self.tokens.get(self.at + 1) == Some(&Token::Word("in")) => {
                return Some((Binary::In, COMPARISON, true));
            }
            Token::Word(word) => *word,
            Token::Sign(sign) => sign,
            _ => return None,
        };
        let known = Binary::ALL.iter().find(|(sign, _, _)| *sign == text);
        known.map(|(_, sign, binds)| (*sign, *binds, false))
    }

    /// A value with its filters and tests.
    fn filtered(&mut self) -> Result<Node, String> {
        let mut of = self.unary()?;
        loop {
            if self.take("|") {
                let filter = filters::filter(self.word()?)?;
                let arguments = self.arguments(filter.name, filter.arguments)?;
                of = Node::Filter { filter, of: Box::new(of), arguments };
            } else if self.take("is") {
                let negated = self.take("not");
                let test = filters::test(self.word()?)?;
                let arguments = self.arguments(test.name, (test.arguments, test.arguments))?;
                of = Node::Test { test, of: Box::new(of), arguments };
                if negated {
                    of = Node::Not(Box::new(of));
                }
            } else {
                return Ok(of);
            }
        }
    }

    fn arguments(&mut self, name: &str, (least, most): (usize, usize)) -> Result<Vec<Node>, String> {
        let arguments = if self.take("(") { self.list(")")? } else { Vec::new() };
        if (least..=most).contains(&arguments.len()) {
            return Ok(arguments);
        }
        let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
        Err(format!("{name} takes {wanted} arguments, not {}", arguments.len()))
    }

    fn unary(&mut self) -> Result<Node, String> {
        if self.take("-") {
            return Ok(Node::Negative(Box::new(self.unary()?)));
        }
        let mut of = self.primary()?;
        loop {
            if self.take(".") {
                let key = Box::new(Node::Constant(self.word()?.into()));
                of = Node::Member { of: Box::new(of), key };
            } else if self.take("[") {
                of = self.within(|parser| parser.index(of))?;
            } else {
                return Ok(of);
            }
        }
    }

    /// What stands between `[` and `]` after a value.
    fn index(&mut self, of: Node) -> Result<Node, String> {
        let of = Box::new(of);
        let from = if self.take(":") { None } else { Some(Box::new(self.choice()?)) };
        let key = match from {
            Some(key) if !self.take(":") => {
                self.require("]")?;
                return Ok(Node::Member { of, key });
            }
            from => from,
        };
        let to = if self.take("]") { None } else { Some(Box::new(self.choice()?)) };
        if to.is_some() {
            self.require("]")?;
        }
        Ok(Node::Slice { of, from: key, to })
    }

    fn within(&mut self, parse: impl FnOnce(&mut Self) -> Result<Node, String>) -> Result<Node, String> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(format!("an expression has at most {NESTING_MAX} brackets within brackets"));
        }
        let node = parse(self);
        self.nesting -= 1;
        node
    }

    fn primary(&mut self) -> Result<Node, String> {
        let Some(token) = self.peek().cloned() else { return Err("a value is expected at the end".into()) };
        self.at += 1;
        match token {
            Token::Number(number) => Ok(Node::Constant(number.into())),
            Token::Text(text) => Ok(Node::Constant(text.into())),
            Token::Word(word) => self.named(word),
            Token::Sign("(") => self.within(|parser| {
                let node = parser.choice()?;
                parser.require(")").map(|()| node)
            }),
            Token::Sign("[") => self.within(|parser| parser.list("]").map(Node::List)),
            Token::Sign("{") => self.within(Self::object),
            sign => Err(format!("a value is expected instead of {}", shown(&sign))),
        }
    }

    fn named(&mut self, word: &str) -> Result<Node, String> {
        Ok(match word {
            "true" | "True" => Node::Constant(true.into()),
            "false" | "False" => Node::Constant(false.into()),
            "null" | "none" | "None" => Node::Constant(Value::Null),
            names::OPERATION => Node::Operation,
            names::STEPS => {
                let advice = "write steps[N] with a literal number N";
                let number = match self.tokens.get(self.at + 1) {
                    Some(Token::Number(number)) if self.peek() == Some(&Token::Sign("[")) => number.as_u64(),
                    _ => return Err(advice.into()),
                };
                let number = number.and_then(|number| u32::try_from(number).ok()).ok_or(advice)?;
                self.at += 2;
                self.require("]").map_err(|_| advice)?;
                Node::Step(number)
            }
            word => return Err(names::unknown(word)),
        })
    }

    /// Values up to the closing sign, with commas between them.
    fn list(&mut self, closing: &str) -> Result<Vec<Node>, String> {
        let mut items = Vec::new();
        while !self.take(closing) {
            if !items.is_empty() {
                self.require(",")?;
            }
            items.push(self.choice()?);
        }
        Ok(items)
    }

    fn object(&mut self) -> Result<Node, String> {
        let mut fields = Vec::new();
        while !self.take("}") {
            if !fields.is_empty() {
                self.require(",")?;
            }
            let Some(Token::Text(key)) = self.peek().cloned() else {
                return Err("the keys of an object are texts in quotes".into());
            };
            self.at += 1;
            self.require(":")?;
            fields.push((key, self.choice()?));
        }
        Ok(Node::Object(fields))
    }
}

/// An object with one value a key.
pub(super) fn object(fields: impl IntoIterator<Item = (String, Value)>) -> Value {
    Value::Object(fields.into_iter().collect::<Map<_, _>>())
}
