//! Tells the build which commit it is made of, for `/version`; without git it is told nothing.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    if !std::path::Path::new(".git").exists() {
        return;
    }
    // Grows with each commit and checkout.
    println!("cargo::rerun-if-changed=.git/logs/HEAD");
    for (variable, format) in [("HYPERFUNC_GIT_COMMIT", "%h"), ("HYPERFUNC_BUILD_TIME", "%cd")] {
        let git = Command::new("git")
            .env("TZ", "UTC")
            .args(["log", "-1", "--abbrev=12", "--date=format-local:%Y-%m-%dT%H:%M:%SZ"])
            .arg(format!("--format={format}"))
            .output();
        if let Ok(output) = git
            && output.status.success()
        {
            println!("cargo::rustc-env={variable}={}", String::from_utf8_lossy(&output.stdout).trim());
        }
    }
}
