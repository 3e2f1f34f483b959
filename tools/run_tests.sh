#!/bin/sh
# Runs the suite in one environment: on the native backend, then on the reference backend.
#
#   sh tools/run_tests.sh ENVIRONMENT [all|newest|oldest]
#
# The two ends of the supported versions share work, as markers on the tests say (tests/conftest.py).
# "all" leaves out nothing.
set -eu
environment=$1
# What jax itself computes is compiled once for both runs.
JAX_COMPILATION_CACHE_DIR=$(mktemp -d)
trap 'rm -rf "$JAX_COMPILATION_CACHE_DIR"' EXIT
export JAX_COMPILATION_CACHE_DIR
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

case "${2:-all}" in
    all) part="" again="" ;;
    *) part="--end $2" again="--on-reference" ;;
esac

echo "== $environment: native"
# shellcheck disable=SC2086
"$environment/bin/python" -m pytest -q $part
echo "== $environment: reference"
# shellcheck disable=SC2086
SEEDBED_BACKEND=reference "$environment/bin/python" -m pytest -q $part $again
