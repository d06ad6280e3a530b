//! Tokens into nodes.

use std::fmt;

use super::funcs;
use super::lex::{self, Token, TokenKind as T};

/// A part of a template.
#[derive(Clone, Debug)]
pub enum Node {
    Text(String),
    Action(Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    Range(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    /// A template that does not exist, as none can be defined: its name and place.
    Template(String, usize),
    Break,
    Continue,
}

/// Commands joined by `|`, and the variables that take the result.
#[derive(Clone, Debug, Default)]
pub struct Pipe {
    pub at: usize,
    pub variables: Vec<String>,
    pub assigns: bool,
    pub commands: Vec<Command>,
}

/// A function or value with arguments.
#[derive(Clone, Debug)]
pub struct Command {
    pub at: usize,
    pub words: Vec<Operand>,
}

/// A value, or a function's name.
#[derive(Clone, Debug)]
pub struct Operand {
    pub at: usize,
    pub kind: OperandKind,
}

/// What an operand is.
#[derive(Clone, Debug)]
pub enum OperandKind {
    Dot,
    Nil,
    Bool(bool),
    Number(String),
    Text(String, String),
    Character(String, i64),
    Fields(Vec<String>),
    Variable(String, Vec<String>),
    Function(String),
    Pipe(Box<Pipe>),
    Chain(Box<Operand>, Vec<String>),
}

/// Parses a whole template.
pub fn parse(text: &str) -> Result<Vec<Node>, String> {
    let mut parser =
        Parser { text, tokens: lex::tokens(text), next: 0, variables: vec!["$".into()], loops: 0 };
    let (nodes, end) = parser.list()?;
    match end {
        Ended::Text => Ok(nodes),
        Ended::End => parser.fail("unexpected {{end}}"),
        Ended::Else => parser.fail("unexpected {{else}}"),
    }
}

/// Whether `.NAME` is used anywhere.
pub fn uses(nodes: &[Node], name: &str) -> bool {
    nodes.iter().any(|node| match node {
        Node::Action(pipe) => pipe_uses(pipe, name),
        Node::If(pipe, body, other)
        | Node::Range(pipe, body, other)
        | Node::With(pipe, body, other) => {
            pipe_uses(pipe, name) || uses(body, name) || uses(other, name)
        }
        Node::Text(_) | Node::Template(..) | Node::Break | Node::Continue => false,
    })
}

fn pipe_uses(pipe: &Pipe, name: &str) -> bool {
    pipe.commands.iter().any(|command| {
        // JSON of everything has it, too.
        let is_json =
            matches!(&command.words[0].kind, OperandKind::Function(function) if function == "json");
        let whole = |operand: &Operand| matches!(operand.kind, OperandKind::Dot);
        is_json && command.words.iter().any(whole)
            || command.words.iter().any(|operand| operand_uses(operand, name))
    })
}

fn operand_uses(operand: &Operand, name: &str) -> bool {
    match &operand.kind {
        OperandKind::Fields(fields) | OperandKind::Variable(_, fields) => {
            fields.first().is_some_and(|first| first == name)
        }
        OperandKind::Pipe(pipe) => pipe_uses(pipe, name),
        OperandKind::Chain(inner, _) => operand_uses(inner, name),
        _ => false,
    }
}

enum Ended {
    Text,
    End,
    Else,
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    next: usize,
    variables: Vec<String>,
    loops: usize,
}

impl Parser<'_> {
    fn fail<R>(&self, message: &str) -> Result<R, String> {
        let at = self.tokens[self.next.saturating_sub(1)].at.min(self.text.len());
        Err(format!("template: :{}: {message}", 1 + self.text[..at].matches('\n').count()))
    }

    fn take(&mut self) -> Token {
        let token = self.tokens[self.next].clone();
        if self.next + 1 < self.tokens.len() {
            self.next += 1;
        }
        token
    }

    fn peek(&self) -> &T {
        &self.tokens[self.next].kind
    }

    fn skip_space(&mut self) {
        while *self.peek() == T::Space {
            self.next += 1;
        }
    }

    fn unexpected<R>(&self, token: &Token, context: &str) -> Result<R, String> {
        let shown = match &token.kind {
            T::End => return self.fail("unexpected EOF"),
            T::Error(message) => return Err(message.clone()),
            T::Close => "\"}}\"".to_owned(),
            kind => crate::go::quote(&source(kind)),
        };
        let shown = match &token.kind {
            T::Word(word) if is_keyword(word) => format!("<{word}>"),
            _ => shown,
        };
        self.fail(&format!("unexpected {shown} in {context}"))
    }

    /// Nodes up to `{{end}}`, `{{else}}` or the end of the text.
    fn list(&mut self) -> Result<(Vec<Node>, Ended), String> {
        let mut nodes = Vec::new();
        loop {
            let token = self.take();
            match token.kind {
                T::Text(text) => nodes.push(Node::Text(text)),
                T::End => return Ok((nodes, Ended::Text)),
                T::Open => {
                    self.skip_space();
                    match self.peek() {
                        T::Word(word) if word == "end" => {
                            self.take();
                            self.close("end")?;
                            return Ok((nodes, Ended::End));
                        }
                        T::Word(word) if word == "else" => {
                            self.take();
                            return Ok((nodes, Ended::Else));
                        }
                        _ => nodes.push(self.action()?),
                    }
                }
                _ => return self.unexpected(&token, "input"),
            }
        }
    }

    fn close(&mut self, context: &str) -> Result<(), String> {
        self.skip_space();
        let token = self.take();
        if token.kind == T::Close { Ok(()) } else { self.unexpected(&token, context) }
    }

    fn action(&mut self) -> Result<Node, String> {
        let word = match self.peek() {
            T::Word(word) => word.clone(),
            _ => String::new(),
        };
        match word.as_str() {
            "if" | "with" | "range" => {
                self.take();
                self.control(&word)
            }
            "break" | "continue" => {
                self.take();
                self.close(&word)?;
                if self.loops == 0 {
                    return self.fail(&format!("{{{{{word}}}}} outside {{{{range}}}}"));
                }
                Ok(if word == "break" { Node::Break } else { Node::Continue })
            }
            "template" => {
                self.take();
                self.skip_space();
                let token = self.take();
                let T::Quoted(_, name) = token.kind else {
                    return self.unexpected(&token, "template clause");
                };
                self.skip_space();
                if *self.peek() != T::Close {
                    self.pipe("template clause", &T::Close)?;
                } else {
                    self.take();
                }
                Ok(Node::Template(name, token.at))
            }
            "define" | "block" => self.fail(&format!("unexpected <{word}> in command")),
            _ => Ok(Node::Action(self.pipe("command", &T::Close)?)),
        }
    }

    fn control(&mut self, word: &str) -> Result<Node, String> {
        let outer = self.variables.len();
        let pipe = self.pipe(word, &T::Close)?;
        self.loops += usize::from(word == "range");
        let (body, ended) = self.list()?;
        self.loops -= usize::from(word == "range");
        let other = match ended {
            Ended::Text => return self.fail("unexpected EOF"),
            Ended::End => Vec::new(),
            Ended::Else => self.otherwise(word)?,
        };
        self.variables.truncate(outer);
        Ok(match word {
            "if" => Node::If(pipe, body, other),
            "with" => Node::With(pipe, body, other),
            _ => Node::Range(pipe, body, other),
        })
    }

    /// After `else`: another condition that shares our `end`, or a plain body.
    fn otherwise(&mut self, word: &str) -> Result<Vec<Node>, String> {
        self.skip_space();
        match self.peek() {
            T::Word(next) if next == word && word != "range" => {
                self.take();
                return Ok(vec![self.control(word)?]);
            }
            _ => self.close("else")?,
        }
        match self.list()? {
            (nodes, Ended::End) => Ok(nodes),
            (_, Ended::Else) => self.fail("expected end; found {{else}}"),
            (_, Ended::Text) => self.fail("unexpected EOF"),
        }
    }

    fn pipe(&mut self, context: &str, end: &T) -> Result<Pipe, String> {
        self.skip_space();
        let mut pipe = Pipe { at: self.tokens[self.next].at, ..Pipe::default() };
        self.declarations(&mut pipe, context)?;
        loop {
            self.skip_space();
            let at = self.tokens[self.next].at;
            let kind = self.peek().clone();
            if kind == *end {
                self.take();
                if pipe.commands.is_empty() {
                    return self.fail(&format!("missing value for {context}"));
                }
                for (index, command) in pipe.commands.iter().enumerate().skip(1) {
                    let constant = matches!(
                        command.words[0].kind,
                        OperandKind::Bool(_)
                            | OperandKind::Dot
                            | OperandKind::Nil
                            | OperandKind::Number(_)
                            | OperandKind::Text(..)
                    );
                    if constant {
                        let stage = index + 1;
                        return self
                            .fail(&format!("non executable command in pipeline stage {stage}"));
                    }
                }
                self.variables.extend(pipe.variables.iter().filter(|_| !pipe.assigns).cloned());
                return Ok(pipe);
            }
            match kind {
                T::Word(_)
                | T::Field(_)
                | T::Dot
                | T::Variable(_)
                | T::Number(_)
                | T::Quoted(..)
                | T::Character(..)
                | T::LeftParen => {
                    let command = Command { at, words: self.command(end)? };
                    pipe.commands.push(command);
                }
                _ => {
                    let token = self.take();
                    return self.unexpected(&token, context);
                }
            }
        }
    }

    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Result<(), String> {
        let start = self.next;
        let mut names = Vec::new();
        while let T::Variable(name) = self.peek().clone() {
            self.take();
            self.skip_space();
            names.push(name);
            match self.peek() {
                T::Declare | T::Assign => {
                    pipe.assigns = *self.peek() == T::Assign;
                    self.take();
                    if pipe.assigns
                        && let Some(name) = names.iter().find(|name| !self.variables.contains(name))
                    {
                        let message = format!("undefined variable {}", crate::go::quote(name));
                        return self.fail(&message);
                    }
                    pipe.variables = names;
                    return Ok(());
                }
                T::Comma if context == "range" && names.len() < 2 => {
                    self.take();
                    self.skip_space();
                }
                _ => break,
            }
        }
        self.next = start;
        Ok(())
    }

    fn command(&mut self, end: &T) -> Result<Vec<Operand>, String> {
        let mut words = Vec::new();
        loop {
            self.skip_space();
            if let Some(operand) = self.operand()? {
                words.push(operand);
            }
            let token = self.take();
            match token.kind {
                T::Space => {}
                ref kind if kind == end => {
                    self.next -= 1;
                    break;
                }
                T::Pipe => {
                    self.skip_space();
                    if *self.peek() == *end {
                        return self.fail("missing value for command");
                    }
                    break;
                }
                _ => return self.unexpected(&token, "operand"),
            }
        }
        if words.is_empty() { self.fail("empty command") } else { Ok(words) }
    }

    fn operand(&mut self) -> Result<Option<Operand>, String> {
        let Some(mut operand) = self.term()? else { return Ok(None) };
        let at = self.tokens[self.next].at;
        let mut fields = Vec::new();
        while let T::Field(name) = self.peek().clone() {
            self.take();
            fields.push(name);
        }
        if fields.is_empty() {
            return Ok(Some(operand));
        }
        operand = match operand.kind {
            OperandKind::Fields(mut first) => {
                first.extend(fields);
                Operand { at, kind: OperandKind::Fields(first) }
            }
            OperandKind::Variable(name, mut first) => {
                first.extend(fields);
                Operand { at, kind: OperandKind::Variable(name, first) }
            }
            OperandKind::Bool(_)
            | OperandKind::Number(_)
            | OperandKind::Text(..)
            | OperandKind::Nil
            | OperandKind::Dot => {
                return self.fail(&format!(
                    "unexpected . after term {}",
                    crate::go::quote(&operand.to_string())
                ));
            }
            kind => Operand {
                at,
                kind: OperandKind::Chain(Box::new(Operand { at: operand.at, kind }), fields),
            },
        };
        Ok(Some(operand))
    }

    fn term(&mut self) -> Result<Option<Operand>, String> {
        let token = self.tokens[self.next].clone();
        let kind = match token.kind {
            T::Word(name) => match name.as_str() {
                "true" | "false" => OperandKind::Bool(name == "true"),
                "nil" => OperandKind::Nil,
                _ if is_keyword(&name) => {
                    self.take();
                    return self.fail(&format!("unexpected <{name}> in operand"));
                }
                _ => {
                    self.take();
                    if !funcs::exists(&name) {
                        return self
                            .fail(&format!("function {} not defined", crate::go::quote(&name)));
                    }
                    return Ok(Some(Operand { at: token.at, kind: OperandKind::Function(name) }));
                }
            },
            T::Dot => OperandKind::Dot,
            T::Field(name) => OperandKind::Fields(vec![name]),
            T::Variable(name) => {
                if !self.variables.contains(&name) {
                    self.take();
                    return self.fail(&format!("undefined variable {}", crate::go::quote(&name)));
                }
                OperandKind::Variable(name, Vec::new())
            }
            T::Number(number) => OperandKind::Number(number),
            T::Quoted(source, value) => OperandKind::Text(source, value),
            T::Character(source, value) => OperandKind::Character(source, value),
            T::LeftParen => {
                self.take();
                let pipe = self.pipe("parenthesized pipeline", &T::RightParen)?;
                return Ok(Some(Operand { at: pipe.at, kind: OperandKind::Pipe(Box::new(pipe)) }));
            }
            _ => return Ok(None),
        };
        self.take();
        Ok(Some(Operand { at: token.at, kind }))
    }
}

fn is_keyword(word: &str) -> bool {
    matches!(
        word,
        "if" | "else"
            | "end"
            | "range"
            | "with"
            | "define"
            | "block"
            | "template"
            | "break"
            | "continue"
    )
}

fn source(kind: &T) -> String {
    match kind {
        T::Text(text) | T::Word(text) | T::Number(text) | T::Variable(text) => text.clone(),
        T::Quoted(source, _) | T::Character(source, _) => source.clone(),
        T::Field(name) => format!(".{name}"),
        T::Open => "{{".into(),
        T::Close => "}}".into(),
        T::Space => " ".into(),
        T::Dot => ".".into(),
        T::LeftParen => "(".into(),
        T::RightParen => ")".into(),
        T::Pipe => "|".into(),
        T::Comma => ",".into(),
        T::Assign => "=".into(),
        T::Declare => ":=".into(),
        T::Other(character) => character.to_string(),
        T::End => "EOF".into(),
        T::Error(message) => message.clone(),
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chain = |out: &mut fmt::Formatter<'_>, fields: &[String]| {
            fields.iter().try_for_each(|field| write!(out, ".{field}"))
        };
        match &self.kind {
            OperandKind::Dot => out.write_str("."),
            OperandKind::Nil => out.write_str("nil"),
            OperandKind::Bool(value) => write!(out, "{value}"),
            OperandKind::Number(text)
            | OperandKind::Text(text, _)
            | OperandKind::Character(text, _) => out.write_str(text),
            OperandKind::Fields(fields) => chain(out, fields),
            OperandKind::Variable(name, fields) => {
                out.write_str(name)?;
                chain(out, fields)
            }
            OperandKind::Function(name) => out.write_str(name),
            OperandKind::Pipe(pipe) => write!(out, "({pipe})"),
            OperandKind::Chain(inner, fields) => {
                write!(out, "{inner}")?;
                chain(out, fields)
            }
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words.iter().enumerate() {
            if index > 0 {
                out.write_str(" ")?;
            }
            write!(out, "{word}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            write!(
                out,
                "{} {} ",
                self.variables.join(", "),
                if self.assigns { "=" } else { ":=" }
            )?;
        }
        for (index, command) in self.commands.iter().enumerate() {
            if index > 0 {
                out.write_str(" | ")?;
            }
            write!(out, "{command}")?;
        }
        Ok(())
    }
}
