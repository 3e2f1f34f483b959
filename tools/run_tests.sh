#!/bin/sh
# Runs the whole suite in one environment: on the native backend, then on the reference backend.
#
#   sh tools/run_tests.sh ENVIRONMENT [PYTEST ARGUMENT...]
set -eu
environment=$1
shift
echo "== $environment: native"
"$environment/bin/python" -m pytest -q "$@"
echo "== $environment: reference"
SEEDBED_BACKEND=reference "$environment/bin/python" -m pytest -q "$@"
