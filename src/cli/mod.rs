//! The command line: `serve` is the server, everything else is a client of it or works without one (`docs/api.md`
//! section 8).
//!
//! Data goes to stdout, everything else to stderr.

mod address;
mod audit;
mod backup;
mod bench;
mod call;
mod cancel;
mod client;
mod completions;
mod config;
mod create;
mod data;
mod definition;
mod dev;
mod exit;
mod get;
mod host;
mod images;
mod inspect;
mod load;
mod logs;
mod ls;
mod new;
mod output;
mod restore;
mod rm;
mod rmi;
mod run;
mod serve;
mod settings;
mod status;
mod suggest;
mod template;
mod test;
mod update;
mod variables;
mod version;

use clap::{Parser, Subcommand};
use exit::{FAILED, INTERRUPTED};
use std::ffi::OsString;
use std::io;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// How long a verb that is interrupted may take to take back what it has begun.
const TAKING_BACK_MAX: Duration = Duration::from_millis(100);

/// A self-hosted function runtime: functions are defined over HTTP, and every call runs a WebAssembly module in a
/// fresh sandbox.
#[derive(Parser)]
#[command(name = "hyperfunc", version, max_term_width = 100, styles = output::HELP)]
#[command(after_help = "Example: hyperfunc serve, and elsewhere: hyperfunc load hello.wasm && hyperfunc create hello")]
struct Arguments {
    #[command(subcommand)]
    verb: AnyVerb,
}

/// Every verb stands by itself and behind `func`, for hands that know the Hyper command line.
#[derive(Subcommand)]
enum AnyVerb {
    #[command(flatten)]
    Plain(Verb),
    /// The same verbs, as the Hyper command line has them
    #[command(subcommand, after_help = "Example: hyperfunc func ls, the same as: hyperfunc ls")]
    Func(Verb),
}

#[derive(Subcommand)]
enum Verb {
    /// Run the server
    Serve(Box<serve::Serve>),
    /// Load a module and give it a name
    Load(Remote<load::Load>),
    /// List the images
    Images(Remote<images::Images>),
    /// Remove images
    Rmi(Remote<rmi::Rmi>),
    /// Define a function
    Create(Box<Remote<create::Create>>),
    /// Change a function
    Update(Box<Remote<update::Update>>),
    /// List the functions
    Ls(Remote<ls::Ls>),
    /// Show functions as JSON
    Inspect(Remote<inspect::Inspect>),
    /// Remove functions
    Rm(Remote<rm::Rm>),
    /// Call a function: stdin is what it gets
    Call(Remote<call::Call>),
    /// Read what a call has answered
    Get(Remote<get::Get>),
    /// End a call, or discard what it has answered
    Cancel(Remote<cancel::Cancel>),
    /// Show what happened to the calls of a function
    Logs(Remote<logs::Logs>),
    /// Count the calls of a function, or list them
    Status(Remote<status::Status>),
    /// Run a module here and now, without a server
    Run(run::Run),
    /// Begin a function: source, build script and test cases
    New(new::New),
    /// Run the test cases of modules, without a server
    Test(test::Test),
    /// Serve a module while it is being written: its file is run as it is when a call comes
    Dev(dev::Dev),
    /// Measure calls: of a module here, of a function, or of a URL
    Bench(Box<Remote<bench::Bench>>),
    /// Check that a data directory keeps what was promised
    Audit(audit::Audit),
    /// Put all that a server must know into one file
    Backup(backup::Backup),
    /// Make a data directory of a backup
    Restore(restore::Restore),
    /// Print what makes a shell complete verbs and flags
    Completions(completions::Completions),
    /// Show the settings, and where each is set
    Config(config::Config),
    /// Show the versions of this program and of the server
    Version(Remote<version::Version>),
}

/// A verb that asks a server.
#[derive(clap::Args)]
struct Remote<V: clap::Args> {
    #[command(flatten)]
    server: settings::ServerFlags,
    #[command(flatten)]
    verb: V,
}

/// Runs the program with these arguments, the first of which is its own name, and returns its exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let verb = match Arguments::try_parse_from(arguments) {
        Ok(Arguments { verb: AnyVerb::Plain(verb) | AnyVerb::Func(verb) }) => verb,
        Err(error) => {
            // Help and the version are printed this way too.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(FAILED);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::problem(&format!("cannot start: {error}"));
            return FAILED;
        }
    };
    let result = runtime.block_on(async {
        if verb.sees_to_signals() { verb.run().await } else { until_interrupted(verb.run()).await }
    });
    // A guest may hold its thread for longer than anybody wants to wait.
    runtime.shutdown_background();
    match result {
        Ok(status) => status,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) => {
            output::failure(&error);
            exit::of(&error)
        }
    }
}

/// A verb that Ctrl-C ends, with nothing left behind: what it holds is dropped.
///
/// It has a task of its own, for it may write to a pipe that nobody reads.
async fn until_interrupted(verb: impl Future<Output = anyhow::Result<u8>> + Send + 'static) -> anyhow::Result<u8> {
    let mut verb = AbortOnDropHandle::new(tokio::spawn(verb));
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        result = &mut verb => return result?,
    }
    verb.abort();
    // What it holds may have something to take back, such as a bar on the screen.
    let _ = tokio::time::timeout(TAKING_BACK_MAX, verb).await;
    Ok(INTERRUPTED)
}

impl Verb {
    /// Whether it sees to signals itself, or blocks for too short a time to mind them.
    fn sees_to_signals(&self) -> bool {
        match self {
            Self::Serve(_)
            | Self::Dev(_)
            | Self::New(_)
            | Self::Audit(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Completions(_)
            | Self::Config(_) => true,
            Self::Load(_)
            | Self::Images(_)
            | Self::Rmi(_)
            | Self::Create(_)
            | Self::Update(_)
            | Self::Ls(_)
            | Self::Inspect(_)
            | Self::Rm(_)
            | Self::Call(_)
            | Self::Get(_)
            | Self::Cancel(_)
            | Self::Logs(_)
            | Self::Status(_)
            | Self::Run(_)
            | Self::Test(_)
            | Self::Bench(_)
            | Self::Version(_) => false,
        }
    }

    async fn run(self) -> anyhow::Result<u8> {
        match self {
            Self::Serve(serve) => serve.run().await,
            Self::Load(Remote { server, verb }) => verb.run(&server.client()?).await,
            Self::Images(Remote { server, verb }) => verb.run(&server.client()?).await,
            Self::Rmi(Remote { server, verb }) => verb.run(&server.client()?).await,
            Self::Create(create) => create.verb.run(&create.server.client()?).await,
            Self::Update(update) => update.verb.run(&update.server.client()?).await,
            Self::Ls(Remote { server, verb }) => verb.run(&server.client()?).await,
            Self::Inspect(Remote { server, verb }) => verb.run(&server.client()?).await,
            Self::Rm(Remote { server, verb }) => verb.run(&server.client()?).await,
            Self::Call(Remote { server, verb }) => verb.run(&server.client()?).await,
            Self::Get(Remote { server, verb }) => verb.run(&server.client()?).await,
            Self::Cancel(Remote { server, verb }) => verb.run(&server.client()?).await,
            Self::Logs(Remote { server, verb }) => verb.run(&server.client()?).await,
            Self::Status(Remote { server, verb }) => verb.run(&server.client()?).await,
            Self::Run(run) => run.run().await,
            Self::New(new) => new.run(),
            Self::Test(test) => test.run().await,
            Self::Dev(dev) => dev.run().await,
            Self::Bench(bench) => bench.verb.run(&bench.server.client()?).await,
            Self::Audit(audit) => audit.run(),
            Self::Backup(backup) => backup.run(),
            Self::Restore(restore) => restore.run(),
            Self::Completions(completions) => completions.run(),
            Self::Config(config) => config.run(),
            Self::Version(Remote { server, verb }) => verb.run(&server.client()?).await,
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_sound() {
        Arguments::command().debug_assert();
    }
}
