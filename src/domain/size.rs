//! `ContainerSize`: how much memory an instance may hold.

use super::{Invalid, MB, quoted};

/// The size of a function's sandbox (`docs/api.md` section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[allow(missing_docs, reason = "the names are the contract's; the table below says what they mean")]
pub enum ContainerSize {
    S1,
    S2,
    S3,
    #[default]
    S4,
    M1,
    M2,
    M3,
    L1,
    L2,
    L3,
}

impl ContainerSize {
    /// Every size, smallest first.
    pub const ALL: [Self; 10] =
        [Self::S1, Self::S2, Self::S3, Self::S4, Self::M1, Self::M2, Self::M3, Self::L1, Self::L2, Self::L3];

    /// Reads a size in any case.
    ///
    /// # Errors
    /// Names the field and lists the sizes.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|size| size.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Invalid::new("ContainerSize", format!("{} is none of {names}", quoted(text)))
        })
    }

    /// The name, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::S1 => "s1",
            Self::S2 => "s2",
            Self::S3 => "s3",
            Self::S4 => "s4",
            Self::M1 => "m1",
            Self::M2 => "m2",
            Self::M3 => "m3",
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::L3 => "l3",
        }
    }

    /// What all memories and tables of one instance may hold together, in bytes.
    pub fn memory_bytes(self) -> u64 {
        MB * match self {
            Self::S1 => 64,
            Self::S2 => 128,
            Self::S3 => 256,
            Self::S4 => 512,
            Self::M1 => 1024,
            Self::M2 => 2 * 1024,
            Self::M3 | Self::L1 => 4 * 1024,
            Self::L2 => 8 * 1024,
            Self::L3 => 16 * 1024,
        }
    }
}

impl std::fmt::Display for ContainerSize {
    /// `s1 (64 MB)`, as messages show a size.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mb = self.memory_bytes() / MB;
        if mb < 1024 { write!(f, "{} ({mb} MB)", self.name()) } else { write!(f, "{} ({} GB)", self.name(), mb / 1024) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_any_case_and_grow() {
        assert_eq!(ContainerSize::parse("S1").unwrap(), ContainerSize::S1);
        assert_eq!(ContainerSize::parse("l3").unwrap().memory_bytes(), 16 << 30);
        assert_eq!(ContainerSize::S1.to_string(), "s1 (64 MB)");
        assert_eq!(ContainerSize::M3.to_string(), "m3 (4 GB)");
        let error = ContainerSize::parse("xl").unwrap_err();
        assert!(error.to_string().starts_with("ContainerSize: \"xl\" is none of s1, s2"), "{error}");
        assert!(ContainerSize::ALL.is_sorted_by_key(|size| size.memory_bytes()));
    }
}
