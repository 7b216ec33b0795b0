//! The seal on compiled artifacts: native code that somebody else wrote must never run.

use super::{Error, write_private};
use crate::domain::Digest;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// The seal at the end of an artifact, in bytes.
const SEAL_BYTES: usize = blake3::OUT_LEN;

/// The key that artifacts are sealed with. It leaves the data directory only in a backup `--with-keys`.
pub(super) struct ArtifactKey([u8; 32]);

impl std::fmt::Debug for ArtifactKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ArtifactKey(redacted)")
    }
}

impl ArtifactKey {
    /// Reads the key, or makes it of `random`. One of another length is replaced: that only costs compiling again.
    pub(super) fn open(path: &Path, random: [u8; 32]) -> Result<Self, Error> {
        match fs::read(path).map(<[u8; 32]>::try_from) {
            Ok(Ok(key)) => return Ok(Self(key)),
            Ok(Err(_)) => fs::remove_file(path).map_err(Error::io(path))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(path)(e)),
        }
        write_private(path, &random).map_err(Error::io(path))?;
        Ok(Self(random))
    }

    /// The seal of an artifact, over what it was compiled of and how as well.
    pub(super) fn seal(&self, artifact: &[u8], digest: Digest, flavour: &str) -> [u8; SEAL_BYTES] {
        *self.hasher(digest, flavour).update(artifact).finalize().as_bytes()
    }

    /// Takes the seal off, if it is right.
    pub(super) fn open_artifact(&self, mut sealed: Vec<u8>, digest: Digest, flavour: &str) -> Option<Vec<u8>> {
        let at = sealed.len().checked_sub(SEAL_BYTES)?;
        let seal = <[u8; SEAL_BYTES]>::try_from(sealed.split_off(at)).ok()?;
        // Comparing two `Hash`es takes the same time wherever they differ.
        (blake3::Hash::from(seal) == blake3::Hash::from(self.seal(&sealed, digest, flavour))).then_some(sealed)
    }

    /// Whether a file is an artifact with its right seal behind it.
    pub(super) fn is_sealed(&self, mut file: &File, digest: Digest, flavour: &str) -> io::Result<bool> {
        let Some(at) = file.metadata()?.len().checked_sub(SEAL_BYTES as u64) else { return Ok(false) };
        let mut hasher = self.hasher(digest, flavour);
        hasher.update_reader(file.take(at))?;
        let mut seal = [0; SEAL_BYTES];
        file.read_exact(&mut seal)?;
        Ok(blake3::Hash::from(seal) == hasher.finalize())
    }

    /// Has taken in what every seal is over but the artifact itself.
    fn hasher(&self, digest: Digest, flavour: &str) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(digest.as_bytes());
        hasher.update(&(flavour.len() as u64).to_le_bytes());
        hasher.update(flavour.as_bytes());
        hasher
    }
}
