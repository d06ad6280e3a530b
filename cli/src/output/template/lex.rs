//! Text and the tokens between `{{` and `}}`.

/// A token with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub at: usize,
    pub kind: TokenKind,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenKind {
    Text(String),
    Open,
    Close,
    Space,
    /// `.Name`
    Field(String),
    Dot,
    /// `$name`
    Variable(String),
    Word(String),
    Number(String),
    /// A quoted or raw string: its source and its value.
    Quoted(String, String),
    Character(String, i64),
    LeftParen,
    RightParen,
    Pipe,
    Comma,
    Assign,
    Declare,
    Other(char),
    End,
    /// The text cannot be split further, and why. It counts only if the parser gets this far.
    Error(String),
}

/// Splits a template into tokens.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new(), parens: 0 };
    if let Err(message) = lexer.run() {
        let at = lexer.at;
        lexer.push(at, TokenKind::Error(message));
    }
    lexer.tokens
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
    parens: i32,
}

impl Lexer<'_> {
    fn fail<T>(&self, at: usize, message: &str) -> Result<T, String> {
        let line = 1 + self.text[..at.min(self.text.len())].matches('\n').count();
        Err(format!("template: :{line}: {message}"))
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn push(&mut self, at: usize, kind: TokenKind) {
        self.tokens.push(Token { at, kind });
    }

    fn run(&mut self) -> Result<(), String> {
        let mut trim = false;
        loop {
            let start = self.at;
            let open = self.rest().find("{{").map_or(self.text.len(), |offset| start + offset);
            let mut content = &self.text[start..open];
            if trim {
                content = content.trim_start_matches([' ', '\t', '\r', '\n']);
            }
            let after = self.text.get(open + 2..).unwrap_or("");
            let left_trim =
                after.starts_with("- ") || after.starts_with("-\t") || after.starts_with("-\n");
            if left_trim {
                content = content.trim_end_matches([' ', '\t', '\r', '\n']);
            }
            if !content.is_empty() {
                let content = content.to_owned();
                self.push(start, TokenKind::Text(content));
            }
            if open == self.text.len() {
                self.push(open, TokenKind::End);
                return Ok(());
            }
            self.at = open + 2 + if left_trim { 2 } else { 0 };
            trim = if self.rest().starts_with("/*") {
                self.comment(open)?
            } else {
                self.action(open)?
            };
        }
    }

    fn comment(&mut self, open: usize) -> Result<bool, String> {
        let Some(end) = self.rest().find("*/") else { return self.fail(open, "unclosed comment") };
        self.at += end + 2;
        for (close, trim) in [("}}", false), (" -}}", true)] {
            if self.rest().starts_with(close) {
                self.at += close.len();
                return Ok(trim);
            }
        }
        self.fail(self.at, "comment ends before closing delimiter")
    }

    fn action(&mut self, open: usize) -> Result<bool, String> {
        self.push(open, TokenKind::Open);
        self.parens = 0;
        loop {
            let at = self.at;
            for (close, trim) in [(" -}}", true), ("}}", false)] {
                if self.rest().starts_with(close) {
                    if self.parens > 0 {
                        return self.fail(at, "unclosed left paren");
                    }
                    self.push(at, TokenKind::Close);
                    self.at += close.len();
                    return Ok(trim);
                }
            }
            let Some(first) = self.rest().chars().next() else {
                return self.fail(open, "unclosed action");
            };
            self.token(at, first)?;
        }
    }

    fn token(&mut self, at: usize, first: char) -> Result<(), String> {
        let take = |lexer: &mut Self, length: usize, kind: TokenKind| {
            lexer.push(at, kind);
            lexer.at += length;
            Ok(())
        };
        match first {
            ' ' | '\t' | '\r' | '\n' => {
                let length =
                    self.rest().find(|c: char| !c.is_whitespace()).unwrap_or(self.rest().len());
                // A blank may belong to the closing ` -}}`.
                let length =
                    if self.rest()[length..].starts_with("-}}") { length - 1 } else { length };
                if length == 0 {
                    return Ok(());
                }
                take(self, length, TokenKind::Space)
            }
            '(' => {
                self.parens += 1;
                take(self, 1, TokenKind::LeftParen)
            }
            ')' => {
                self.parens -= 1;
                if self.parens < 0 {
                    return self.fail(at, "unexpected right paren");
                }
                take(self, 1, TokenKind::RightParen)
            }
            '|' => take(self, 1, TokenKind::Pipe),
            ',' => take(self, 1, TokenKind::Comma),
            '=' => take(self, 1, TokenKind::Assign),
            ':' if self.rest().starts_with(":=") => take(self, 2, TokenKind::Declare),
            ':' => self.fail(at, "expected :="),
            '"' => self.quoted(at),
            '`' => {
                let Some(end) = self.rest()[1..].find('`') else {
                    return self.fail(at, "unterminated raw quoted string");
                };
                let source = self.rest()[..end + 2].to_owned();
                let value = source[1..=end].to_owned();
                take(self, end + 2, TokenKind::Quoted(source, value))
            }
            '\'' => self.character(at),
            '.' if !self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let name = word(&self.rest()[1..]).to_owned();
                let length = 1 + name.len();
                let kind = if name.is_empty() { TokenKind::Dot } else { TokenKind::Field(name) };
                self.terminated(at, length)?;
                take(self, length, kind)
            }
            '$' => {
                let name = word(&self.rest()[1..]).to_owned();
                self.terminated(at, 1 + name.len())?;
                take(self, 1 + name.len(), TokenKind::Variable(format!("${name}")))
            }
            c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => self.number(at),
            c if c.is_alphabetic() || c == '_' => {
                let name = word(self.rest()).to_owned();
                self.terminated(at, name.len())?;
                take(self, name.len(), TokenKind::Word(name))
            }
            c if c.is_ascii_graphic() => take(self, 1, TokenKind::Other(c)),
            c => self.fail(at, &format!("unrecognized character in action: U+{:04X}", c as u32)),
        }
    }

    /// A name ends at a blank or a sign that may follow one.
    fn terminated(&self, at: usize, length: usize) -> Result<(), String> {
        let after = &self.rest()[length..];
        match after.chars().next() {
            None => Ok(()),
            Some(c) if c.is_whitespace() || ".,|:)(=".contains(c) || after.starts_with("}}") => {
                Ok(())
            }
            Some(c) => self.fail(at, &format!("bad character U+{:04X} '{c}'", c as u32)),
        }
    }

    fn quoted(&mut self, at: usize) -> Result<(), String> {
        let mut characters = self.rest().char_indices().skip(1);
        let mut value = String::new();
        while let Some((offset, character)) = characters.next() {
            match character {
                '"' => {
                    let source = self.rest()[..=offset].to_owned();
                    self.push(at, TokenKind::Quoted(source, value));
                    self.at += offset + 1;
                    return Ok(());
                }
                '\n' => break,
                '\\' => match characters.next().map(|(_, escaped)| escaped) {
                    Some('n') => value.push('\n'),
                    Some('t') => value.push('\t'),
                    Some('r') => value.push('\r'),
                    Some(other) => value.push(other),
                    None => break,
                },
                other => value.push(other),
            }
        }
        self.fail(at, "unterminated quoted string")
    }

    fn character(&mut self, at: usize) -> Result<(), String> {
        let Some(end) = self.rest()[1..].find('\'') else {
            return self.fail(at, "unterminated character constant");
        };
        let source = self.rest()[..end + 2].to_owned();
        let value = match &source[1..=end] {
            "\\n" => '\n' as i64,
            "\\t" => '\t' as i64,
            other => other.chars().next_back().map_or(0, |c| c as i64),
        };
        self.push(at, TokenKind::Character(source, value));
        self.at += end + 2;
        Ok(())
    }

    fn number(&mut self, at: usize) -> Result<(), String> {
        let length = self
            .rest()
            .char_indices()
            .find(|(offset, c)| {
                !(c.is_alphanumeric()
                    || *c == '.'
                    || *c == '_'
                    || (*offset == 0 && "+-".contains(*c)))
            })
            .map_or(self.rest().len(), |(offset, _)| offset);
        let number = self.rest()[..length].to_owned();
        if crate::go::parse_int(&number, 0, 64).is_err() && number.parse::<f64>().is_err() {
            return self.fail(at, &format!("bad number syntax: {}", crate::go::quote(&number)));
        }
        self.push(at, TokenKind::Number(number));
        self.at += length;
        Ok(())
    }
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}
