"""tools/hardening.py sees what a module lacks that was compiled without it."""

import platform
import shutil
import subprocess

import pytest

from helpers import load_tool

pytestmark = [
    pytest.mark.end("newest"),
    pytest.mark.skipif(
        platform.system() != "Linux" or shutil.which("cc") is None, reason="no C compiler for ELF"
    ),
]

SOURCE = """
#include <stdio.h>
void *PyInit_module(const char *format, int n) {
  char text[64];
  sprintf(text, format, n);
  puts(text);
  return 0;
}
"""
HARD = [
    *("-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"),
    "-Wl,-z,relro,-z,now,-z,noexecstack",
]
X86 = platform.machine() == "x86_64"
LACKING = {
    "-Wl,-z,lazy": "resolved one by one",
    "-Wl,-z,norelro": "stay writable",
    "-Wl,-z,execstack": "stack is executable",
    "-Wl,-rpath,/opt/lib": "search path",
    "-fno-stack-protector": "no function protects its stack",
    "-U_FORTIFY_SOURCE": "no call of the C library is checked",
    "-DPyInit_module=other": "exports no PyInit_",
}
if X86:
    HARD.append("-fcf-protection=full")
    LACKING["-fcf-protection=none"] = "do not begin with endbr64"


@pytest.fixture(scope="module")
def tool():
    return load_tool("hardening")


@pytest.fixture
def compiled(tmp_path):
    def make(*flags: str):
        path = tmp_path / "module.so"
        command = ["cc", "-O2", "-w", "-shared", "-fPIC", "-x", "c", "-", *flags, "-o", path]
        subprocess.run(command, input=SOURCE, text=True, check=True, capture_output=True)
        return path

    return make


def test_a_hardened_module_lacks_nothing(tool, compiled, capsys):
    assert tool.main([str(compiled(*HARD))]) == 0
    assert capsys.readouterr().out.startswith("module.so: hardened")


@pytest.mark.parametrize("flag", LACKING)
def test_each_thing_that_is_lacking_is_named(tool, compiled, capsys, flag):
    path = compiled(*HARD, flag)
    assert tool.main([str(path)]) == 1
    (problem,) = tool.problems(tool.Elf(path.read_bytes()))
    assert LACKING[flag] in problem
    assert LACKING[flag] in capsys.readouterr().out
    assert tool.problems(tool.Elf(path.read_bytes()), fortify=False) == (
        [] if flag == "-U_FORTIFY_SOURCE" else [problem]
    )


def test_what_is_no_elf_file_is_refused(tool):
    with pytest.raises(ValueError, match="not a 64-bit little-endian ELF"):
        tool.Elf(b"MZ" + bytes(64))
