#!/bin/sh
# Makes {{name}}.wasm: ./build.sh [MORE FLAGS FOR GO BUILD...]
set -eu
cd "$(dirname "$0")"

if ! command -v go >/dev/null 2>&1; then
    echo "no go in PATH; install Go 1.21 or newer (https://go.dev/dl)" >&2
    exit 127
fi
GOOS=wasip1 GOARCH=wasm go build -trimpath -buildvcs=false -ldflags='-s -w' "$@" -o {{name}}.wasm .
