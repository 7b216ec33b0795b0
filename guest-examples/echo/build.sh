#!/bin/sh
set -eu
cd "$(dirname "$0")"
. ../common.sh

# has_target RUSTC TARGET: whether the standard library for the target is installed.
has_target() {
    libdir=$("$1" --print target-libdir --target "$2" 2>/dev/null) && [ -d "$libdir" ]
}

if has_target rustc wasm32-wasip1; then
    rustc=rustc target=wasm32-wasip1
elif has_target /usr/bin/rustc wasm32-wasi; then
    # Debian's own compiler, which knows the target by its old name.
    rustc=/usr/bin/rustc target=wasm32-wasi
else
    missing "no rustc that builds WASI programs; install one of" \
        "  with rustup: rustup target add wasm32-wasip1" \
        "  on Debian 12: apt install rustc libstd-rust-dev-wasm32 lld"
fi

build "$rustc" --edition 2021 --target "$target" --crate-name echo \
    -C opt-level=s -C lto=fat -C codegen-units=1 -C panic=abort -C strip=symbols \
    -o echo.wasm echo.rs
report echo.wasm
