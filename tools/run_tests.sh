#!/bin/sh
# Runs the suite in one environment: on the native backend, then on the reference backend.
#
#   sh tools/run_tests.sh ENVIRONMENT [all|newest|oldest]
#
# The two ends of the supported versions share work: what works alike with every jax runs on one of
# them alone, the reference run of "oldest" is that of the core, the one of "newest" that of the
# adapters. Of the cases that have jax compile something, each end has every second one (see
# tests/conftest.py). "all" leaves out nothing.
set -eu
environment=$1
# What jax itself computes is compiled once for both runs.
JAX_COMPILATION_CACHE_DIR=$(mktemp -d)
trap 'rm -rf "$JAX_COMPILATION_CACHE_DIR"' EXIT
export JAX_COMPILATION_CACHE_DIR
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

# Tests of the repository and its command line, of trees, states and the ambient stream.
newest_only="benchmarks benchmarks_limits cli cuda_host instructions layout
    collective_interrupts collective_lines collective_threads copies endless filters layers module
    sass split state stream take traverse"
oldest_only="docs examples"
# Tests of numbers that come by way of a backend: of functions, and of frameworks' models.
core="backends collective ensemble equivalence execute generators key_reuse recorded run streams
    transformations"
models="adapter_brainstate adapter_equinox adapter_haiku adapter_linen adapter_nnx adapters
    numbers pickled"

ignored() { for name in $1; do echo "--ignore=tests/test_$name.py"; done; }
chosen() { for name in $1; do echo "tests/test_$name.py"; done; }

case "${2:-all}" in
    newest) share=1/2 native=$(ignored "$oldest_only") reference=$(chosen "$models") ;;
    oldest) share=2/2 native=$(ignored "$newest_only") reference=$(chosen "$core") ;;
    *) share=1/1 native="" reference="" ;;
esac

echo "== $environment: native"
# shellcheck disable=SC2086
SEEDBED_SHARE="$share" "$environment/bin/python" -m pytest -q $native
echo "== $environment: reference"
# The adapters run there at this end alone, all of them.
[ "${2:-all}" != newest ] || share=1/1
# shellcheck disable=SC2086
SEEDBED_SHARE="$share" SEEDBED_BACKEND=reference "$environment/bin/python" -m pytest -q $reference
