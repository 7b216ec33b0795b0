#!/bin/sh
# Makes {{name}}.wasm: ./build.sh [MORE FLAGS FOR CARGO...]
set -eu
cd "$(dirname "$0")"

# has_target RUSTC TARGET: whether the standard library for the target is installed.
has_target() {
    libdir=$("$1" --print target-libdir --target "$2" 2>/dev/null) && [ -d "$libdir" ]
}

if has_target rustc wasm32-wasip1; then
    cargo=cargo target=wasm32-wasip1
elif has_target /usr/bin/rustc wasm32-wasi && [ -x /usr/bin/cargo ]; then
    # Debian's own compiler, which knows the target by its old name.
    cargo=/usr/bin/cargo target=wasm32-wasi
    export RUSTC=/usr/bin/rustc
else
    echo "no rustc that builds WASI programs; install one of" >&2
    echo "  with rustup: rustup target add wasm32-wasip1" >&2
    echo "  on Debian 12: apt install cargo libstd-rust-dev-wasm32 lld" >&2
    exit 127
fi
"$cargo" build --release --target "$target" --target-dir target "$@"
cp "target/$target/release/{{name}}.wasm" {{name}}.wasm
