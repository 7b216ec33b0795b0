#!/bin/sh
# Makes {{name}}.wasm: ./build.sh [MORE FLAGS FOR CLANG...]
set -eu
cd "$(dirname "$0")"

# links CLANG TARGET: whether this clang makes programs for this target.
links() {
    echo 'int main(void) { return 0; }' | "$1" --target="$2" -x c - -o /dev/null 2>/dev/null
}

clang=clang
if [ -n "${WASI_SDK_PATH:-}" ]; then
    clang=$WASI_SDK_PATH/bin/clang
fi
if links "$clang" wasm32-wasip1; then
    target=wasm32-wasip1
elif links "$clang" wasm32-wasi; then
    # The target's old name, which Debian knows it by.
    target=wasm32-wasi
else
    echo "$clang builds no WASI programs; install one of" >&2
    echo "  the WASI SDK (https://github.com/WebAssembly/wasi-sdk), and set WASI_SDK_PATH to its folder" >&2
    echo "  on Debian 12: apt install clang lld wasi-libc libclang-rt-14-dev-wasm32" >&2
    exit 127
fi
"$clang" --target="$target" -std=c11 -Wall -Wextra -O2 -Wl,--strip-all "$@" -o {{name}}.wasm main.c
