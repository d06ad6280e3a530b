//! As much of the protocol-buffers encoding as CRIU's service takes. Source: protobuf.dev, Encoding.

/// A message that is being written.
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Adds an `int32`, `uint32`, `enum` or `bool`.
    pub fn number(&mut self, field: u32, value: impl Into<i64>) -> &mut Self {
        self.varint(u64::from(field) << 3);
        self.varint(value.into() as u64);
        self
    }

    /// Adds a `bool` that is true; a false one is the default of all of them.
    pub fn flag(&mut self, field: u32, value: bool) -> &mut Self {
        if value { self.number(field, 1) } else { self }
    }

    /// Adds a `string`.
    pub fn text(&mut self, field: u32, value: &str) -> &mut Self {
        self.bytes(field, value.as_bytes())
    }

    /// Adds a message.
    pub fn message(&mut self, field: u32, value: &Self) -> &mut Self {
        self.bytes(field, &value.0)
    }

    fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Returns what was written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One field of a message that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads the fields of a message; one that is cut short ends there.
pub fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u32, Field<'_>)> {
    std::iter::from_fn(move || {
        let key = varint(&mut bytes)?;
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            1 => Field::Bytes(take(&mut bytes, 8)?),
            2 => {
                let length = varint(&mut bytes)?;
                Field::Bytes(take(&mut bytes, usize::try_from(length).ok()?)?)
            }
            5 => Field::Bytes(take(&mut bytes, 4)?),
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok()?, field))
    })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let taken = bytes.get(..length)?;
    *bytes = &bytes[length..];
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut inner = Writer::default();
        inner.text(1, "post-dump");
        let mut writer = Writer::default();
        writer.number(1, 300).number(2, -1).flag(3, false).message(5, &inner);
        // 300 is the example of the encoding's description.
        assert_eq!(writer.as_bytes()[..3], [0x08, 0xac, 0x02]);
        let read: Vec<_> = fields(writer.as_bytes()).collect();
        assert_eq!(read[0], (1, Field::Number(300)));
        assert_eq!(read[1], (2, Field::Number(u64::MAX)));
        assert_eq!(read[2], (5, Field::Bytes(inner.as_bytes())));
        assert_eq!(read.len(), 3);
    }

    #[test]
    fn a_message_cut_short_ends() {
        assert_eq!(fields(&[0x2a, 0x09, b'x']).count(), 0);
        assert_eq!(fields(&[0x80]).count(), 0);
    }
}
