//! A shell that a reader of the documentation could have: the program on its path, the examples before it.

use crate::harness::{PATIENCE, Server};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Which binary is played; unset, the one that was built for the tests.
const PLAYED: &str = "PLAYED_BINARY";
/// What the documentation says for the server, and for `dev`.
const SERVER: &str = "127.0.0.1:8080";
const DEV: &str = "127.0.0.1:8081";
/// Where its reader is.
const HOME: &str = "/home/me";
/// Comes behind each command, with its status: no command writes that.
const END: u8 = 1;
/// How long something in the background is listened to when its words are written down: no test waits for this.
const QUIET: Duration = Duration::from_secs(1);

pub struct Shell {
    child: Child,
    stdin: ChildStdin,
    pieces: Receiver<Vec<u8>>,
    /// What has come since [`Shell::begin`], with the ends of commands in it.
    heard: Vec<u8>,
    /// How many commands have been typed since then.
    typed: usize,
    /// Whether a command was typed that goes on in the background.
    has_background: bool,
    /// What is said here, and in the documentation.
    places: Vec<(String, &'static str)>,
    _home: TempDir,
}

impl Shell {
    /// Starts one in a directory with the examples, beside a server.
    pub fn start(server: &Server) -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().canonicalize().unwrap();
        let (bin, work) = (root.join("bin"), root.join("work"));
        fs::create_dir(&bin).unwrap();
        fs::create_dir(&work).unwrap();
        symlink(program().canonicalize().unwrap(), bin.join("hyperfunc")).unwrap();
        copy_examples(&work.join("guest-examples"));

        let dev = free_address();
        let (output, pipe) = std::io::pipe().unwrap();
        let mut shell = Command::new("bash");
        shell.args(["--noprofile", "--norc"]).current_dir(&work).process_group(0).env_clear();
        shell.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display())).env("HOME", &root);
        shell.env("HYPERFUNC_SERVER", format!("http://{}", server.address)).env("LC_ALL", "C.UTF-8");
        shell.stdin(Stdio::piped()).stdout(pipe.try_clone().unwrap()).stderr(pipe);
        let mut child = shell.spawn().unwrap();
        // Its ends of the pipe are those of the child alone from here on.
        drop(shell);
        let (sender, pieces) = sync_channel(64);
        std::thread::spawn(move || {
            let mut output = output;
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut piece) {
                if sender.send(piece[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take().unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let places =
            vec![(server.address.to_string(), SERVER), (dev.clone(), DEV), (text(&work), HOME), (text(&root), HOME)];
        let mut shell =
            Self { child, stdin, pieces, heard: Vec::new(), typed: 0, has_background: false, places, _home: home };
        // The address that the documentation has is taken by somebody else, perhaps.
        shell.type_in(&format!(
            "hyperfunc() {{ case $1 in dev) command hyperfunc dev --listen {dev} \"${{@:2}}\";; *) command hyperfunc \"$@\";; esac; }}"
        ));
        shell.begin();
        shell
    }

    /// Forgets what was heard so far.
    pub fn begin(&mut self) {
        self.heard.clear();
        self.typed = 0;
    }

    pub fn has_background(&self) -> bool {
        self.has_background
    }

    /// Types a command, waits for its end, and returns its status.
    pub fn type_in(&mut self, command: &str) -> i32 {
        self.has_background |= command.trim_end().ends_with('&');
        let command = self.places.iter().fold(command.to_owned(), |text, (here, there)| match *there {
            HOME => text,
            address => text.replace(address, here),
        });
        writeln!(self.stdin, "{command}\nprintf '\\001%d\\001' $?").unwrap();
        self.typed += 1;
        let typed = self.typed;
        assert!(self.until_heard(|shell| shell.parts().count() > 2 * typed), "no end of: $ {command}");
        let status = self.parts().nth(2 * typed - 1).unwrap();
        String::from_utf8_lossy(status).parse().unwrap()
    }

    /// Types a command and returns what it answers, in whole lines, as the documentation would say it.
    pub fn play(&mut self, command: &str) -> String {
        self.begin();
        self.type_in(command);
        if self.has_background {
            while let Ok(piece) = self.pieces.recv_timeout(QUIET) {
                self.heard.extend(piece);
            }
        }
        let answer = self.transcript();
        if answer.is_empty() || answer.ends_with('\n') { answer } else { answer + "\n" }
    }

    /// What was answered since [`Shell::begin`], as the documentation would say it.
    pub fn transcript(&self) -> String {
        // Every second part is a status.
        let answered = String::from_utf8_lossy(&self.parts().step_by(2).collect::<Vec<_>>().concat()).into_owned();
        self.places.iter().fold(answered, |text, (here, there)| text.replace(here, there))
    }

    /// Whether what was answered comes to be so.
    pub fn until(&mut self, condition: impl Fn(&str) -> bool) -> bool {
        self.until_heard(|shell| condition(&shell.transcript()))
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.heard.split(|byte| *byte == END)
    }

    fn until_heard(&mut self, condition: impl Fn(&Self) -> bool) -> bool {
        let began = Instant::now();
        while !condition(self) {
            match self.pieces.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
                Ok(piece) => self.heard.extend(piece),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // With all that it has in the background; it may have ended by itself.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The program that is played.
pub fn program() -> PathBuf {
    std::env::var_os(PLAYED).map_or_else(|| env!("CARGO_BIN_EXE_hyperfunc").into(), PathBuf::from)
}

fn copy_examples(to: &Path) {
    fs::create_dir(to).unwrap();
    for example in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-examples")).unwrap() {
        let example = example.unwrap();
        if !example.file_type().unwrap().is_dir() {
            continue;
        }
        let copy = to.join(example.file_name());
        fs::create_dir(&copy).unwrap();
        for file in fs::read_dir(example.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
    }
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
