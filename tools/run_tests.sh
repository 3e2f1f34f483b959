#!/bin/sh
# Runs the suite in one environment: on the native backend, then on the reference backend.
#
#   sh tools/run_tests.sh ENVIRONMENT [all|numbers]
#
# On the reference backend run the tests that compute something through a backend ("all", the
# default), or only those that compare numbers with jax ("numbers"). Everything there is:
# SEEDBED_BACKEND=reference pytest.
set -eu
environment=$1
# What jax itself computes is compiled once for both runs.
JAX_COMPILATION_CACHE_DIR=$(mktemp -d)
trap 'rm -rf "$JAX_COMPILATION_CACHE_DIR"' EXIT
export JAX_COMPILATION_CACHE_DIR
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

# Tests of code that is the same on both backends: planning, states and trees, copies, the text
# of errors, what is undone after them, the ambient stream, documentation, command line.
either="benchmarks check cli collective_atomic collective_errors
    collective_interrupts copies cpu cpu_ffi docs examples filters layers layout match module
    plan random split state stream take trace traverse"
numbers="arithmetic backends collective ensemble equivalence execute recorded run
    transformations"

if [ "${2:-all}" = numbers ]; then
    selected=$(for name in $numbers; do echo "tests/test_$name.py"; done)
else
    selected=$(for name in $either; do echo "--ignore=tests/test_$name.py"; done)
fi

echo "== $environment: native"
"$environment/bin/python" -m pytest -q
echo "== $environment: reference"
# shellcheck disable=SC2086
SEEDBED_BACKEND=reference "$environment/bin/python" -m pytest -q $selected
