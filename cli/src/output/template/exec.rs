//! Nodes on data.

use super::parse::{Command, Node, Operand, OperandKind, Pipe};
use super::{Template, funcs};
use crate::go;
use crate::value::{Record, Value, type_name};

/// Executes a template.
pub fn execute(template: &Template, dot: &Value, strict: bool) -> Result<String, String> {
    let mut state = State {
        template,
        strict,
        out: String::new(),
        variables: vec![("$".into(), dot.clone())],
        header: is_header(dot),
    };
    state.walk(&template.nodes, dot)?;
    Ok(state.out)
}

fn is_header(dot: &Value) -> bool {
    matches!(dot, Value::Record(record) if record.is_header)
}

enum Flow {
    On,
    Break,
    Continue,
}

struct State<'a> {
    template: &'a Template,
    strict: bool,
    out: String,
    variables: Vec<(String, Value)>,
    header: bool,
}

/// A value, or nothing at all (a missing key), which prints `<no value>`.
type Found = Option<Value>;

impl State<'_> {
    fn fail<R>(&self, at: usize, node: &dyn std::fmt::Display, message: &str) -> Result<R, String> {
        let (line, column) = self.template.position(at);
        Err(format!("template: :{line}:{column}: executing \"\" at <{node}>: {message}"))
    }

    fn walk(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, String> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if !matches!(flow, Flow::On) {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    match value {
                        None => self.out.push_str("<no value>"),
                        Some(Value::Nil) if !self.is_typed() => self.out.push_str("<no value>"),
                        Some(value) => self.out.push_str(&value.print()),
                    }
                }
            }
            Node::If(pipe, body, other) => {
                let outer = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let chosen = if value.is_some_and(|value| value.is_true()) { body } else { other };
                let flow = self.walk(chosen, dot);
                self.variables.truncate(outer);
                return flow;
            }
            Node::With(pipe, body, other) => {
                let outer = self.variables.len();
                let flow = match self.pipe(pipe, dot)?.filter(Value::is_true) {
                    Some(value) => self.walk(body, &value),
                    None => self.walk(other, dot),
                };
                self.variables.truncate(outer);
                return flow;
            }
            Node::Range(pipe, body, other) => self.range(pipe, body, other, dot)?,
            Node::Template(name, at) => {
                let shown = format!("{{{{template {}}}}}", go::quote(name));
                return self.fail(
                    *at,
                    &shown,
                    &format!("template {} not defined", go::quote(name)),
                );
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    /// A nil that a typed struct holds prints `<nil>`; one in plain JSON has no value.
    fn is_typed(&self) -> bool {
        matches!(self.variables.first(), Some((_, Value::Record(_))))
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        body: &[Node],
        other: &[Node],
        dot: &Value,
    ) -> Result<(), String> {
        let outer = self.variables.len();
        let value = self.pipe_value(pipe, dot)?;
        let pairs: Vec<(Value, Value)> = match value.unwrap_or_default() {
            Value::List(items) => items
                .into_iter()
                .enumerate()
                .map(|(i, item)| (Value::Int(i as i64), item))
                .collect(),
            Value::Map(map) => {
                let mut entries = map.entries;
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                entries.into_iter().map(|(key, value)| (Value::Text(key), value)).collect()
            }
            Value::Int(count) => {
                (0..count).map(|index| (Value::Int(index), Value::Int(index))).collect()
            }
            Value::Nil | Value::NilList | Value::NilMap => Vec::new(),
            other => {
                return self
                    .fail_pipe(pipe, &format!("range can't iterate over {}", other.print()));
            }
        };
        if pairs.is_empty() {
            self.walk(other, dot)?;
        }
        for (key, item) in pairs {
            let inner = self.variables.len();
            match &pipe.variables[..] {
                [one] => self.variables.push((one.clone(), item.clone())),
                [first, second] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
                _ => {}
            }
            let flow = self.walk(body, &item)?;
            self.variables.truncate(inner);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn fail_pipe<R>(&self, pipe: &Pipe, message: &str) -> Result<R, String> {
        match &pipe.commands[..] {
            [Command { words, .. }] if words.len() == 1 => {
                self.fail(words[0].at, &words[0], message)
            }
            _ => self.fail(pipe.at, pipe, message),
        }
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Found, String> {
        let value = self.pipe_value(pipe, dot)?;
        for name in &pipe.variables {
            let bound = value.clone().unwrap_or_default();
            if pipe.assigns {
                if let Some(slot) = self.variables.iter_mut().rev().find(|(known, _)| known == name)
                {
                    slot.1 = bound;
                }
            } else {
                self.variables.push((name.clone(), bound));
            }
        }
        Ok(value)
    }

    fn pipe_value(&mut self, pipe: &Pipe, dot: &Value) -> Result<Found, String> {
        let mut last: Option<Found> = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.flatten())
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        last: Option<Found>,
    ) -> Result<Found, String> {
        let first = &command.words[0];
        let arguments = &command.words[1..];
        match &first.kind {
            OperandKind::Function(name) => self.call(command, name, first, arguments, dot, last),
            OperandKind::Fields(fields) => {
                self.fields(first, dot.clone(), fields, arguments, dot, last)
            }
            OperandKind::Variable(name, fields) => {
                let value = self.variable(name);
                if fields.is_empty() {
                    self.no_arguments(first, arguments, &last)?;
                    return Ok(Some(value));
                }
                self.fields(first, value, fields, arguments, dot, last)
            }
            OperandKind::Chain(inner, fields) => {
                let value = self.operand(inner, dot)?;
                let Some(value) = value else {
                    return self.fail(first.at, first, "nil pointer evaluating interface {}");
                };
                self.fields(first, value, fields, arguments, dot, last)
            }
            OperandKind::Pipe(pipe) => {
                self.no_arguments(first, arguments, &last)?;
                self.pipe(pipe, dot)
            }
            OperandKind::Nil => self.fail(first.at, first, "nil is not a command"),
            _ => {
                self.no_arguments(first, arguments, &last)?;
                self.operand(first, dot)
            }
        }
    }

    fn no_arguments(
        &self,
        first: &Operand,
        arguments: &[Operand],
        last: &Option<Found>,
    ) -> Result<(), String> {
        if arguments.is_empty() && last.is_none() {
            return Ok(());
        }
        self.fail(first.at, first, &format!("can't give argument to non-function {first}"))
    }

    fn variable(&self, name: &str) -> Value {
        self.variables
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Found, String> {
        Ok(match &operand.kind {
            OperandKind::Dot => Some(dot.clone()),
            OperandKind::Nil => Some(Value::Nil),
            OperandKind::Bool(value) => Some(Value::Bool(*value)),
            OperandKind::Number(text) => Some(match go::parse_int(text, 0, 64) {
                Ok(value) => Value::Int(value),
                Err(_) => Value::Float(text.parse().unwrap_or(0.0)),
            }),
            OperandKind::Text(_, value) => Some(Value::Text(value.clone())),
            OperandKind::Character(_, value) => Some(Value::Int(*value)),
            OperandKind::Fields(_)
            | OperandKind::Variable(..)
            | OperandKind::Function(_)
            | OperandKind::Pipe(_)
            | OperandKind::Chain(..) => {
                let command = Command { at: operand.at, words: vec![operand.clone()] };
                return self.command(&command, dot, None);
            }
        })
    }

    /// `.A.B.C` on a value; arguments go to the last of them.
    fn fields(
        &mut self,
        node: &Operand,
        mut value: Value,
        fields: &[String],
        arguments: &[Operand],
        dot: &Value,
        last: Option<Found>,
    ) -> Result<Found, String> {
        for (index, name) in fields.iter().enumerate() {
            let is_last = index + 1 == fields.len();
            if is_last && (!arguments.is_empty() || last.is_some()) {
                return self.method(node, &value, name, arguments, dot, last);
            }
            match self.field(node, &value, name)? {
                Some(found) => value = found,
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }

    fn field(&self, node: &Operand, value: &Value, name: &str) -> Result<Found, String> {
        match value {
            Value::Record(record) => match record.get(name) {
                Some(found) => Ok(Some(found.clone())),
                None if record.is_header => Ok(None),
                None if name == "Label" && record.labels.is_some() => self.fail(
                    node.at,
                    node,
                    &format!("wrong number of args for {name}: want 1 got 0"),
                ),
                None => self.fail(
                    node.at,
                    node,
                    &format!("can't evaluate field {name} in type {}", record.type_name),
                ),
            },
            Value::Map(map) => match map.get(name) {
                Some(found) => Ok(Some(found.clone())),
                None if self.strict => self.fail(
                    node.at,
                    node,
                    &format!("map has no entry for key {}", go::quote(name)),
                ),
                None => Ok(None),
            },
            Value::NilMap if !self.strict => Ok(None),
            Value::Nil => {
                self.fail(node.at, node, &format!("nil pointer evaluating interface {{}}.{name}"))
            }
            _ if self.strict => self.fail(
                node.at,
                node,
                &format!("can't evaluate field {name} in type interface {{}}"),
            ),
            other => self.fail(
                node.at,
                node,
                &format!("can't evaluate field {name} in type {}", type_name(other)),
            ),
        }
    }

    fn method(
        &mut self,
        node: &Operand,
        value: &Value,
        name: &str,
        arguments: &[Operand],
        dot: &Value,
        last: Option<Found>,
    ) -> Result<Found, String> {
        if let (Value::Record(record), "Label") = (value, name)
            && (record.labels.is_some() || record.is_header)
        {
            let values = self.arguments(arguments, dot, last)?;
            return Ok(Some(label(record, &values)));
        }
        if self.field(node, value, name)?.is_some() || matches!(value, Value::Map(_)) {
            return self.fail(node.at, node, &format!("{name} is not a method but has arguments"));
        }
        Ok(None)
    }

    fn arguments(
        &mut self,
        arguments: &[Operand],
        dot: &Value,
        last: Option<Found>,
    ) -> Result<Vec<Value>, String> {
        let mut values = Vec::new();
        for argument in arguments {
            values.push(self.operand(argument, dot)?.unwrap_or_default());
        }
        if let Some(last) = last {
            values.push(last.unwrap_or_default());
        }
        Ok(values)
    }

    fn call(
        &mut self,
        command: &Command,
        name: &str,
        function: &Operand,
        arguments: &[Operand],
        dot: &Value,
        last: Option<Found>,
    ) -> Result<Found, String> {
        let count = arguments.len() + usize::from(last.is_some());
        if let Err(message) = funcs::check_count(name, count) {
            return self.fail(function.at, function, &message);
        }
        if matches!(name, "and" | "or") {
            return self.short_circuit(name == "and", arguments, dot, last);
        }
        let values = self.arguments(arguments, dot, last)?;
        if let (true, Some(operand), Some(value)) =
            (name == "call", arguments.first(), values.first())
        {
            let message =
                format!("error calling call: non-function {operand} of type {}", type_name(value));
            return self.fail(command.at, command, &message);
        }
        for (index, value) in values.iter().enumerate() {
            let Some(message) = funcs::check_type(name, index, value, arguments.get(index)) else {
                continue;
            };
            match arguments.get(index) {
                Some(argument) => return self.fail(argument.at, argument, &message),
                None => return self.fail(function.at, function, &message),
            }
        }
        if self.header
            && matches!(name, "json" | "split" | "join" | "title" | "lower" | "upper" | "truncate")
        {
            return Ok(values.into_iter().next());
        }
        match funcs::call(name, &values) {
            Ok(value) => Ok(Some(value)),
            Err(message) => {
                self.fail(command.at, command, &format!("error calling {name}: {message}"))
            }
        }
    }

    /// `and` and `or` stop at the first argument that decides.
    fn short_circuit(
        &mut self,
        is_and: bool,
        arguments: &[Operand],
        dot: &Value,
        last: Option<Found>,
    ) -> Result<Found, String> {
        let mut value = Value::Nil;
        for argument in arguments {
            value = self.operand(argument, dot)?.unwrap_or_default();
            if value.is_true() != is_and {
                return Ok(Some(value));
            }
        }
        Ok(Some(last.map_or(value, Option::unwrap_or_default)))
    }
}

fn label(record: &Record, arguments: &[Value]) -> Value {
    let name = arguments.first().map(Value::text).unwrap_or_default();
    if record.is_header {
        return Value::Text(name.rsplit('.').next().unwrap_or(name).replace(['-', '_'], " "));
    }
    let found = record.labels.as_ref().and_then(|labels| labels.get(name));
    found.cloned().unwrap_or_else(|| Value::Text(String::new()))
}
