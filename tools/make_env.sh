#!/bin/sh
# Makes a virtual environment with the package and everything its tests, demo and examples use.
#
#   sh tools/make_env.sh PYTHON DIRECTORY [REQUIREMENT...]
#
# The requirements are installed in one step with the package, so that they can pin jax.
set -eu
python=$1 directory=$2
shift 2
if ! [ -x "$directory/bin/python" ] || ! "$directory/bin/python" -c ''; then
    rm -rf "$directory"
    "$python" -m venv "$directory"
    "$directory/bin/python" -m pip install -q --upgrade 'pip>=25.1'
fi
# Built in isolation, against the FFI headers of the oldest supported jaxlib.
"$directory/bin/python" -m pip install -q \
    --group test --group lint --group demo --group examples . "$@"
"$directory/bin/python" -m seedbed info
touch "$directory/installed"
