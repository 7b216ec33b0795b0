"""Lets the runner of the public WASI test suite (WebAssembly/wasi-testsuite) drive `hyperfunc run`.

    python3 test-runner/wasi_test_runner.py -t tests/c/testsuite/wasm32-wasip1 -r THIS_FILE

HYPERFUNC names the program; without it, it is `hyperfunc` on the path.
"""

import os
import shlex
import subprocess

HYPERFUNC = shlex.split(os.getenv("HYPERFUNC", "hyperfunc"))


def get_name():
    return "hyperfunc"


def get_version():
    said = subprocess.run([*HYPERFUNC, "--version"], capture_output=True, check=True, encoding="utf-8")
    return said.stdout.split()[-1]


def get_wasi_versions():
    return ["wasm32-wasip1"]


def compute_argv(test_path, args_env_dirs, proposals, wasi_version):
    """The command line of one test. It needs no proposals: preview 1 is all there is."""
    args, env, dirs = args_env_dirs
    argv = [*HYPERFUNC, "run"]
    for name, value in env.items():
        argv += ["--env", f"{name}={value}"]
    for host, guest in dirs:
        argv += ["--dir", f"{host}::{guest}"]
    return [*argv, str(test_path), *args]
