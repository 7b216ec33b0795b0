//! `completions` (`docs/api.md` section 8).

use crate::harness::binary;
use crate::harness::program::{failed, printed};
use std::io::Write as _;
use std::process::{Command, Stdio};

#[test]
fn every_shell_gets_its_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(binary().args(["completions", shell]).output().unwrap());
        for known in ["hyperfunc", "inspect", "max-concurrency", "completions"] {
            assert!(script.contains(known), "{shell}: {known}");
        }
    }
    for arguments in [&["completions"] as &[_], &["completions", "tcsh"]] {
        assert_eq!(failed(binary().args(arguments).output().unwrap()).0, 2);
    }
}

#[test]
fn bash_completes_with_it() {
    let script = printed(binary().args(["completions", "bash"]).output().unwrap());
    let mut bash = Command::new("bash").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let typed = "COMP_WORDS=(hyperfunc upd); COMP_CWORD=1; _hyperfunc hyperfunc upd hyperfunc; echo ${COMPREPLY[@]}";
    writeln!(bash.stdin.take().unwrap(), "{script}\n{typed}").unwrap();
    assert_eq!(printed(bash.wait_with_output().unwrap()), "update\n");
}
