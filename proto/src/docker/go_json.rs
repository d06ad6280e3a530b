//! Reads JSON as Go's `encoding/json` does, since that is what Docker's clients were written against.
//!
//! * keys of structs match in any case, unknown ones are ignored, the last of two equal ones wins;
//! * `null` is the zero value, wherever it stands;
//! * a fixed-size array takes what is there: too few leave zeros, too many are dropped;
//! * invalid UTF-8 and lone surrogates become U+FFFD;
//! * errors have Go's texts (as of Go 1.27): clients show them, and some match on them.
//!
//! [`Document`] is a parsed body; [`Document::read`] turns it into a type, more than once if need be (the body of
//! `/containers/create` is a `Config` and the place of the `HostConfig` at once).

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor},
};

/// How deep arrays and objects may nest. (Go's limit is 10,000, which no request needs and every stack would feel.)
pub const MAX_DEPTH: usize = 256;

/// Why a text is not the JSON that was wanted, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing but white space.
    #[error("EOF")]
    Empty,
    /// Not JSON.
    #[error("{0}")]
    Syntax(String),
    /// JSON, but of another shape.
    #[error("json: {0}")]
    Shape(String),
    /// Something follows the value.
    #[error("unexpected content after JSON")]
    Trailing,
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Shape(message.to_string())
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match unexpected {
            de::Unexpected::Bool(_) => "bool",
            de::Unexpected::Unsigned(_) | de::Unexpected::Signed(_) | de::Unexpected::Float(_) => {
                "number"
            }
            de::Unexpected::Seq => "array",
            de::Unexpected::Map => "object",
            _ => "string",
        };
        Self::Shape(format!("cannot unmarshal {found} into Go value of type {expected}"))
    }
}

/// One parsed JSON value, borrowed from its text where that is possible.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// As it was written.
    Number(&'a str),
    /// Unescaped.
    String(Cow<'a, str>),
    /// `[…]`
    Array(Vec<Value<'a>>),
    /// `{…}`, in the order of the text.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl Value<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

/// A parsed text.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    value: Value<'a>,
}

impl<'a> Document<'a> {
    /// Parses one value and nothing after it (but a closing bracket, which Go's `Decoder.More` takes for an end).
    ///
    /// # Errors
    /// All but [`Error::Shape`].
    pub fn parse(text: &'a [u8]) -> Result<Self, Error> {
        let mut parser = Parser { text, at: 0 };
        parser.skip_space();
        if parser.at == text.len() {
            return Err(Error::Empty);
        }
        let value = parser.value(0)?;
        parser.skip_space();
        match text.get(parser.at) {
            None | Some(b']' | b'}') => Ok(Self { value }),
            Some(_) => {
                // A type error comes first with Go, but a request with two faults may hear of either.
                Err(Error::Trailing)
            }
        }
    }

    /// Reads the value as a `T`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn read<T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        self.read_named(None)
    }

    /// Reads the value as a `T` that error texts call `root` instead of its own name. (Go leaves out the name where the
    /// struct only embeds the field.)
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn read_named<T: Deserialize<'a>>(
        &'a self,
        root: Option<&'static str>,
    ) -> Result<T, Error> {
        let path = Path::Root(root.unwrap_or(short_name::<T>()));
        T::deserialize(Reader { value: &self.value, path: &path })
    }

    /// Answers whether the text is an object with at least one key that is a field of `T`.
    pub fn names_field_of<T: Deserialize<'static>>(&self) -> bool {
        let Value::Object(entries) = &self.value else { return false };
        let fields = fields_of::<T>();
        entries.iter().any(|(key, _)| fields.iter().any(|field| field.eq_ignore_ascii_case(key)))
    }

    /// Returns the value itself.
    pub fn value(&self) -> &Value<'a> {
        &self.value
    }
}

/// Parses and reads in one go.
///
/// # Errors
/// Any [`Error`].
pub fn from_slice<T: de::DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    let document = Document::parse(text)?;
    // The document outlives the call only by its borrow; an owned type keeps nothing of it.
    let path = Path::Root(short_name::<T>());
    T::deserialize(Reader { value: &document.value, path: &path })
}

fn short_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}

// ---- text → value

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Result<u8, Error> {
        self.text.get(self.at).copied().ok_or_else(unexpected_eof)
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Syntax("exceeded max depth".into()));
        }
        self.skip_space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => Ok(Value::String(self.string()?)),
            b't' => self.literal("true", Value::Bool(true)),
            b'f' => self.literal("false", Value::Bool(false)),
            b'n' => self.literal("null", Value::Null),
            b'-' | b'0'..=b'9' => self.number(),
            other => Err(invalid(other, "looking for beginning of value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, Error> {
        self.at += 1;
        let mut entries = Vec::new();
        self.skip_space();
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(Value::Object(entries));
        }
        loop {
            self.skip_space();
            match self.peek()? {
                b'"' => {}
                other => return Err(invalid(other, "looking for beginning of object key string")),
            }
            let key = self.string()?;
            self.skip_space();
            match self.peek()? {
                b':' => self.at += 1,
                other => return Err(invalid(other, "after object key")),
            }
            entries.push((key, self.value(depth + 1)?));
            self.skip_space();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(Value::Object(entries));
                }
                other => return Err(invalid(other, "after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, Error> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_space();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                other => return Err(invalid(other, "after array element")),
            }
        }
    }

    fn literal(&mut self, word: &'static str, value: Value<'a>) -> Result<Value<'a>, Error> {
        for expected in word.bytes() {
            let found = self.peek()?;
            if found != expected {
                let context = format!("in literal {word} (expecting {})", quoted(expected));
                return Err(invalid(found, &context));
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<Value<'a>, Error> {
        let start = self.at;
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            other => return Err(invalid(other, "in numeric literal")),
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default();
        Ok(Value::Number(text))
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self, context: &str) -> Result<(), Error> {
        match self.peek()? {
            b'0'..=b'9' => {
                self.digits();
                Ok(())
            }
            other => Err(invalid(other, context)),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek()? {
                b'"' => {
                    let text = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(String::from_utf8_lossy(text));
                }
                b'\\' => break,
                control @ 0..0x20 => return Err(invalid(control, "in string literal")),
                _ => self.at += 1,
            }
        }
        self.escaped_string(start)
    }

    fn escaped_string(&mut self, start: usize) -> Result<Cow<'a, str>, Error> {
        let mut bytes = self.text[start..self.at].to_vec();
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(Cow::Owned(match String::from_utf8(bytes) {
                        Ok(text) => text,
                        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                    }));
                }
                b'\\' => {
                    self.at += 1;
                    let character = self.escape()?;
                    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                control @ 0..0x20 => return Err(invalid(control, "in string literal")),
                other => {
                    bytes.push(other);
                    self.at += 1;
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        let kind = self.peek()?;
        self.at += 1;
        Ok(match kind {
            b'"' | b'\\' | b'/' => kind as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            other => {
                return Err(Error::Syntax(format!(
                    "invalid escape sequence `\\{}` in string",
                    char::from(other)
                )));
            }
        })
    }

    fn unicode_escape(&mut self) -> Result<char, Error> {
        let unit = self.hex4()?;
        if let Some(character) = char::from_u32(unit) {
            return Ok(character);
        }
        // A surrogate: a pair is one character, a lone one is replaced.
        if unit < 0xdc00 && self.text[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, Error> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek()?;
            let Some(value) = char::from(digit).to_digit(16) else {
                return Err(invalid(digit, "in \\u hexadecimal character escape"));
            };
            unit = unit * 16 + value;
            self.at += 1;
        }
        Ok(unit)
    }
}

fn unexpected_eof() -> Error {
    Error::Syntax("unexpected EOF".into())
}

fn invalid(found: u8, context: &str) -> Error {
    Error::Syntax(format!("invalid character {} {context}", quoted(found)))
}

/// A byte as Go's `%q` shows a rune.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".into(),
        b'\\' => r"'\\'".into(),
        b'\n' => r"'\n'".into(),
        b'\r' => r"'\r'".into(),
        b'\t' => r"'\t'".into(),
        0x20..0x7f => format!("'{}'", char::from(byte)),
        _ => format!("'\\x{byte:02x}'"),
    }
}

// ---- value → type

/// Where a value stands, for error texts. Lives on the stack.
enum Path<'a> {
    Root(&'static str),
    Field(&'a Path<'a>, &'a str),
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    fn write(&self, out: &mut String) {
        match self {
            Self::Root(name) => out.push_str(name),
            Self::Field(parent, name) => {
                parent.write(out);
                out.push('.');
                out.push_str(name);
            }
            Self::Key(parent, key) => {
                parent.write(out);
                out.push('.');
                // As in a JSON pointer (RFC 6901).
                out.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Self::Index(parent, index) => {
                parent.write(out);
                out.push('.');
                out.push_str(&index.to_string());
            }
        }
    }

    fn describe(&self, wanted: &str) -> String {
        let mut text = String::new();
        match self {
            Self::Root(_) => return format!("Go value of type {wanted}"),
            Self::Field(..) | Self::Key(..) => text.push_str("Go struct field "),
            Self::Index(..) => {}
        }
        self.write(&mut text);
        format!("{text} of type {wanted}")
    }
}

#[derive(Clone, Copy)]
struct Reader<'de, 'p> {
    value: &'de Value<'de>,
    path: &'p Path<'p>,
}

impl<'de> Reader<'de, '_> {
    /// What Go calls the map that is read here.
    fn map_type(&self) -> &'static str {
        match self.path {
            Path::Field(_, "ExposedPorts") => "nat.PortSet",
            Path::Field(_, "PortBindings") => "nat.PortMap",
            Path::Field(_, "Volumes") => "map[string]struct {}",
            Path::Field(_, "EndpointsConfig") => "map[string]*network.EndpointSettings",
            _ => "map[string]string",
        }
    }

    fn mismatch(&self, wanted: &str) -> Error {
        // Go says `int` where the field is one; serde only tells the width.
        let wanted = match self.path {
            Path::Field(
                _,
                "StopTimeout" | "MaximumRetryCount" | "Count" | "Retries" | "GwPriority",
            ) if wanted == "int64" => "int",
            Path::Field(_, "Interval" | "Timeout" | "StartPeriod" | "StartInterval")
                if wanted == "int64" =>
            {
                "time.Duration"
            }
            Path::Index(Path::Field(_, "ConsoleSize"), _) => "uint",
            _ => wanted,
        };
        let found = match self.value {
            Value::Number(text) if is_integer_type(wanted) => format!("number {text}"),
            other => other.kind().to_owned(),
        };
        Error::Shape(format!("cannot unmarshal {found} into {}", self.path.describe(wanted)))
    }
}

fn is_integer_type(name: &str) -> bool {
    name.starts_with("int") || name.starts_with("uint") || name == "time.Duration"
}

macro_rules! integer {
    ($($method:ident $visit:ident $type:ty, $go:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.value {
                Value::Null => visitor.$visit(0),
                Value::Number(text) => match text.parse::<$type>() {
                    Ok(number) => visitor.$visit(number),
                    Err(_) => Err(self.mismatch($go)),
                },
                _ => Err(self.mismatch($go)),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Reader<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(text) => {
                if let Ok(number) = text.parse::<i64>() {
                    visitor.visit_i64(number)
                } else if let Ok(number) = text.parse::<u64>() {
                    visitor.visit_u64(number)
                } else {
                    visitor.visit_f64(text.parse().unwrap_or(f64::INFINITY))
                }
            }
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => {
                visitor.visit_seq(Items { items, at: 0, pad_to: 0, path: self.path })
            }
            Value::Object(entries) => {
                visitor.visit_map(Entries { entries, at: 0, path: self.path })
            }
        }
    }

    integer! {
        deserialize_i8 visit_i8 i8, "int8";
        deserialize_i16 visit_i16 i16, "int16";
        deserialize_i32 visit_i32 i32, "int32";
        deserialize_i64 visit_i64 i64, "int64";
        deserialize_u8 visit_u8 u8, "uint8";
        deserialize_u16 visit_u16 u16, "uint16";
        deserialize_u32 visit_u32 u32, "uint32";
        deserialize_u64 visit_u64 u64, "uint64";
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_f64(0.0),
            Value::Number(text) => match text.parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(self.mismatch("float64")),
            },
            _ => Err(self.mismatch("float64")),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.mismatch("bool")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_borrowed_str(""),
            Value::String(text) => visitor.visit_borrowed_str(text),
            _ => Err(self.mismatch("string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => {
                visitor.visit_seq(Items { items: &[], at: 0, pad_to: 0, path: self.path })
            }
            Value::Array(items) => {
                visitor.visit_seq(Items { items, at: 0, pad_to: 0, path: self.path })
            }
            _ => Err(self.mismatch("[]string")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => {
                visitor.visit_seq(Items { items: &[], at: 0, pad_to: len, path: self.path })
            }
            Value::Array(items) => {
                let items = &items[..items.len().min(len)];
                visitor.visit_seq(Items { items, at: 0, pad_to: len, path: self.path })
            }
            _ => Err(self.mismatch(&format!("[{len}]uint"))),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_map(Entries { entries: &[], at: 0, path: self.path }),
            Value::Object(entries) => {
                visitor.visit_map(Entries { entries, at: 0, path: self.path })
            }
            _ => Err(self.mismatch(self.map_type())),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let entries = match self.value {
            Value::Null => &[][..],
            Value::Object(entries) => entries,
            _ if name == "Empty" => return Err(self.mismatch("struct {}")),
            _ if name.contains('.') => return Err(self.mismatch(name)),
            _ => return Err(self.mismatch(&format!("{}.{name}", package(name)))),
        };
        visitor.visit_map(Fields { entries, fields, next: 0, value: None, path: self.path })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::String(text) => visitor.visit_enum(text.as_ref().into_deserializer()),
            _ => Err(self.mismatch("string")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    serde::forward_to_deserialize_any! { bytes byte_buf }
}

/// The Go package that an Engine API type lives in, for error texts.
fn package(name: &str) -> &'static str {
    match name {
        "EndpointSettings" | "EndpointIpamConfig" | "NetworkingConfig" | "Ipam" | "IpamConfig" => {
            "network"
        }
        "CreateOptions" => "volume",
        "AuthConfig" => "registry",
        "Mount" | "BindOptions" | "VolumeOptions" | "TmpfsOptions" | "ImageOptions" => "mount",
        _ => "container",
    }
}

const NULL: &Value<'static> = &Value::Null;

struct Items<'de, 'p> {
    items: &'de [Value<'de>],
    at: usize,
    /// Positions below this that the text lacks are null.
    pad_to: usize,
    path: &'p Path<'p>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let value = match self.items.get(self.at) {
            Some(value) => value,
            None if self.at < self.pad_to => NULL,
            None => return Ok(None),
        };
        let path = Path::Index(self.path, self.at);
        self.at += 1;
        seed.deserialize(Reader { value, path: &path }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.at.min(self.items.len()))
    }
}

struct Entries<'de, 'p> {
    entries: &'de [(Cow<'de, str>, Value<'de>)],
    at: usize,
    path: &'p Path<'p>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        match self.entries.get(self.at) {
            None => Ok(None),
            Some((key, _)) => {
                seed.deserialize(de::value::BorrowedStrDeserializer::new(key)).map(Some)
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, value) = &self.entries[self.at];
        self.at += 1;
        let path = Path::Key(self.path, key);
        seed.deserialize(Reader { value, path: &path })
    }
}

/// A struct's fields: for each that the text has, the last value that is not null.
struct Fields<'de, 'p> {
    entries: &'de [(Cow<'de, str>, Value<'de>)],
    fields: &'static [&'static str],
    next: usize,
    value: Option<(&'static str, &'de Value<'de>)>,
    path: &'p Path<'p>,
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        while self.next < self.fields.len() && !self.entries.is_empty() {
            let field = self.fields[self.next];
            self.next += 1;
            let found = self
                .entries
                .iter()
                .rfind(|(key, value)| key.eq_ignore_ascii_case(field) && *value != Value::Null);
            if let Some((_, value)) = found {
                self.value = Some((field, value));
                return seed.deserialize(de::value::BorrowedStrDeserializer::new(field)).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (field, value) = self.value.take().unwrap_or(("", NULL));
        let path = Path::Field(self.path, field);
        seed.deserialize(Reader { value, path: &path })
    }
}

/// Asks a type for the names of its fields: reads nothing, and fails on purpose.
fn fields_of<T: Deserialize<'static>>() -> &'static [&'static str] {
    struct Probe<'a>(&'a mut &'static [&'static str]);
    impl<'de> de::Deserializer<'de> for Probe<'_> {
        type Error = Error;
        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
            Err(Error::Empty)
        }
        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, Error> {
            *self.0 = fields;
            Err(Error::Empty)
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut fields: &'static [&'static str] = &[];
    let _always_fails = T::deserialize(Probe(&mut fields));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::container::{Config, HostConfig};

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Whole {
        host_config: Option<HostConfig>,
    }

    #[track_caller]
    fn config(text: &str) -> Config {
        Document::parse(text.as_bytes()).unwrap().read::<Config>().unwrap()
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = match Document::parse(text.as_bytes()) {
            Err(error) => error,
            Ok(document) => match document.read_named::<Config>(Some("")) {
                Err(error) => error,
                Ok(_) => document.read_named::<Whole>(Some("")).unwrap_err(),
            },
        };
        assert_eq!(error.to_string(), expected, "{text}");
    }

    #[test]
    fn keys_match_in_any_case_and_the_last_wins() {
        assert_eq!(config(r#"{"image":"a","IMAGE":"b","nosuch":{}}"#).image, "b");
    }

    #[test]
    fn null_is_the_zero_value_everywhere() {
        let read =
            config(r#"{"Image":null,"Tty":null,"Cmd":null,"Labels":{"a":null},"Env":[null]}"#);
        assert_eq!((read.image.as_str(), read.tty, read.cmd), ("", false, None));
        assert_eq!(read.labels.unwrap()["a"], "");
        assert_eq!(read.env, Some(vec![String::new()]));
    }

    #[test]
    fn a_command_is_a_string_or_an_array() {
        assert_eq!(config(r#"{"Cmd":"a b"}"#).cmd.unwrap().0, ["a b"]);
        assert_eq!(config(r#"{"Cmd":["a","b"]}"#).cmd.unwrap().0, ["a", "b"]);
        refused(r#"{"Cmd":7}"#, "json: cannot unmarshal number into Go value of type string");
    }

    #[test]
    fn arrays_of_a_fixed_size_take_what_is_there() {
        let read = |text: &str| {
            from_slice::<Whole>(text.as_bytes()).unwrap().host_config.unwrap().console_size
        };
        assert_eq!(read(r#"{"HostConfig":{"ConsoleSize":[1]}}"#), [1, 0]);
        assert_eq!(read(r#"{"HostConfig":{"ConsoleSize":[1,2,3]}}"#), [1, 2]);
    }

    #[test]
    fn escapes_and_broken_text_become_characters() {
        assert_eq!(config(r#"{"Image":"\u00e9\ud83d\ude00\ud800x\n"}"#).image, "é😀\u{fffd}x\n");
        let bytes = Document::parse(b"{\"Image\":\"a\xffb\"}").unwrap().read::<Config>().unwrap();
        assert_eq!(bytes.image, "a\u{fffd}b");
    }

    /// The texts are a dockerd's, built with Go 1.27.
    #[test]
    fn errors_have_the_words_of_go() {
        refused("{", "unexpected EOF");
        refused(" ", "EOF");
        refused("{a}", "invalid character 'a' looking for beginning of object key string");
        refused("x", "invalid character 'x' looking for beginning of value");
        refused(r#"{"Image":tru}"#, "invalid character '}' in literal true (expecting 'e')");
        refused(r#"{"a":"\q"}"#, "invalid escape sequence `\\q` in string");
        refused("{} x", "unexpected content after JSON");
        refused(&"[".repeat(1000), "exceeded max depth");
        refused(
            r#"{"Image":7}"#,
            "json: cannot unmarshal number into Go struct field .Image of type string",
        );
        refused(r#"{"Env":[1]}"#, "json: cannot unmarshal number into .Env.0 of type string");
        refused(
            r#"{"Labels":{"a":1}}"#,
            "json: cannot unmarshal number into Go struct field .Labels.a of type string",
        );
        refused(
            r#"{"HostConfig":{"Memory":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field .HostConfig.Memory of type int64",
        );
        refused(
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":80}]}}}"#,
            "json: cannot unmarshal number into Go struct field .HostConfig.PortBindings.80~1tcp.0.HostPort of type string",
        );
        refused(
            r#"{"HostConfig":7}"#,
            "json: cannot unmarshal number into Go struct field .HostConfig of type container.HostConfig",
        );
    }

    #[test]
    fn an_object_without_a_field_of_the_type_names_none() {
        let names =
            |text: &str| Document::parse(text.as_bytes()).unwrap().names_field_of::<Config>();
        assert!(names(r#"{"image":null}"#));
        assert!(!names(r#"{"HostConfig":{},"nosuch":1}"#));
    }
}
