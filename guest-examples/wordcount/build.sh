#!/bin/sh
set -eu
cd "$(dirname "$0")"
. ../common.sh

command -v go >/dev/null 2>&1 ||
    missing "no go in PATH; install Go 1.21 or newer (https://go.dev/dl)"

GOOS=wasip1 GOARCH=wasm
export GOOS GOARCH
build go build -trimpath -buildvcs=false -ldflags='-s -w' -o wordcount.wasm .
report wordcount.wasm
