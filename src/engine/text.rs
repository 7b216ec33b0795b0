//! Modules as text.

use super::Rejected;
use std::borrow::Cow;
use wast::parser::{self, ParseBuffer};

/// The bytes of a module, given these or its text.
///
/// # Errors
/// When the file is neither; of a text, says where it is wrong.
pub fn module_bytes(file: &[u8]) -> Result<Cow<'_, [u8]>, Rejected> {
    if file.starts_with(b"\0asm") {
        return Ok(Cow::Borrowed(file));
    }
    let text = std::str::from_utf8(file).ok().filter(|text| begins_a_module(text)).ok_or_else(|| {
        Rejected::new("not a WebAssembly module: neither its bytes, which begin with \\0asm, nor its text")
    })?;
    let parsed = ParseBuffer::new(text).and_then(|words| parser::parse::<wast::Wat<'_>>(&words)?.encode());
    parsed.map(Cow::Owned).map_err(|e| {
        let (line, column) = e.span().linecol_in(text);
        Rejected::new(format_args!("not a valid module: {}:{}: {}", line + 1, column + 1, e.message()))
    })
}

/// Whether a text can be meant as a module: of other files the parser's complaints only confuse.
fn begins_a_module(text: &str) -> bool {
    let code = text.lines().map(str::trim_start).find(|line| !line.is_empty() && !line.starts_with(";;"));
    code.is_some_and(|line| line.starts_with('('))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(file: &[u8]) -> String {
        module_bytes(file).unwrap_err().to_string()
    }

    #[test]
    fn bytes_stay_and_a_text_becomes_bytes() {
        let bytes = module_bytes(b"\n;; a comment\n  (module)").unwrap();
        assert_eq!(bytes, &b"\0asm\x01\0\0\0"[..]);
        assert!(matches!(module_bytes(&bytes).unwrap(), Cow::Borrowed(_)));
        assert!(module_bytes(b"(; a comment ;) (module)").is_ok());
    }

    #[test]
    fn what_is_no_module_is_no_bad_module_either() {
        for file in [&b""[..], b"\n", b"[package]\nname = \"x\"", b"#!/bin/sh", b"\x7fELF", b"(\xff"] {
            assert!(rejected(file).starts_with("not a WebAssembly module: neither"), "{file:?}");
        }
    }

    #[test]
    fn a_text_is_wrong_in_a_line_and_a_column() {
        assert_eq!(
            rejected(b"(module\n  (func (call $missing)))"),
            "not a valid module: 2:15: unknown func: failed to find name `$missing`"
        );
        assert_eq!(
            rejected("(module (; é ;) \"\n\")".as_bytes()),
            "not a valid module: 1:19: invalid character in string '\\n'"
        );
    }
}
