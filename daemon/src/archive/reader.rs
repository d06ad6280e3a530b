//! A tar stream as a sequence of entries. What an entry needs beside its file's bytes is also handed to the recipe, so
//! that the same bytes can be written again (see [`super::recipe`]).

use std::io::BufRead;

use tar::{EntryType, Header};

use super::{Error, Limits, recipe};

/// POSIX pax, "ustar Interchange Format": records of 512 bytes.
pub const BLOCK: usize = 512;
/// The kernel's `PATH_MAX`: no name beyond it can be opened.
const PATH_MAX: usize = 4096;
/// Before the name of an extended attribute in a pax header; star's convention, which everybody follows.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Regular,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry, its extensions read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: Kind,
    /// A link's target.
    pub link: Vec<u8>,
    /// The twelve bits of `chmod(2)`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    /// Bytes in the archive.
    pub stored: u64,
    /// Bytes of the file.
    pub size: u64,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Offset and length of each piece that the archive has; `None` if it has all.
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Sparse,
}

/// GNU's sparse files in pax headers: GNU tar manual, "PAX Format, Versions 0.0, 0.1 and 1.0".
#[derive(Default)]
struct Sparse {
    numbers: Vec<u64>,
    real_size: Option<u64>,
    /// The map is in front of the data.
    in_data: bool,
    seen: bool,
}

/// Reads a tar stream.
pub struct TarReader<R> {
    input: R,
    limits: Limits,
    recipe: Option<recipe::Writer>,
    /// Of the present entry: not yet read.
    remaining: u64,
    padding: u64,
    entries: u64,
    ended: bool,
}

impl<R: BufRead> TarReader<R> {
    /// Begins to read. A recipe is written along if one is given.
    pub fn new(input: R, limits: Limits, recipe: Option<recipe::Writer>) -> Self {
        Self { input, limits, recipe, remaining: 0, padding: 0, entries: 0, ended: false }
    }

    /// Reads the next entry; `None` at the end of the archive. What was not read of the last one is skipped.
    ///
    /// # Errors
    /// [`Error`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        self.skip_rest()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(Error::TooMany("entries"));
            }
            match header.entry_type() {
                EntryType::XHeader => {
                    let records = self.extended(&header)?;
                    extensions.read_pax(&records, &self.limits)?;
                }
                EntryType::XGlobalHeader => drop(self.extended(&header)?),
                EntryType::GNULongName => extensions.name = Some(self.long_text(&header)?),
                EntryType::GNULongLink => extensions.link = Some(self.long_text(&header)?),
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    /// Returns what there is of the present entry's bytes, without taking it; empty at the entry's end.
    ///
    /// # Errors
    /// [`Error::Truncated`], or what the input met.
    pub fn data(&mut self) -> Result<&[u8], Error> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let available = self.input.fill_buf().map_err(Error::from_input)?;
        if available.is_empty() {
            return Err(Error::Truncated);
        }
        let count = available.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        Ok(&available[..count])
    }

    /// Takes bytes that [`Self::data`] returned.
    pub fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.remaining -= count as u64;
    }

    /// Tells the recipe that the present entry's bytes are those of the file at `path`.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn refer(&mut self, path: &[u8]) -> Result<(), Error> {
        let size = self.remaining;
        self.recipe.as_mut().map_or(Ok(()), |recipe| recipe.file(path, size)).map_err(Error::Output)
    }

    /// Tells the recipe that what was at `path` has been kept elsewhere.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn moved(&mut self, path: &[u8], number: u32) -> Result<(), Error> {
        let recipe = self.recipe.as_mut();
        recipe.map_or(Ok(()), |recipe| recipe.moved(path, number)).map_err(Error::Output)
    }

    /// Returns whether a recipe is written.
    pub fn has_recipe(&self) -> bool {
        self.recipe.is_some()
    }

    /// Reads the present entry's bytes into memory and, in contrast to [`Self::data`], into the recipe.
    ///
    /// # Errors
    /// [`Error`].
    pub fn data_into_recipe(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        while self.remaining > 0 {
            let chunk = self.data()?.to_vec();
            self.raw(&chunk)?;
            take(&chunk)?;
            self.consume(chunk.len());
        }
        Ok(())
    }

    /// Reads what follows the archive's end, which belongs to the layer's digest, and closes the recipe.
    ///
    /// # Errors
    /// [`Error`].
    pub fn finish(mut self) -> Result<(R, Option<recipe::Writer>), Error> {
        self.skip_rest()?;
        loop {
            let rest = self.input.fill_buf().map_err(Error::from_input)?;
            let count = rest.len();
            if count == 0 {
                break;
            }
            if let Some(recipe) = &mut self.recipe {
                recipe.raw(rest).map_err(Error::Output)?;
            }
            self.input.consume(count);
        }
        Ok((self.input, self.recipe))
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.recipe.as_mut().map_or(Ok(()), |recipe| recipe.raw(bytes)).map_err(Error::Output)
    }

    fn skip_rest(&mut self) -> Result<(), Error> {
        // Bytes that nobody wanted are nowhere else.
        self.data_into_recipe(|_| Ok(()))?;
        let padding = std::mem::take(&mut self.padding) as usize;
        let mut block = [0; BLOCK];
        if padding > 0 {
            self.read_exact(&mut block[..padding])?;
            self.raw(&block[..padding])?;
        }
        Ok(())
    }

    fn read_exact(&mut self, into: &mut [u8]) -> Result<(), Error> {
        self.input.read_exact(into).map_err(Error::from_input)
    }

    /// Reads a block that is a header; `None` at the end: two blocks of zeros, or nothing more.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        if self.ended || self.input.fill_buf().map_err(Error::from_input)?.is_empty() {
            return Ok(None);
        }
        let mut header = Header::new_old();
        self.block(&mut header)?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            self.ended = true;
            if self.input.fill_buf().map_err(Error::from_input)?.is_empty() {
                return Ok(None);
            }
            self.block(&mut header)?;
            let is_end = header.as_bytes().iter().all(|byte| *byte == 0);
            return if is_end { Ok(None) } else { Err(Error::Header) };
        }
        if !checksum_is_right(&header) {
            return Err(Error::Header);
        }
        Ok(Some(header))
    }

    fn block(&mut self, header: &mut Header) -> Result<(), Error> {
        self.read_exact(header.as_mut_bytes())?;
        let bytes = *header.as_bytes();
        self.raw(&bytes)
    }

    /// Reads the data of an extended header.
    fn extended(&mut self, header: &Header) -> Result<Vec<u8>, Error> {
        let size = header.entry_size().map_err(|_| Error::Header)?;
        if size > self.limits.extended {
            return Err(Error::TooMany("bytes in an extended header"));
        }
        self.begin_data(size);
        let mut data = Vec::with_capacity(size as usize);
        self.data_into_recipe(|bytes| {
            data.extend_from_slice(bytes);
            Ok(())
        })?;
        self.skip_rest()?;
        Ok(data)
    }

    fn begin_data(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn long_text(&mut self, header: &Header) -> Result<Vec<u8>, Error> {
        let mut text = self.extended(header)?;
        if let Some(end) = text.iter().position(|byte| *byte == 0) {
            text.truncate(end);
        }
        Ok(text)
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, Error> {
        let name = extensions.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = match extensions.link {
            Some(link) => link,
            None => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        if name.is_empty() {
            return Err(Error::Header);
        }
        if name.len() >= PATH_MAX || link.len() >= PATH_MAX {
            return Err(Error::entry(&name, "a name is longer than the system takes"));
        }
        if name.contains(&0) || link.contains(&0) {
            return Err(Error::entry(&name, "a name has a zero byte"));
        }
        let kind = kind(header, &name)?;
        let stored = match kind {
            Kind::Regular => match extensions.size {
                Some(size) => size,
                None => header.entry_size().map_err(|_| Error::Header)?,
            },
            _ => 0,
        };
        if stored > i64::MAX as u64 {
            return Err(Error::entry(&name, "its size is beyond any file's"));
        }
        let number = |value: Option<u64>, header: std::io::Result<u64>, what| {
            let value = value.map_or_else(|| header.map_err(|_| Error::Header), Ok)?;
            u32::try_from(value).ok().filter(|id| *id != u32::MAX).ok_or(Error::entry(&name, what))
        };
        let uid = number(extensions.uid, header.uid(), "its user id is out of range")?;
        let gid = number(extensions.gid, header.gid(), "its group id is out of range")?;
        let mtime = match extensions.mtime {
            Some(mtime) => mtime,
            // Base-256 numbers may be negative; crate `tar` reads them as large ones.
            None => (header.mtime().map_err(|_| Error::Header)? as i64, 0),
        };
        let device = (
            header.device_major().ok().flatten().unwrap_or(0),
            header.device_minor().ok().flatten().unwrap_or(0),
        );
        self.begin_data(stored);
        let mode = header.mode().map_err(|_| Error::Header)? & 0o7777;
        let sparse = self.sparse_map(header, &name, extensions.sparse, stored)?;
        let (sparse, size) = sparse.map_or((None, stored), |(map, size)| (Some(map), size));
        let xattrs = extensions.xattrs;
        Ok(Entry {
            name,
            kind,
            link,
            mode,
            uid,
            gid,
            mtime,
            stored: self.remaining,
            size,
            device,
            xattrs,
            sparse,
        })
    }

    /// Returns the pieces of a sparse file and its whole size.
    #[allow(clippy::type_complexity)]
    fn sparse_map(
        &mut self,
        header: &Header,
        name: &[u8],
        pax: Sparse,
        stored: u64,
    ) -> Result<Option<(Vec<(u64, u64)>, u64)>, Error> {
        let (numbers, real_size) = if header.entry_type() == EntryType::GNUSparse {
            self.gnu_sparse(header, name)?
        } else if pax.seen && pax.in_data {
            (self.sparse_numbers(name)?, pax.real_size.unwrap_or(stored))
        } else if pax.seen {
            (pax.numbers, pax.real_size.unwrap_or(stored))
        } else {
            return Ok(None);
        };
        let bad = || Error::entry(name, "its sparse map makes no sense");
        if real_size > i64::MAX as u64 || numbers.len() % 2 != 0 {
            return Err(bad());
        }
        let map: Vec<(u64, u64)> = numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let mut end = 0_u64;
        let mut total = 0_u64;
        for (offset, length) in &map {
            if *offset < end {
                return Err(bad());
            }
            end = offset.checked_add(*length).filter(|end| *end <= real_size).ok_or_else(bad)?;
            total += length;
        }
        if total != self.remaining {
            return Err(bad());
        }
        Ok(Some((map, real_size)))
    }

    /// GNU's old format: four pieces in the header, more in blocks behind it.
    fn gnu_sparse(&mut self, header: &Header, name: &[u8]) -> Result<(Vec<u64>, u64), Error> {
        let gnu = header.as_gnu().ok_or(Error::Header)?;
        let mut numbers = Vec::new();
        let mut add = |pieces: &[tar::GnuSparseHeader]| -> Result<(), Error> {
            for piece in pieces.iter().take_while(|piece| !piece.is_empty()) {
                numbers.push(piece.offset().map_err(|_| Error::Header)?);
                numbers.push(piece.length().map_err(|_| Error::Header)?);
            }
            Ok(())
        };
        add(&gnu.sparse)?;
        let real_size = gnu.real_size().map_err(|_| Error::Header)?;
        let mut more = gnu.is_extended();
        let mut blocks = 0;
        while more {
            blocks += 1;
            if blocks * 21 > self.limits.sparse {
                return Err(Error::entry(name, "its sparse map is too long"));
            }
            let mut block = tar::GnuExtSparseHeader::new();
            self.input.read_exact(block.as_mut_bytes()).map_err(Error::from_input)?;
            let bytes = *block.as_bytes();
            self.raw(&bytes)?;
            add(block.sparse())?;
            more = block.is_extended();
        }
        Ok((numbers, real_size))
    }

    /// Version 1.0: decimal numbers, one a line, the count first, padded to a block.
    fn sparse_numbers(&mut self, name: &[u8]) -> Result<Vec<u64>, Error> {
        let bad = || Error::entry(name, "its sparse map makes no sense");
        let mut text: Vec<u8> = Vec::new();
        let (mut lines, mut wanted) = (0, None);
        while wanted.is_none_or(|wanted| lines < wanted) {
            if self.remaining < BLOCK as u64 {
                return Err(bad());
            }
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            self.raw(&block)?;
            self.remaining -= BLOCK as u64;
            text.extend_from_slice(&block);
            lines += block.iter().filter(|byte| **byte == b'\n').count();
            if wanted.is_none() {
                let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
                let pairs = number(first).ok_or_else(bad)?;
                if pairs > self.limits.sparse as u64 {
                    return Err(Error::entry(name, "its sparse map is too long"));
                }
                wanted = Some(1 + 2 * pairs as usize);
            }
            if text.len() > 64 * wanted.unwrap_or(0) + BLOCK {
                return Err(bad());
            }
        }
        let numbers = text.split(|byte| *byte == b'\n').skip(1).take(wanted.unwrap_or(1) - 1);
        numbers.map(|line| number(line).ok_or_else(bad)).collect()
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim_end_matches('\n').parse().ok()
}

fn kind(header: &Header, name: &[u8]) -> Result<Kind, Error> {
    Ok(match header.entry_type() {
        // Before POSIX a directory was a regular file with a slash at its end.
        EntryType::Regular if name.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::Regular,
        EntryType::Link => Kind::HardLink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Char => Kind::CharDevice,
        EntryType::Block => Kind::BlockDevice,
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
        _ => return Err(Error::entry(name, "its type is not known")),
    })
}

/// Returns whether a block is a tar header.
pub fn is_header(block: &[u8]) -> bool {
    block.len() == BLOCK && checksum_is_right(Header::from_byte_slice(block))
}

/// The sum of all bytes with the field itself as spaces; some old programs took the bytes as signed.
fn checksum_is_right(header: &Header) -> bool {
    let Ok(wanted) = header.cksum() else { return false };
    let bytes = header.as_bytes();
    let field = 148..156;
    let counted =
        bytes.iter().enumerate().map(|(at, byte)| if field.contains(&at) { b' ' } else { *byte });
    let unsigned: u32 = counted.clone().map(u32::from).sum();
    let signed: i32 = counted.map(|byte| i32::from(byte as i8)).sum();
    wanted == unsigned || i64::from(wanted) == i64::from(signed)
}

impl Extensions {
    /// Reads `length key=value\n` records. POSIX pax, "pax Extended Header".
    fn read_pax(&mut self, mut data: &[u8], limits: &Limits) -> Result<(), Error> {
        while !data.is_empty() {
            let space = data.iter().position(|byte| *byte == b' ').ok_or(Error::Header)?;
            let length = number(&data[..space]).ok_or(Error::Header)?;
            let length = usize::try_from(length).map_err(|_| Error::Header)?;
            if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
                return Err(Error::Header);
            }
            let record = &data[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(Error::Header)?;
            self.set(&record[..equals], &record[equals + 1..], limits)?;
            data = &data[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<(), Error> {
        let whole = || number(value).ok_or(Error::Header);
        match key {
            b"path" => self.name = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(whole()?),
            b"uid" => self.uid = Some(whole()?),
            b"gid" => self.gid = Some(whole()?),
            b"mtime" => self.mtime = Some(timestamp(value).ok_or(Error::Header)?),
            b"GNU.sparse.name" => self.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse.real_size = Some(whole()?);
                self.sparse.seen = true;
            }
            b"GNU.sparse.major" => self.sparse.in_data = value == b"1",
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.numbers.push(whole()?),
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').filter(|text| !text.is_empty());
                self.sparse.numbers = numbers
                    .map(|text| number(text).ok_or(Error::Header))
                    .collect::<Result<_, _>>()?;
            }
            key => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        if self.sparse.numbers.len() > limits.sparse * 2 {
            return Err(Error::TooMany("pieces of a sparse file"));
        }
        Ok(())
    }
}

/// Reads `seconds[.fraction]`, possibly negative.
fn timestamp(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    if text.starts_with('-') && nanos > 0 {
        return Some((seconds - 1, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}
