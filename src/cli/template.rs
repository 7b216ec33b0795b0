//! The templates of `inspect --format`: of Go's `text/template`, the forms that people use with Docker.
//!
//! They are trees of bounded depth, which a budget of steps evaluates: none runs for ever or panics.

mod parse;

use serde_json::Value;
use std::borrow::Cow;

/// How many steps a template may take: more than any that somebody would write for one function.
const STEPS_MAX: usize = 100_000;
/// How much a template may make, in bytes.
const BYTES_MAX: usize = 16 << 20;

/// A template that is sound as far as can be known without data.
#[derive(Debug, Clone)]
pub(super) struct Template {
    nodes: Vec<Node>,
}

/// Where a template is wrong, and how.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("at column {column}: {what}")]
pub(super) struct TemplateError {
    /// Counted in characters, from 1.
    column: usize,
    what: String,
}

fn wrong<T>(column: usize, what: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError { column, what: what.into() })
}

#[derive(Debug, Clone)]
enum Node {
    Text(String),
    Shown(Expression),
    /// `{{if}}`, `{{range}}`: the body for what holds or for each element, or else the other.
    Block {
        kind: Block,
        over: Expression,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    If,
    Range,
}

#[derive(Debug, Clone)]
struct Expression {
    column: usize,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Literal(Value),
    /// `.A.B`, or with `$` in front of it from the whole.
    Path {
        from_root: bool,
        fields: Vec<String>,
    },
    Call(Function, Vec<Expression>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Json,
    Index,
    Len,
    Join,
    Println,
    Eq,
    Ne,
    Not,
}

impl Template {
    /// What it makes of a value.
    ///
    /// # Errors
    /// When the value is not what it takes it for.
    pub(super) fn render(&self, root: &Value) -> Result<String, TemplateError> {
        let mut rendering = Rendering { root, text: String::new(), steps_left: STEPS_MAX };
        rendering.nodes(&self.nodes, root)?;
        Ok(rendering.text)
    }
}

struct Rendering<'a> {
    root: &'a Value,
    text: String,
    steps_left: usize,
}

impl<'a> Rendering<'a> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), TemplateError> {
        for node in nodes {
            match node {
                Node::Text(text) => self.text += text,
                Node::Shown(expression) => {
                    let value = self.value(expression, dot)?;
                    self.text += &shown(&value);
                }
                Node::Block { kind, over, body, otherwise } => {
                    let value = self.value(over, dot)?.into_owned();
                    match kind {
                        Block::If if holds(&value) => self.nodes(body, dot)?,
                        Block::Range if holds(&value) => self.range(over.column, &value, body)?,
                        Block::If | Block::Range => self.nodes(otherwise, dot)?,
                    }
                }
            }
            if self.text.len() > BYTES_MAX {
                return wrong(1, "the template makes too much");
            }
        }
        Ok(())
    }

    fn range(&mut self, column: usize, value: &Value, body: &[Node]) -> Result<(), TemplateError> {
        match value {
            Value::Array(elements) => elements.iter().try_for_each(|element| self.nodes(body, element)),
            Value::Object(fields) => sorted(fields).iter().try_for_each(|(_, value)| self.nodes(body, value)),
            other => wrong(column, format!("range over {}", kind(other))),
        }
    }

    fn value<'v>(&mut self, expression: &'v Expression, dot: &'v Value) -> Result<Cow<'v, Value>, TemplateError>
    where
        'a: 'v,
    {
        let Expression { column, kind } = expression;
        self.steps_left = self.steps_left.saturating_sub(1);
        if self.steps_left == 0 {
            return wrong(*column, "the template runs for too long");
        }
        match kind {
            Kind::Literal(value) => Ok(Cow::Borrowed(value)),
            Kind::Path { from_root, fields } => {
                let from = if *from_root { self.root } else { dot };
                fields.iter().try_fold(from, |value, name| field(value, name, *column)).map(Cow::Borrowed)
            }
            Kind::Call(function, arguments) => {
                let arguments = arguments.iter().map(|argument| self.value(argument, dot));
                let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
                function.of(&arguments, *column).map(Cow::Owned)
            }
        }
    }
}

/// A field. What is not there is null: a Func leaves out what is not set.
fn field<'v>(value: &'v Value, name: &str, column: usize) -> Result<&'v Value, TemplateError> {
    match value {
        Value::Object(fields) => Ok(fields.get(name).unwrap_or(&Value::Null)),
        Value::Null => Ok(&Value::Null),
        other => wrong(column, format!("{} has no field {name}", kind(other))),
    }
}

impl Function {
    /// The name, and how many arguments there are at least and at most.
    const ALL: [(&'static str, Self, usize, usize); 8] = [
        ("json", Self::Json, 1, 1),
        ("index", Self::Index, 2, usize::MAX),
        ("len", Self::Len, 1, 1),
        ("join", Self::Join, 2, 2),
        ("println", Self::Println, 0, usize::MAX),
        ("eq", Self::Eq, 2, usize::MAX),
        ("ne", Self::Ne, 2, 2),
        ("not", Self::Not, 1, 1),
    ];

    fn of(self, arguments: &[Cow<'_, Value>], column: usize) -> Result<Value, TemplateError> {
        let first = arguments.first().map_or(&Value::Null, Cow::as_ref);
        let rest = arguments.get(1..).unwrap_or_default();
        Ok(match self {
            // Maps of strings and such: it always can be told.
            Self::Json => Value::from(first.to_string()),
            Self::Index => rest.iter().try_fold(first, |value, index| element(value, index, column))?.clone(),
            Self::Len => Value::from(length(first, column)?),
            Self::Join => {
                let separator = rest.first().map(|value| shown(value)).unwrap_or_default();
                match first {
                    Value::Array(elements) => elements.iter().map(shown).collect::<Vec<_>>().join(&separator).into(),
                    Value::Null => Value::from(""),
                    other => return wrong(column, format!("join of {}", kind(other))),
                }
            }
            Self::Println => {
                let words: Vec<String> = arguments.iter().map(|value| shown(value)).collect();
                Value::from(words.join(" ") + "\n")
            }
            Self::Eq => Value::from(rest.iter().any(|value| value.as_ref() == first)),
            Self::Ne => Value::from(rest.iter().all(|value| value.as_ref() != first)),
            Self::Not => Value::from(!holds(first)),
        })
    }
}

fn element<'v>(value: &'v Value, index: &Value, column: usize) -> Result<&'v Value, TemplateError> {
    match (value, index) {
        (Value::Array(elements), Value::Number(number)) => {
            let at = number.as_u64().and_then(|at| usize::try_from(at).ok());
            let element = at.and_then(|at| elements.get(at));
            element.map_or_else(|| wrong(column, format!("index {number} of a list of {}", elements.len())), Ok)
        }
        (Value::Object(_), Value::String(name)) => field(value, name, column),
        (other, index) => wrong(column, format!("{} cannot be indexed by {}", kind(other), kind(index))),
    }
}

fn length(value: &Value, column: usize) -> Result<usize, TemplateError> {
    match value {
        Value::Null => Ok(0),
        Value::String(text) => Ok(text.len()),
        Value::Array(elements) => Ok(elements.len()),
        Value::Object(fields) => Ok(fields.len()),
        Value::Bool(_) | Value::Number(_) => wrong(column, format!("len of {}", kind(value))),
    }
}

/// Whether it holds, as Go has it: what is empty or zero does not.
fn holds(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as Go shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(elements) => format!("[{}]", elements.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields = sorted(fields).into_iter().map(|(name, value)| format!("{name}:{}", shown(value)));
            format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
        }
    }
}

/// Fields in the order in which Go takes those of a map.
fn sorted(fields: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    fields
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "what is not there",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
mod tests;
