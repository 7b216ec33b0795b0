#!/bin/sh
set -eu
cd "$(dirname "$0")"
. ../common.sh

# One page of memory: it is wiped after each call, and the usual 64 KB of stack would double it.
build_c hello -O2 -Wl,-z,stack-size=8192 -Wl,--initial-memory=65536
