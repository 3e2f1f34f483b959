#!/bin/sh
# Runs the whole suite in one environment: on the native backend, then on the reference backend.
#
#   sh tools/run_tests.sh ENVIRONMENT [PYTEST ARGUMENT...]
set -eu
environment=$1
shift
# What jax itself computes is compiled once for both runs.
JAX_COMPILATION_CACHE_DIR=$(mktemp -d)
trap 'rm -rf "$JAX_COMPILATION_CACHE_DIR"' EXIT
export JAX_COMPILATION_CACHE_DIR
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
echo "== $environment: native"
"$environment/bin/python" -m pytest -q "$@"
echo "== $environment: reference"
SEEDBED_BACKEND=reference "$environment/bin/python" -m pytest -q "$@"
