"""tools/instructions.py: what it makes of counts. The counting itself is a step of CI's own."""

import json
import re

import pytest

from helpers import ROOT, load_tool

pytestmark = pytest.mark.end("newest")

HERE = "gcc 12 x86_64"


@pytest.fixture(scope="module")
def tool():
    return load_tool("instructions")


def _counts(normal=25.0):
    return {"avx2": {"bits": 14.0, "normal": normal}}


@pytest.mark.parametrize(
    ("normal", "good"), [(25.0, True), (25.7, True), (25.8, False), (12.0, True)]
)
def test_three_per_cent_more_than_the_same_compiler_is_too_many(tool, normal, good):
    lines, within = tool.compare(_counts(normal), {HERE: _counts()}, HERE)
    assert within is good
    assert ("TOO MANY" in "\n".join(lines)) is not good
    assert ("--update" in lines[-1]) is not good


def test_a_kernel_without_a_count_fails_until_it_is_stored(tool):
    new = {"avx2": _counts()["avx2"] | {"gamma": 30.0}}
    lines, good = tool.compare(new, {HERE: _counts()}, HERE)
    assert not good and any("gamma" in line and "not stored" in line for line in lines)


@pytest.mark.parametrize(("normal", "good"), [(31.0, True), (31.5, False)])
def test_an_unknown_compiler_is_compared_with_the_nearest(tool, normal, good):
    stored = {HERE: _counts(), "gcc 9 x86_64": _counts(1.0), "clang 14 x86_64": _counts(1.0)}
    lines, within = tool.compare(_counts(normal), stored, "gcc 13 x86_64")
    assert within is good
    assert "no stored count for gcc 13 x86_64" in lines[0] and HERE in lines[0]


def test_nothing_is_compared_across_machines(tool):
    lines, good = tool.compare(_counts(99.0), {HERE: _counts()}, "gcc 12 aarch64")
    assert good and "no stored counts for gcc 12 aarch64" in lines[0]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (HERE, HERE),
        ("gcc 14 x86_64", HERE),
        ("clang 15 x86_64", "clang 14 x86_64"),
        ("icx 1 x86_64", "gcc 9 x86_64"),
        ("gcc 12 aarch64", None),
    ],
)
def test_nearest(tool, name, found):
    assert tool.nearest(name, [HERE, "clang 14 x86_64", "gcc 9 x86_64"]) == found


def test_the_flags_are_those_of_the_build(tool, monkeypatch):
    kernel_flags = tool.kernel_flags
    monkeypatch.setattr(kernel_flags.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(kernel_flags, "macros", lambda command: {"__GNUC__": "12"})
    flags = kernel_flags.by_isa(["c++"])
    assert set(flags) == {"baseline", "avx2", "avx512"}
    assert {"-fstack-protector-strong", "-fcf-protection=full"} <= set(flags["avx512"])
    assert {"-O3", "-ffp-contract=off", "-fschedule-insns"} <= set(flags["baseline"])
    added = set(flags["avx2"]) - set(flags["baseline"])
    assert added == {"-mavx2", "-mfma", "-DSEEDBED_ISA=avx2"}
    monkeypatch.setattr(kernel_flags, "macros", lambda command: {"__clang__": "1"})
    assert "-fschedule-insns" not in kernel_flags.by_isa(["c++"])["avx512"]
    monkeypatch.setattr(kernel_flags.platform, "machine", lambda: "aarch64")
    assert set(kernel_flags.by_isa(["c++"])) == {"neon"}
    assert "-fstack-protector-strong" in kernel_flags.by_isa(["c++"])["neon"]
    assert "-fcf-protection=full" not in kernel_flags.by_isa(["c++"])["neon"]
    with pytest.raises(RuntimeError, match="not found in CMakeLists"):
        kernel_flags.by_isa(["c++"], "project(other)")


def test_stored_counts_are_of_every_kernel_that_is_counted(tool):
    source = (ROOT / "tools/instructions.cc").read_text(encoding="utf-8")
    counted = set(re.findall(r'^  count(?:_fill)?\("([^"]+)"', source, re.MULTILINE))
    assert len(counted) > 10
    for name, isas in json.loads(tool.STORED.read_text(encoding="utf-8")).items():
        assert tool.nearest(name, [name]) == name
        for kernels in isas.values():
            assert set(kernels) == counted


def test_the_compiler_is_told_by_its_macros(tool, monkeypatch):
    found = {"__clang__": "1", "__GNUC__": "4", "__clang_major__": "17"}
    monkeypatch.setattr(tool.kernel_flags, "macros", lambda command: found)
    monkeypatch.setattr(tool.platform, "machine", lambda: "x86_64")
    assert tool.compiler_name(["c++"]) == "clang 17 x86_64"
    monkeypatch.setattr(tool.kernel_flags, "macros", lambda command: {"__GNUC__": "13"})
    assert tool.compiler_name(["c++"]) == "gcc 13 x86_64"


def test_without_valgrind_it_says_so(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool.shutil, "which", lambda name: None if name == "valgrind" else name)
    assert tool.main([]) == 0
    assert "there is no valgrind here" in capsys.readouterr().out


def test_a_failed_build_is_an_error(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool.shutil, "which", lambda name: name)
    monkeypatch.setattr(tool, "compiler_name", lambda compiler: HERE)

    def fail(compiler):
        raise tool.subprocess.CalledProcessError(1, compiler, stderr="no such header")

    monkeypatch.setattr(tool, "measure", fail)
    assert tool.main([]) == 1
    assert "no such header" in capsys.readouterr().err
