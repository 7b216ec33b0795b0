//! What is measured: a module in this process, a function on a server, or a URL.

use crate::cli::client::{Answer, Connection, Repeated};
use crate::cli::output;
use crate::domain::{ContainerSize, Limits, Timeout, Variable};
use crate::service::local::{Invocation, Local, LocalModule, Stdio};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// What a call spends its time on. A module in this process has the third and the fourth of them.
pub(super) const PHASES: [&str; 5] = ["queue", "load", "instantiate", "run", "output"];
/// The longest text of a failure that is kept, in characters.
const FAILURE_CHARS_MAX: usize = 80;

/// Which of the three it is: what is compared must be alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    File,
    Function,
    Url,
}

impl Kind {
    /// What a word means: the name of a function has neither a dot nor a slash.
    pub(super) fn of(name: &str) -> Self {
        if name.contains("://") {
            Self::Url
        } else if name.contains(['.', '/']) {
            Self::File
        } else {
            Self::Function
        }
    }

    /// As a part of a sentence.
    pub(super) fn told(self) -> &'static str {
        match self {
            Self::File => "a module in the process",
            Self::Function => "a function on a server",
            Self::Url => "a URL",
        }
    }
}

/// What is called.
pub(super) enum Target {
    Module(Arc<Module>),
    /// A function's address.
    Function(Arc<Repeated>),
    Url(Arc<Repeated>),
}

/// A module in this process.
pub(super) struct Module {
    pub(super) local: Local,
    pub(super) module: LocalModule,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<Variable>,
    pub(super) stdin: Bytes,
    pub(super) limits: Limits,
    pub(super) size: ContainerSize,
    pub(super) timeout: Timeout,
}

/// Makes one call at a time.
pub(super) enum Worker {
    Module(Arc<Module>),
    Function(Connection),
    Url(Connection),
}

/// A call that has ended.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// How it failed, in words that many calls have in common; `None` if it succeeded.
    pub(super) failure: Option<String>,
    /// What took how long, as far as that is told.
    pub(super) phases: [Option<Duration>; PHASES.len()],
    pub(super) received_bytes: u64,
}

impl Target {
    /// What each call brings, in bytes.
    pub(super) fn sent_bytes(&self) -> u64 {
        match self {
            Self::Module(module) => module.stdin.len() as u64,
            Self::Function(request) | Self::Url(request) => request.body_bytes(),
        }
    }

    pub(super) fn worker(&self) -> Worker {
        match self {
            Self::Module(module) => Worker::Module(Arc::clone(module)),
            Self::Function(request) => Worker::Function(Connection::new(Arc::clone(request))),
            Self::Url(request) => Worker::Url(Connection::new(Arc::clone(request))),
        }
    }

    /// On how many threads calls are made: guests on all that there are. A server needs some of its own, if it is on this
    /// machine.
    pub(super) fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        match self {
            Self::Module(_) => cores,
            Self::Function(_) | Self::Url(_) => (cores / 2).max(1),
        }
    }
}

impl Worker {
    pub(super) async fn call(&mut self) -> Call {
        match self {
            Self::Module(module) => module.call().await,
            Self::Function(connection) => asked(connection, |answer| reason(&answer.message)).await,
            Self::Url(connection) => asked(connection, |answer| answer.reason.to_owned()).await,
        }
    }
}

impl Module {
    async fn call(&self) -> Call {
        let invocation = Invocation {
            args: self.args.clone(),
            env: self.env.clone(),
            stdio: Stdio::Captured { stdin: self.stdin.clone(), tty: false },
            ..Invocation::default()
        };
        let outcome = match self.local.run(&self.module, invocation, &self.limits).await {
            Ok(outcome) => outcome,
            Err(failure) => return Call { failure: Some(shortened(&failure.to_string())), ..Call::default() },
        };
        let usage = outcome.usage;
        let run = usage.duration.saturating_sub(usage.instantiation);
        Call {
            failure: outcome.message(self.size, self.timeout).map(|message| reason(message.as_bytes())),
            phases: [None, None, Some(usage.instantiation), Some(run), None],
            received_bytes: outcome.stdout.len() as u64,
        }
    }
}

/// A call by HTTP; `why` finds words for an answer that is no success.
async fn asked(connection: &mut Connection, why: impl FnOnce(&Answer) -> String) -> Call {
    match connection.exchange().await {
        Ok(answer) => {
            let failed = || shortened(&format!("{} {}", answer.status, why(&answer)));
            Call {
                failure: (!(200..300).contains(&answer.status)).then(failed),
                phases: answer.server_timing().map(phases).unwrap_or_default(),
                received_bytes: answer.body_bytes,
            }
        }
        Err(broken) => Call { failure: Some(shortened(&broken.to_string())), ..Call::default() },
    }
}

/// What many failures have in common: the first line of a message, and of an exit status not the guest's own words.
fn reason(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let line = text.lines().next().unwrap_or_default();
    let said = if line.starts_with("exit status ") { line.split(':').next().unwrap_or_default() } else { line };
    shortened(said)
}

fn shortened(text: &str) -> String {
    output::one_line(text).chars().take(FAILURE_CHARS_MAX).collect()
}

/// The durations of the phases that a `Server-Timing` names.
fn phases(server_timing: &str) -> [Option<Duration>; PHASES.len()] {
    let mut phases = [None; PHASES.len()];
    for metric in server_timing.split(',') {
        let mut parts = metric.split(';').map(str::trim);
        let Some(phase) = parts.next().and_then(|name| PHASES.iter().position(|phase| *phase == name)) else {
            continue;
        };
        let ms = parts.find_map(|part| part.strip_prefix("dur=")).and_then(|ms| ms.parse::<f64>().ok());
        phases[phase] = ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok());
    }
    phases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_one_thing() {
        for (word, meant) in [
            ("hello", Kind::Function),
            ("hello.wasm", Kind::File),
            ("./hello", Kind::File),
            ("/x/hello.wat", Kind::File),
            ("http://127.0.0.1:1/x.wasm", Kind::Url),
            ("https://x", Kind::Url),
        ] {
            assert_eq!(Kind::of(word), meant, "{word}");
        }
    }

    #[test]
    fn phases_are_read_by_their_names() {
        let ms = |ms: f64| Some(Duration::from_secs_f64(ms / 1e3));
        let told = phases("queue;dur=0.012, run;desc=\"x\";dur=1.5,load; dur=2 ,cdn;dur=9, output, instantiate;dur=-1");
        assert_eq!(told, [ms(0.012), ms(2.0), None, ms(1.5), None]);
        assert_eq!(phases(""), [None; 5]);
    }

    #[test]
    fn failures_have_words_in_common() {
        assert_eq!(reason(b"exit status 3: at 12:31\n"), "exit status 3");
        assert_eq!(reason(b"trap: unreachable\n"), "trap: unreachable");
        assert_eq!(reason(b"\x1b[31m\xff\nmore"), " [31m\u{fffd}");
        assert_eq!(reason(&[b'x'; 500]).len(), FAILURE_CHARS_MAX);
    }
}
