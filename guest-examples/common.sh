# shellcheck shell=sh
# What the build scripts share; sourced, not run. POSIX sh.
# A build script exits 1 when its toolchain is not installed and 2 when the build itself fails.

# missing MESSAGE...: says what to install, one line each, and ends the script.
missing() {
    printf '%s\n' "$@" >&2
    exit 1
}

# build COMMAND...: runs the compiler.
build() {
    "$@" || {
        echo "build failed: $*" >&2
        exit 2
    }
}

# find_clang: sets CLANG and TARGET to a clang that links a WASI program.
find_clang() {
    if [ -n "${WASI_SDK_PATH:-}" ]; then
        CLANG=$WASI_SDK_PATH/bin/clang
        TARGET=wasm32-wasip1
        links_wasi || missing "WASI_SDK_PATH is set, but $CLANG builds no $TARGET program"
        return
    fi
    CLANG=clang
    # Debian keeps its WASI libc under the target's old name.
    for TARGET in wasm32-wasi wasm32-wasip1; do
        if links_wasi; then return; fi
    done
    missing "no clang that builds WASI programs; install one of" \
        "  the WASI SDK (https://github.com/WebAssembly/wasi-sdk), and set WASI_SDK_PATH to its folder" \
        "  on Debian 12: apt install clang lld wasi-libc libclang-rt-14-dev-wasm32"
}

links_wasi() {
    echo 'int main(void) { return 0; }' |
        "$CLANG" --target="$TARGET" -x c - -o /dev/null 2>/dev/null
}

# build_c NAME FLAGS...: compiles NAME.c of the current folder to a small NAME.wasm.
build_c() {
    name=$1
    shift
    find_clang
    build "$CLANG" --target="$TARGET" -std=c11 -Wall -Wextra "$@" \
        -Wl,--strip-all -Wl,--gc-sections -o "$name.wasm" "$name.c"
    report "$name.wasm"
}

# report FILE: prints the size and the sha256 of what was built.
report() {
    if command -v sha256sum >/dev/null 2>&1; then
        digest=$(sha256sum <"$1")
    else
        digest=$(shasum -a 256 <"$1")
    fi
    printf '%s: %d bytes, sha256 %s\n' "$1" "$(wc -c <"$1")" "${digest%% *}"
}
