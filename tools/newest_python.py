"""Prints the newest Python on this machine that the package supports and that runs."""

import glob
import os
import shutil
import subprocess
import sys

MINORS = range(13, 10, -1)


def candidates():
    for minor in MINORS:
        yield shutil.which(f"python3.{minor}")
        # pyenv keeps interpreters that its shims do not answer for unless they are selected.
        root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
        yield from sorted(glob.glob(f"{root}/versions/3.{minor}.*/bin/python3"), reverse=True)


def runs(python):
    test = "import sys, ssl, venv, ctypes; sys.exit(sys.version_info < (3, 11))"
    answer = subprocess.run([python, "-c", test], capture_output=True, check=False)
    return answer.returncode == 0


print(next((python for python in candidates() if python and runs(python)), sys.executable))
