//! The form of a backup: tar, of plain files alone, and each byte of it settled by the names, sizes and contents of the
//! files. So a reader expects each header to be the very one that a writer makes.

use super::Error;
use crate::domain::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read, Write};
use tar::{EntryType, Header};

/// What tar counts in, in bytes.
const BLOCK: usize = 512;
/// What ends it, in bytes.
const END: usize = 2 * BLOCK;
/// What is copied at once, in bytes.
const PIECE: usize = 128 * 1024;

/// Why a copy broke off.
pub(super) enum Broken {
    /// It cannot be read on.
    Read(io::Error),
    /// There is less than there should be.
    Short,
    /// It cannot be written.
    Write(io::Error),
}

/// Copies so many bytes, and says what their sha256 is.
pub(super) fn copy(from: &mut impl Read, to: &mut impl Write, size: u64) -> Result<Digest, Broken> {
    let (mut hasher, mut piece, mut left) = (Sha256::new(), vec![0; PIECE], size);
    while left > 0 {
        let most = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        let read = match from.read(&mut piece[..most]) {
            Ok(0) => return Err(Broken::Short),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Broken::Read(e)),
        };
        hasher.update(&piece[..read]);
        to.write_all(&piece[..read]).map_err(Broken::Write)?;
        left -= read as u64;
    }
    Ok(Digest::new(hasher.finalize().into()))
}

/// What an entry of that size takes, in bytes; `None` if there is no such number.
pub(super) fn entry_bytes(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK as u64)?.checked_add(BLOCK as u64)
}

/// What a backup of these entries takes, in bytes.
pub(super) fn archive_bytes(sizes: impl IntoIterator<Item = u64>) -> Option<u64> {
    sizes.into_iter().try_fold(END as u64, |sum, size| sum.checked_add(entry_bytes(size)?))
}

/// What stands in front of an entry.
pub(super) fn header(name: &str, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o600);
    header.set_entry_type(EntryType::Regular);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header)
}

fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// Writes a backup.
pub(super) struct Writer<W>(pub(super) W);

impl<W: Write> Writer<W> {
    /// Writes an entry, and says what the sha256 of its contents is.
    pub(super) fn entry(&mut self, name: &str, size: u64, contents: &mut impl Read) -> Result<Digest, Broken> {
        let header = header(name, size).map_err(Broken::Write)?;
        self.0.write_all(header.as_bytes()).map_err(Broken::Write)?;
        let digest = copy(contents, &mut self.0, size)?;
        self.0.write_all(&[0; BLOCK][..padding(size)]).map_err(Broken::Write)?;
        Ok(digest)
    }

    /// Ends it.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.0.write_all(&[0; END])?;
        self.0.flush()
    }
}

/// Reads a backup, from its beginning to its end.
pub(super) struct Reader<R>(pub(super) R);

impl<R: Read> Reader<R> {
    /// The size of the first entry, which must have this name.
    pub(super) fn first(&mut self, name: &str, size_max: u64) -> Result<u64, Error> {
        let mut found = Header::new_old();
        let foreign = || Error::Foreign;
        match self.0.read_exact(found.as_mut_bytes()) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(foreign()),
            read => read.map_err(Error::Read)?,
        }
        if *found.path_bytes() != *name.as_bytes() {
            return Err(foreign());
        }
        let size = found.entry_size().map_err(|_| damaged_header(name))?;
        if size > size_max {
            return Err(Error::damaged(name, "is too large"));
        }
        expect(&found, name, size)?;
        Ok(size)
    }

    /// Passes by the header of the next entry, which must have this name and size.
    pub(super) fn next(&mut self, name: &str, size: u64) -> Result<(), Error> {
        let mut found = Header::new_old();
        self.exactly(found.as_mut_bytes(), name)?;
        expect(&found, name, size)
    }

    /// Copies the contents of an entry out, and checks that they have this sha256, if that is known.
    pub(super) fn contents(
        &mut self,
        name: &str,
        size: u64,
        sha256: Option<Digest>,
        to: &mut impl Write,
    ) -> Result<Digest, Error> {
        let digest = copy(&mut self.0, to, size).map_err(|broken| match broken {
            Broken::Read(e) => Error::Read(e),
            Broken::Short => Error::damaged(name, "is cut off"),
            Broken::Write(e) => Error::written(name.as_ref())(e),
        })?;
        if sha256.is_some_and(|sha256| sha256 != digest) {
            return Err(Error::damaged(name, "its sha256 is another"));
        }
        self.zeros(padding(size), name)?;
        Ok(digest)
    }

    /// Checks that nothing follows.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        const NAME: &str = "its end";
        self.zeros(END, NAME)?;
        match self.0.read(&mut [0]).map_err(Error::Read)? {
            0 => Ok(()),
            _ => Err(Error::damaged(NAME, "something follows")),
        }
    }

    fn zeros(&mut self, count: usize, name: &str) -> Result<(), Error> {
        let mut found = [1; END];
        self.exactly(&mut found[..count], name)?;
        match found[..count].iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(Error::damaged(name, "is not followed by zeros")),
        }
    }

    fn exactly(&mut self, bytes: &mut [u8], name: &str) -> Result<(), Error> {
        self.0.read_exact(bytes).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Error::damaged(name, "is cut off"),
            _ => Error::Read(e),
        })
    }
}

fn damaged_header(name: &str) -> Error {
    Error::damaged(name, "its header is another")
}

fn expect(found: &Header, name: &str, size: u64) -> Result<(), Error> {
    match header(name, size) {
        Ok(expected) if expected.as_bytes() == found.as_bytes() => Ok(()),
        _ => Err(damaged_header(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer(&mut bytes);
        for (name, contents) in entries {
            assert!(writer.entry(name, contents.len() as u64, &mut &**contents).is_ok());
        }
        writer.finish().unwrap();
        bytes
    }

    fn read(bytes: &[u8], entries: &[(&str, &[u8])]) -> Result<(), Error> {
        let mut reader = Reader(bytes);
        for (name, contents) in entries {
            let digest = Digest::new(Sha256::digest(contents).into());
            reader.next(name, contents.len() as u64)?;
            reader.contents(name, contents.len() as u64, Some(digest), &mut io::sink())?;
        }
        reader.finish()
    }

    #[test]
    fn every_byte_of_it_is_settled() {
        let entries: [(&str, &[u8]); 4] = [("one", b"abc"), ("a/b", &[7; 512]), ("empty", b""), ("long", &[1; 700])];
        let bytes = archive(&entries);
        assert_eq!(Some(bytes.len() as u64), archive_bytes(entries.map(|(_, contents)| contents.len() as u64)));
        read(&bytes, &entries).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(read(&flipped, &entries).is_err(), "byte {at}");
            assert!(read(&bytes[..at], &entries).is_err(), "length {at}");
        }
        assert!(read(&[&bytes[..], b"x"].concat(), &entries).is_err());
    }

    #[test]
    fn other_programs_read_it() {
        let bytes = archive(&[("one", b"abc"), ("a/b", &[7; 700])]);
        let mut archive = tar::Archive::new(&bytes[..]);
        let names = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            (entry.path().unwrap().to_str().unwrap().to_owned(), contents.len())
        });
        assert_eq!(names.collect::<Vec<_>>(), [("one".to_owned(), 3), ("a/b".to_owned(), 700)]);
    }

    #[test]
    fn sizes_that_no_file_has_are_no_sizes() {
        assert_eq!(archive_bytes([0, 1, 512]), Some(1024 + 512 + 1024 + 1024));
        assert_eq!(archive_bytes([u64::MAX]), None);
        assert_eq!(archive_bytes([u64::MAX / 2, u64::MAX / 2, 600]), None);
    }
}
