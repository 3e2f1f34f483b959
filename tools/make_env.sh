#!/bin/sh
# Makes a virtual environment with the package and what uses it.
#
#   sh tools/make_env.sh PYTHON DIRECTORY GROUPS [REQUIREMENT...]
#
# GROUPS are dependency groups of pyproject.toml, separated by commas. The requirements are installed
# in one step with the package, so that they can pin jax.
set -eu
python=$1 directory=$2 groups=$3
shift 3
started=$(date +%s)
if ! [ -x "$directory/bin/python" ] || ! "$directory/bin/python" -c ''; then
    echo "== $directory: a new virtual environment of $("$python" -V)"
    rm -rf "$directory"
    "$python" -m venv "$directory"
    "$directory/bin/python" -m pip install -q --upgrade 'pip>=25.1'
fi
echo "== $directory: downloads jax and what goes with it, compiles the extension (about a minute) ..."
for group in $(echo "$groups" | tr , ' '); do
    set -- "$@" --group "$group"
done
# Built in isolation, against the FFI headers of the oldest supported jaxlib.
"$directory/bin/python" -m pip install -q . "$@"
"$directory/bin/python" -m seedbed info
touch "$directory/installed"
echo "== $directory: ready after $(($(date +%s) - started)) s, $(du -sm "$directory" | cut -f1) MB"
