//! From the text of a template to its tree.

use super::{Block, Expression, Function, Kind, Node, Template, TemplateError, wrong};
use serde_json::Value;
use std::iter::Peekable;
use std::str::FromStr;
use std::vec::IntoIter;

/// How deep blocks and parentheses may stand in one another, and how long a pipeline may be there.
const DEPTH_MAX: usize = 30;

/// A piece of a template.
enum Piece {
    Text(String),
    /// What stands in `{{…}}`, and where.
    Action(usize, Vec<(usize, Token)>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Path { from_root: bool, fields: Vec<String> },
    Literal(Value),
    Pipe,
    Open,
    Close,
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let pieces = Lexer { chars: text.chars().collect(), at: 0 }.pieces()?;
        let (nodes, stop) = Parser { pieces: pieces.into_iter() }.nodes(0)?;
        match stop {
            Stop::OfTemplate => Ok(Self { nodes }),
            Stop::End(column) => wrong(column, "`end` without `if` or `range`"),
            Stop::Else(column, _) => wrong(column, "`else` without `if` or `range`"),
        }
    }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn pieces(mut self) -> Result<Vec<Piece>, TemplateError> {
        let mut pieces = Vec::new();
        let mut trims = false;
        loop {
            let text: String = self.until_action();
            let text = if trims { text.trim_start() } else { &text };
            if self.at == self.chars.len() {
                pieces.push(Piece::Text(text.to_owned()));
                return Ok(pieces);
            }
            let column = self.column();
            self.at += 2;
            let trims_before = self.looks_at("-") && self.peek(1).is_some_and(char::is_whitespace);
            self.at += usize::from(trims_before);
            pieces.push(Piece::Text(if trims_before { text.trim_end() } else { text }.to_owned()));
            let tokens;
            (tokens, trims) = self.action(column)?;
            pieces.push(Piece::Action(column, tokens));
        }
    }

    fn until_action(&mut self) -> String {
        let from = self.at;
        while self.at < self.chars.len() && !self.looks_at("{{") {
            self.at += 1;
        }
        self.chars[from..self.at].iter().collect()
    }

    /// The rest of an action, and whether it trims the text behind it.
    fn action(&mut self, column: usize) -> Result<(Vec<(usize, Token)>, bool), TemplateError> {
        let mut tokens = Vec::new();
        loop {
            self.take_while(char::is_whitespace);
            let trims = self.looks_at("-}}");
            if trims || self.looks_at("}}") {
                self.at += if trims { 3 } else { 2 };
                return Ok((tokens, trims));
            }
            let here = self.column();
            let Some(c) = self.peek(0) else { return wrong(column, "`{{` without `}}`") };
            tokens.push((here, self.token(c)?));
        }
    }

    fn token(&mut self, first: char) -> Result<Token, TemplateError> {
        let column = self.column();
        match first {
            '|' | '(' | ')' => {
                self.at += 1;
                Ok(match first {
                    '|' => Token::Pipe,
                    '(' => Token::Open,
                    _ => Token::Close,
                })
            }
            '.' | '$' => self.path(first == '$'),
            '"' | '`' => self.text(first),
            '-' | '0'..='9' => {
                self.at += 1;
                let digits = self.take_while(|c| c.is_ascii_alphanumeric() || c == '.');
                let number = format!("{first}{digits}");
                let Ok(number) = number.parse::<i64>() else {
                    return wrong(column, format!("{number} is not a whole number"));
                };
                Ok(Token::Literal(number.into()))
            }
            _ if is_of_name(first) => Ok(match self.take_while(is_of_name).as_str() {
                "true" => Token::Literal(true.into()),
                "false" => Token::Literal(false.into()),
                word => Token::Word(word.to_owned()),
            }),
            _ => wrong(column, format!("{first:?} is not expected here")),
        }
    }

    /// `.`, `.A.B`, `$`, `$.A`
    fn path(&mut self, from_root: bool) -> Result<Token, TemplateError> {
        let column = self.column();
        self.at += usize::from(from_root);
        let mut fields = Vec::new();
        while self.looks_at(".") {
            self.at += 1;
            let field = self.take_while(is_of_name);
            if field.is_empty() {
                // The dot alone.
                if !from_root && fields.is_empty() && !self.looks_at(".") {
                    break;
                }
                return wrong(column, "a field has no name");
            }
            fields.push(field);
        }
        if self.peek(0).is_some_and(is_of_name) {
            return wrong(column, "variables are not known here");
        }
        Ok(Token::Path { from_root, fields })
    }

    /// A text in quotes.
    fn text(&mut self, quote: char) -> Result<Token, TemplateError> {
        let column = self.column();
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek(0) {
            self.at += 1;
            match c {
                _ if c == quote => return Ok(Token::Literal(text.into())),
                '\\' if quote == '"' => {
                    let escaped = self.peek(0);
                    self.at += 1;
                    text.push(match escaped {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some(c @ ('"' | '\\')) => c,
                        _ => return wrong(self.at, "only \\n, \\t, \\\" and \\\\ are known"),
                    });
                }
                _ => text.push(c),
            }
        }
        wrong(column, "a text that does not end")
    }

    fn column(&self) -> usize {
        self.at + 1
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn looks_at(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(ahead, c)| self.peek(ahead) == Some(c))
    }

    fn take_while(&mut self, takes: impl Fn(char) -> bool) -> String {
        let from = self.at;
        while self.peek(0).is_some_and(&takes) {
            self.at += 1;
        }
        self.chars[from..self.at].iter().collect()
    }
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

type Tokens = Peekable<IntoIter<(usize, Token)>>;

/// What the nodes of a block end with.
enum Stop {
    OfTemplate,
    End(usize),
    Else(usize, Tokens),
}

struct Parser {
    pieces: IntoIter<Piece>,
}

impl Parser {
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, Stop), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (column, tokens) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(column, tokens) => (column, tokens),
            };
            let mut tokens = tokens.into_iter().peekable();
            let word = match tokens.peek() {
                Some((_, Token::Word(word))) => word.as_str(),
                _ => "",
            };
            let block = match word {
                "if" => Block::If,
                "range" => Block::Range,
                "end" | "else" => {
                    let is_end = word == "end";
                    tokens.next();
                    return Ok((nodes, if is_end { ended(tokens, column)? } else { Stop::Else(column, tokens) }));
                }
                _ => {
                    nodes.push(Node::Shown(expression(tokens, column, depth)?));
                    continue;
                }
            };
            tokens.next();
            nodes.push(self.block(block, (column, tokens), depth + 1)?);
        }
        Ok((nodes, Stop::OfTemplate))
    }

    /// A block, from what stands behind its word on.
    fn block(&mut self, kind: Block, head: (usize, Tokens), depth: usize) -> Result<Node, TemplateError> {
        let (column, tokens) = head;
        let over = expression(tokens, column, depth)?;
        let (body, stop) = self.nodes(depth)?;
        let otherwise = match stop {
            Stop::OfTemplate => return wrong(column, "a block without `{{end}}`"),
            Stop::End(_) => Vec::new(),
            Stop::Else(column, mut tokens) => match tokens.next() {
                // Its end is the end of all.
                Some((_, Token::Word(word))) if word == "if" => {
                    vec![self.block(Block::If, (column, tokens), depth + 1)?]
                }
                Some((column, _)) => return wrong(column, "only `if` may stand behind `else`"),
                None => match self.nodes(depth)? {
                    (otherwise, Stop::End(_)) => otherwise,
                    (_, Stop::Else(column, _)) => return wrong(column, "a second `else`"),
                    (_, Stop::OfTemplate) => return wrong(column, "a block without `{{end}}`"),
                },
            },
        };
        Ok(Node::Block { kind, over, body, otherwise })
    }
}

fn ended(mut tokens: Tokens, column: usize) -> Result<Stop, TemplateError> {
    match tokens.next() {
        None => Ok(Stop::End(column)),
        Some((column, _)) => wrong(column, "nothing may stand behind `end`"),
    }
}

/// All of an action as one expression.
fn expression(mut tokens: Tokens, column: usize, depth: usize) -> Result<Expression, TemplateError> {
    let whole = pipeline(&mut tokens, column, depth)?;
    match tokens.next() {
        None => Ok(whole),
        Some((column, _)) => wrong(column, "`)` without `(`"),
    }
}

/// `A | f B`: to each function the value before it is the last argument.
fn pipeline(tokens: &mut Tokens, column: usize, depth: usize) -> Result<Expression, TemplateError> {
    if depth > DEPTH_MAX {
        return wrong(column, "nested too deep");
    }
    let mut value = command(tokens, column, depth, None)?;
    let mut stages = 0;
    while let Some((column, _)) = tokens.next_if(|(_, token)| *token == Token::Pipe) {
        stages += 1;
        if depth + stages > DEPTH_MAX {
            return wrong(column, "nested too deep");
        }
        value = command(tokens, column, depth, Some(value))?;
    }
    Ok(value)
}

/// A function with its arguments, or a value alone.
fn command(
    tokens: &mut Tokens,
    column: usize,
    depth: usize,
    piped: Option<Expression>,
) -> Result<Expression, TemplateError> {
    let is_last = |token: &Token| matches!(token, Token::Pipe | Token::Close);
    if let Some((column, Token::Word(name))) = tokens.next_if(|(_, token)| matches!(token, Token::Word(_))) {
        let known = Function::ALL.iter().find(|(known, ..)| *known == name);
        let Some(&(_, function, least, most)) = known else {
            let known = Function::ALL.map(|(known, ..)| known).join(" ");
            return wrong(column, format!("no such function: {name}; there are {known}, and if, range, else, end"));
        };
        let mut arguments = Vec::new();
        while tokens.peek().is_some_and(|(_, token)| !is_last(token)) {
            arguments.push(term(tokens, column, depth)?);
        }
        arguments.extend(piped);
        if arguments.len() < least || arguments.len() > most {
            let takes = if least == most { least.to_string() } else { format!("at least {least}") };
            return wrong(column, format!("{name} takes {takes} and not {} values", arguments.len()));
        }
        return Ok(Expression { column, kind: Kind::Call(function, arguments) });
    }
    if piped.is_some() {
        return wrong(column, "behind `|` there must be a function");
    }
    let value = term(tokens, column, depth)?;
    match tokens.peek() {
        Some((column, token)) if !is_last(token) => wrong(*column, "a value takes no arguments"),
        _ => Ok(value),
    }
}

/// An argument.
fn term(tokens: &mut Tokens, column: usize, depth: usize) -> Result<Expression, TemplateError> {
    let Some((column, token)) = tokens.next() else { return wrong(column, "a value is missing") };
    let kind = match token {
        Token::Literal(value) => Kind::Literal(value),
        Token::Path { from_root, fields } => Kind::Path { from_root, fields },
        Token::Open => {
            let inner = pipeline(tokens, column, depth + 1)?;
            return match tokens.next() {
                Some((_, Token::Close)) => Ok(inner),
                _ => wrong(column, "`(` without `)`"),
            };
        }
        Token::Word(word) => return wrong(column, format!("{word} must stand in parentheses here")),
        Token::Pipe | Token::Close => return wrong(column, "a value is missing"),
    };
    Ok(Expression { column, kind })
}
