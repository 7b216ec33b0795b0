#!/bin/sh
# Builds every example. One whose toolchain is not installed is skipped; one that does not build is a failure.
set -eu
cd "$(dirname "$0")"

built='' skipped='' failed=''
for script in */build.sh; do
    name=${script%/build.sh}
    status=0
    "$script" || status=$?
    case $status in
        0) built="$built $name" ;;
        1) skipped="$skipped $name" ;; # see common.sh
        *) failed="$failed $name" ;;
    esac
done

echo "built:${built:- none}"
[ -z "$skipped" ] || echo "skipped for want of a toolchain (said above):$skipped"
[ -z "$failed" ] || {
    echo "failed:$failed"
    exit 2
}
