//! D-Bus messages as bytes, as far as systemd needs them: little-endian, no descriptors. Source: D-Bus Specification, "Marshaling
//! (Wire Format)" and "Message Protocol".

/// The longest message that is read; the specification allows 128 MiB.
pub const MAX_BYTES: usize = 1 << 20;

/// Types of messages.
pub const METHOD_CALL: u8 = 1;
pub const METHOD_RETURN: u8 = 2;
pub const ERROR: u8 = 3;
pub const SIGNAL: u8 = 4;

/// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// The part of a message whose length is known beforehand.
pub const FIXED: usize = 16;

/// A value to send.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Byte(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Bytes(Vec<u8>),
    U32s(Vec<u32>),
    Texts(Vec<String>),
    /// `a(ss)`.
    Pairs(Vec<(String, String)>),
    /// `a(sv)`.
    Properties(Vec<(String, Value)>),
    /// `a(sa(sv))`, of which systemd takes none but an empty one.
    NoUnits,
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::Byte(_) => "y",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Double(_) => "d",
            Self::Text(_) => "s",
            Self::Path(_) => "o",
            Self::Bytes(_) => "ay",
            Self::U32s(_) => "au",
            Self::Texts(_) => "as",
            Self::Pairs(_) => "a(ss)",
            Self::Properties(_) => "a(sv)",
            Self::NoUnits => "a(sa(sv))",
        }
    }

    fn write(&self, out: &mut Writer) {
        match self {
            Self::Bool(value) => out.number(&u32::from(*value).to_le_bytes()),
            Self::Byte(value) => out.0.push(*value),
            Self::I16(value) => out.number(&value.to_le_bytes()),
            Self::U16(value) => out.number(&value.to_le_bytes()),
            Self::I32(value) => out.number(&value.to_le_bytes()),
            Self::U32(value) => out.number(&value.to_le_bytes()),
            Self::I64(value) => out.number(&value.to_le_bytes()),
            Self::U64(value) => out.number(&value.to_le_bytes()),
            Self::Double(value) => out.number(&value.to_le_bytes()),
            Self::Text(text) | Self::Path(text) => out.text(text),
            Self::Bytes(bytes) => out.array(1, |out| out.0.extend(bytes)),
            Self::U32s(numbers) => {
                out.array(4, |out| numbers.iter().for_each(|n| out.number(&n.to_le_bytes())))
            }
            Self::Texts(texts) => out.array(4, |out| texts.iter().for_each(|text| out.text(text))),
            Self::Pairs(pairs) => out.array(8, |out| {
                for (first, second) in pairs {
                    out.align(8);
                    out.text(first);
                    out.text(second);
                }
            }),
            Self::Properties(properties) => out.array(8, |out| {
                for (name, value) in properties {
                    out.align(8);
                    out.text(name);
                    out.signature(value.signature());
                    value.write(out);
                }
            }),
            Self::NoUnits => out.array(8, |_| {}),
        }
    }
}

/// Whom a call goes to, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
}

/// Returns the bytes of a call.
pub fn call(serial: u32, to: Call<'_>, arguments: &[Value]) -> Vec<u8> {
    let mut body = Writer::default();
    arguments.iter().for_each(|argument| argument.write(&mut body));
    let signature: String = arguments.iter().map(Value::signature).collect();
    let mut out = Writer(vec![b'l', METHOD_CALL, 0, 1]);
    out.number(&(body.0.len() as u32).to_le_bytes());
    out.number(&serial.to_le_bytes());
    out.array(8, |out| {
        out.field(PATH, "o", to.path);
        out.field(DESTINATION, "s", to.destination);
        out.field(INTERFACE, "s", to.interface);
        out.field(MEMBER, "s", to.member);
        if !signature.is_empty() {
            out.align(8);
            out.0.push(SIGNATURE);
            out.signature("g");
            out.signature(&signature);
        }
    });
    out.align(8);
    out.0.extend(body.0);
    out.0
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    /// Every number is aligned to its size.
    fn number(&mut self, bytes: &[u8]) {
        self.align(bytes.len());
        self.0.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        self.number(&(text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// The length is that of the elements, without the padding before the first.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.number(&0u32.to_le_bytes());
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let begin = self.0.len();
        elements(self);
        let length = (self.0.len() - begin) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn field(&mut self, code: u8, signature: &str, text: &str) {
        self.align(8);
        self.0.push(code);
        self.signature(signature);
        self.text(text);
    }
}

/// A message that has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    pub reply_to: u32,
    pub member: String,
    pub error_name: String,
    pub signature: String,
    pub body: Vec<u8>,
}

/// What came is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Returns how many bytes follow the first [`FIXED`] ones.
pub fn rest_of(fixed: &[u8; FIXED]) -> Result<usize, Malformed> {
    let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| fixed[at + i])) as usize;
    let (body, fields) = (number(4), number(12));
    let is_known = fixed[0] == b'l' && fixed[3] == 1;
    if !is_known || body > MAX_BYTES || fields > MAX_BYTES {
        return Err(Malformed);
    }
    Ok((FIXED + fields).next_multiple_of(8) - FIXED + body)
}

/// Reads a whole message.
pub fn parse(bytes: &[u8]) -> Result<Message, Malformed> {
    let kind = *bytes.get(1).ok_or(Malformed)?;
    let mut reader = Reader::new(bytes);
    reader.at = 12;
    let fields_end = FIXED + reader.u32()? as usize;
    let mut message = Message { kind, ..Message::default() };
    while reader.at < fields_end {
        reader.align(8)?;
        let code = reader.byte()?;
        match (code, reader.signature()?) {
            (REPLY_SERIAL, "u") => message.reply_to = reader.u32()?,
            (MEMBER, "s") => message.member = reader.text()?.to_owned(),
            (ERROR_NAME, "s") => message.error_name = reader.text()?.to_owned(),
            (SIGNATURE, "g") => message.signature = reader.signature()?.to_owned(),
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.u32()?),
            _ => return Err(Malformed),
        }
    }
    reader.align(8)?;
    message.body = bytes.get(reader.at..).ok_or(Malformed)?.to_vec();
    Ok(message)
}

/// Reads values of known types in their order.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Begins where a body begins.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), Malformed> {
        let padding = self.at.next_multiple_of(to) - self.at;
        self.take(padding).map(drop)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// Reads a `u`.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.align(4)?;
        self.take(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Reads an `s` or an `o`.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.u32()? as usize;
        self.terminated(length)
    }

    /// Reads a `g`, or what stands before a `v`'s value.
    pub fn signature(&mut self) -> Result<&'a str, Malformed> {
        let length = self.byte()? as usize;
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Result<&'a str, Malformed> {
        let text = self.take(length)?;
        if self.byte()? != 0 {
            return Err(Malformed);
        }
        std::str::from_utf8(text).map_err(|_| Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: Call<'static> =
        Call { destination: "a.b", path: "/p", interface: "a.b.C", member: "Do" };

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let bytes = call(7, TO, &[Value::Text("hi".to_owned()), Value::Bool(true)]);
        // Body: 2 "hi" NUL, a byte of padding, 1.
        assert_eq!(&bytes[..8], b"l\x01\0\x01\x0c\0\0\0");
        assert_eq!(&bytes[8..12], 7u32.to_le_bytes());
        assert_eq!(&bytes[bytes.len() - 12..], b"\x02\0\0\0hi\0\0\x01\0\0\0");
        assert_eq!(&bytes[16..16 + 12], b"\x01\x01o\0\x02\0\0\0/p\0\0");
        let fixed: [u8; FIXED] = bytes[..FIXED].try_into().unwrap();
        assert_eq!(rest_of(&fixed), Ok(bytes.len() - FIXED));
    }

    #[test]
    fn what_was_written_can_be_read() {
        let properties = Value::Properties(vec![
            ("Slice".to_owned(), Value::Text("a.slice".to_owned())),
            ("Delegate".to_owned(), Value::Bool(true)),
            ("MemoryMax".to_owned(), Value::U64(7)),
            ("PIDs".to_owned(), Value::U32s(vec![1, 2])),
        ]);
        let message = parse(&call(1, TO, &[properties, Value::NoUnits])).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (METHOD_CALL, "Do"));
        assert_eq!(message.signature, "a(sv)a(sa(sv))");
        let mut reader = Reader::new(&message.body);
        let length = reader.u32().unwrap() as usize;
        reader.align(8).unwrap();
        let begin = reader.at;
        assert_eq!((reader.text(), reader.signature()), (Ok("Slice"), Ok("s")));
        assert_eq!(reader.text(), Ok("a.slice"));
        reader.align(8).unwrap();
        assert_eq!((reader.text(), reader.signature()), (Ok("Delegate"), Ok("b")));
        assert_eq!(reader.u32(), Ok(1));
        reader.align(8).unwrap();
        assert_eq!((reader.text(), reader.signature()), (Ok("MemoryMax"), Ok("t")));
        reader.align(8).unwrap();
        assert_eq!(reader.take(8), Ok(&7u64.to_le_bytes()[..]));
        assert_eq!((reader.text(), reader.signature()), (Ok("PIDs"), Ok("au")));
        assert_eq!((reader.u32(), reader.u32(), reader.u32()), (Ok(8), Ok(1), Ok(2)));
        assert_eq!(reader.at, begin + length);
        assert_eq!(reader.u32(), Ok(0));
        reader.align(8).unwrap();
        assert_eq!(reader.at, message.body.len());
    }

    #[test]
    fn no_cut_of_a_message_is_read_beyond_its_end() {
        let bytes = call(1, TO, &[Value::Texts(vec!["one".to_owned(), "two".to_owned()])]);
        for length in 0..bytes.len() {
            if let Ok(message) = parse(&bytes[..length]) {
                let mut reader = Reader::new(&message.body);
                while reader.text().is_ok() {}
            }
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] = 0xff;
            let _ = parse(&changed);
        }
    }

    #[test]
    fn a_message_that_is_too_long_or_of_another_kind_is_refused() {
        let mut fixed: [u8; FIXED] = *b"l\x02\0\x01\0\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(rest_of(&fixed), Ok(0));
        fixed[7] = 1;
        assert_eq!(rest_of(&fixed), Err(Malformed));
        fixed[7] = 0;
        fixed[0] = b'B';
        assert_eq!(rest_of(&fixed), Err(Malformed));
    }
}
