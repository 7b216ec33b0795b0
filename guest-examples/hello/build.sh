#!/bin/sh
set -eu
cd "$(dirname "$0")"
. ../common.sh

build_c hello -O2
