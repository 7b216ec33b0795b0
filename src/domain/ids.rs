//! Names and identifiers. Each is built only by a constructor that checks it.

use super::{Invalid, quoted};
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// Who owns functions, images, calls and quotas.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(Arc<str>);

impl AccountId {
    /// The account of a server that nobody made a credential for.
    pub fn open_to_this_machine() -> Self {
        Self("default".into())
    }

    /// Takes an account's name as the store holds it.
    ///
    /// # Errors
    /// When the name is not one that [`FunctionName`] would allow.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        FunctionName::new(name).map(|name| Self(name.0)).map_err(|e| Invalid::new("account", e.problem))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a function: `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 255 bytes, unique in its
/// account (`docs/api.md` section 2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionName(Arc<str>);

impl FunctionName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Checks a name.
    ///
    /// # Errors
    /// Names the field `Name` and the rule that was broken.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        let problem = if name.is_empty() {
            "is required".to_owned()
        } else if name.len() > Self::BYTES_MAX {
            format!("is {} bytes long; at most {} are allowed", name.len(), Self::BYTES_MAX)
        } else if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            || name.starts_with('-')
            || name.ends_with('-')
        {
            format!("{} must match [a-z0-9]([-a-z0-9]*[a-z0-9])?", quoted(name))
        } else {
            return Ok(Self(name.into()));
        };
        Err(Invalid::new("Name", problem))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The capability in a function's address. Whoever knows it may call the function, so it never
/// shows in a log: `Debug` is redacted and there is no `Display`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FunctionUuid([u8; 16]);

impl FunctionUuid {
    /// Makes a version 4 UUID of 16 bytes from the operating system's random source.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes())
    }

    /// Reads a UUID as an address carries it: hyphenated, any case. `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten().map(|u| Self(u.into_bytes()))
    }

    /// The text that belongs in a function's address, and nowhere else.
    pub fn reveal(&self) -> String {
        Uuid::from_bytes(self.0).hyphenated().to_string()
    }

    /// The bytes, as the store keeps them.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for FunctionUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FunctionUuid(redacted)")
    }
}

/// One execution of a function: a version 7 UUID, so that ids sort by the time of acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(Uuid);

impl CallId {
    /// Takes a version 7 UUID that the caller has made.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// Reads an id as a path carries it: hyphenated, any case. `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten().map(Self)
    }

    /// Takes an id from its bytes. `None` if there are not 16 of them.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }

    /// The bytes, as the store keeps them.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The sha256 of a module's bytes. Shown as `sha256:` and 64 lower case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// What every digest starts with.
    pub const PREFIX: &str = "sha256:";

    /// Takes a digest that was computed.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads `sha256:` and 64 lower case hex digits, as Docker writes a digest.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix(Self::PREFIX)?.as_bytes();
        let mut bytes = [0; 32];
        if hex.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |b: u8| match b {
                b'0'..=b'9' => Some(b - b'0'),
                b'a'..=b'f' => Some(b - b'a' + 10),
                _ => None,
            };
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// The 64 hex digits alone: what files are named by.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The bytes themselves.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of an image in Docker's reference grammar: `[domain[:port]/]path[:tag][@digest]`.
///
/// Keeps what was written, so that a function shows the image as its author named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    repository: Arc<str>,
    tag: Option<Arc<str>>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// The tag of a reference that names none.
    pub const DEFAULT_TAG: &str = "latest";
    /// The longest repository name, in bytes: Docker's limit.
    pub const REPOSITORY_BYTES_MAX: usize = 255;
    /// The longest tag, in bytes: Docker's limit.
    pub const TAG_BYTES_MAX: usize = 128;

    /// Checks a reference.
    ///
    /// # Errors
    /// The problem alone, in one line: the caller knows which field the reference stood in.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is required".to_owned());
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => match Digest::parse(digest) {
                Some(digest) => (rest, Some(digest)),
                None => return Err(format!("{} has no digest of the form sha256:<64 hex digits>", quoted(text))),
            },
        };
        // A colon before the last slash is a port's.
        let path_at = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match rest[path_at..].split_once(':') {
            None => (rest, None),
            Some((last, tag)) => (&rest[..path_at + last.len()], Some(tag)),
        };
        if !is_repository(repository) {
            return Err(format!("{} is not an image name ([domain/]path[:tag][@digest], lower case)", quoted(text)));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(format!("{} has a bad tag (letters, digits, `_`, `.`, `-`; at most 128)", quoted(text)));
        }
        Ok(Self { repository: repository.into(), tag: tag.map(Into::into), digest })
    }

    /// The name without tag and digest.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, `latest` if none was written.
    pub fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or(Self::DEFAULT_TAG)
    }

    /// The digest that pins the reference, if one was written; the tag is then only decoration.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The last segment of the repository: the default entry point of a bare module.
    pub fn base_name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }

    /// `repository:tag`, with the default tag filled in.
    pub fn tagged(&self) -> String {
        format!("{}:{}", self.repository, self.tag())
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=ImageReference::TAG_BYTES_MAX).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_repository(name: &str) -> bool {
    if name.is_empty() || name.len() > ImageReference::REPOSITORY_BYTES_MAX {
        return false;
    }
    let path = match name.split_once('/') {
        // Docker's rule for what is a domain: it has a dot or a port, or is localhost.
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            if !is_domain(first) && !is_path_component(first) {
                return false;
            }
            rest
        }
        _ => name,
    };
    path.split('/').all(is_path_component)
}

fn is_domain(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let component = |c: &str| {
        !c.is_empty()
            && c.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !c.starts_with('-')
            && !c.ends_with('-')
    };
    host.split('.').all(component) && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes.iter().all(|&b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
        && bytes
            .split(|&b| alphanumeric(b))
            .all(|joint| matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|&b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn function_names_follow_the_contract() {
        for good in ["a", "0", "helloworld", "a-b", "a--b", &"x".repeat(255)] {
            assert!(FunctionName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "..", "a\0", "é", "a b", &"x".repeat(256)] {
            let error = FunctionName::new(bad).unwrap_err();
            assert_eq!(error.field, "Name", "{bad}");
        }
    }

    #[test]
    fn references_follow_docker() {
        let hex = "a".repeat(64);
        let digest = format!("ubuntu@sha256:{hex}");
        for (text, repository, tag) in [
            ("ubuntu", "ubuntu", "latest"),
            ("ubuntu:22.04", "ubuntu", "22.04"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b", "t"),
            ("ghcr.io/acme/x__y.z-w", "ghcr.io/acme/x__y.z-w", "latest"),
            (digest.as_str(), "ubuntu", "latest"),
        ] {
            let reference = ImageReference::parse(text).unwrap();
            assert_eq!((reference.repository(), reference.tag()), (repository, tag));
            assert_eq!(reference.to_string(), text);
        }
        for bad in [
            "",
            "Ubuntu",
            ":x",
            "a:",
            "a//b",
            "/a",
            "a/",
            "a:b:c",
            "a@sha256:12",
            "a b",
            "a..b",
            "a___b",
            "-a",
            "..",
            "http://a",
            &"x".repeat(256),
            &format!("a:{}", "t".repeat(129)),
        ] {
            assert!(ImageReference::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(ImageReference::parse("ghcr.io/acme/tool:1").unwrap().base_name(), "tool");
    }

    #[test]
    fn a_uuid_shows_in_no_debug_output() {
        let uuid = FunctionUuid::from_random([7; 16]);
        assert!(!format!("{uuid:?}").contains("0707"));
        assert_eq!(FunctionUuid::parse(&uuid.reveal()), Some(uuid));
        assert_eq!(&uuid.reveal()[14..15], "4");
        assert_eq!(FunctionUuid::parse("07070707070747078707070707070707"), None);
    }

    proptest! {
        #[test]
        fn digests_round_trip(bytes: [u8; 32]) {
            let digest = Digest::new(bytes);
            prop_assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        }

        #[test]
        fn references_round_trip(text in "[a-z0-9._:/@-]{0,40}") {
            if let Ok(reference) = ImageReference::parse(&text) {
                prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}
