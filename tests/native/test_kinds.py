"""What kinds of draws are: csrc/kinds.h and `seedbed._plan.draw` say it in the same words."""

import inspect
import os
import re
import shutil
import subprocess

import pytest

import plan_reference as ref
from helpers import ROOT
from seedbed import _plan
from seedbed._jax import known
from seedbed._plan import Kind
from seedbed._plan.draw import RECORDS, KeyMode

pytestmark = pytest.mark.end("newest")

HEADER = (ROOT / "csrc/kinds.h").read_text(encoding="utf-8")


def snake(name: str) -> str:
    """``kClipLow`` as ``clip_low``."""
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name.removeprefix("k")).lower()


def kinds(header: str) -> dict[str, int]:
    body = re.search(r"enum class Kind : int64_t \{(.*?)\};", header, re.DOTALL)[1]
    return {snake(name): int(number) for name, number in re.findall(r"(k\w+) = (\d+)", body)}


def key_modes(header: str) -> dict[str, tuple[int, str]]:
    body = re.search(r"enum class KeyMode : uint32_t \{(.*?)\};", header, re.DOTALL)[1]
    lines = re.findall(r"(k\w+) = (\d+), +// (.*)", body)
    return {snake(name): (int(number), said) for name, number, said in lines}


def records(header: str) -> dict[str, dict]:
    """By kind: formula, names of the parameters, and by width the items, how many parameters, and
    whether CPUs alone make it."""
    found = {}
    pattern = (
        r"^namespace (\w+) \{\n// (.*)\nenum Param : int \{ (.*) \};\n"
        r"constexpr KindRecord kRecord = \{Kind::(k\w+), \"(\w+)\", Source::k\w+, \{\n(.*)\}\};$"
    )
    for space, formula, names, kind, text, forms in re.findall(pattern, header, re.MULTILINE):
        params = [snake(name) for name in names.split(", ")]
        assert (space, space) == (snake(kind), text) and params.pop() == "count"
        count = {"count": len(params), **{name: i for i, name in enumerate(params)}}
        widths = {
            int(bits): (tuple(map(int, items.split(", "))), count[snake(n)], where == ", kCpuOnly")
            for bits, items, n, where in re.findall(
                r"\{(\d+), \{([\d, ]+)\}, (k\w+), \d+(, kCpuOnly|)\}", forms
            )
        }
        found[space] = {"formula": formula, "params": params, "forms": widths}
    return found


def differences(header: str) -> list[str]:
    """Where Python says something else."""
    wrong = []

    def compare(what, in_header, in_python):
        if in_header != in_python:
            wrong.append(f"{what}: {in_header} in kinds.h, {in_python} in Python")

    compare("kinds", kinds(header), {kind.name.lower(): kind.value for kind in Kind})
    said = re.findall(r"^ +([A-Z_]+) = \d+  # (.*)$", inspect.getsource(KeyMode), re.MULTILINE)
    modes = {name.lower(): (KeyMode[name].value, text) for name, text in said}
    compare("modes", key_modes(header), modes)
    parsed = records(header)
    compare("records", [*parsed], [kind.name.lower() for kind in RECORDS])
    for kind, record in RECORDS.items():
        name = kind.name.lower()
        written = parsed.get(name, {})
        compare(f"formula of {name}", written.get("formula"), record.formula)
        compare(f"params of {name}", written.get("params"), [*record.params, *record.asked])
        counts = {bits: len(record.params) for bits, _ in record.forms}
        if record.asked:
            counts[64] += len(record.asked)
        forms = {
            bits: (items, counts[bits], bits in record.cpu_only) for bits, items in record.forms
        }
        compare(f"forms of {name}", written.get("forms"), forms)
    return wrong


def test_both_languages_say_the_same():
    assert not differences(HEADER)
    assert set(RECORDS) == set(Kind) and len(records(HEADER)) == len(Kind)
    assert set(KeyMode) == {ref.MEMBER_KEYS, ref.RANGE, ref.INDICES, ref.ALL}


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("kNormal = 3", "kNormal = 9", "kinds"),
        ("kRange = 1,       // fold(key, first + i)", "kRange = 1,  // fold(key, i)", "modes"),
        ("// ranged * scale + shift", "// ranged * shift + scale", "formula of uniform"),
        ("kSpan, kLow, kScale, kShift", "kSpan, kLow, kShift, kScale", "params of uniform"),
        ("{32, {4}, kNear, 5}", "{32, {4}, kCount, 5}", "forms of normal"),
        ("kCount, 5, kCpuOnly}", "kCount, 5}", "forms of normal"),
        ("{32, {1, 2, 4}, kCount, 8}", "{32, {1, 2}, kCount, 8}", "forms of randint"),
    ],
)
def test_the_comparison_can_fail(old, new, where):
    assert old in HEADER
    (wrong,) = differences(HEADER.replace(old, new, 1))
    assert wrong.startswith(f"{where}: ")


def compiled(folder, platform: str) -> subprocess.CompletedProcess:
    """The operations of a platform, with what the folder has in place of files of csrc."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    (folder / "all.cc").write_text(f'#include "{platform}/ops.h"\n', encoding="utf-8")
    isa = "neon" if known.machine() == "arm64" else "baseline"
    flags = ["-std=c++17", "-fsyntax-only", "-w", f"-DSEEDBED_ISA={isa}"]
    flags += [f"-I{folder}", f"-I{ROOT / 'csrc'}"]
    return subprocess.run([compiler, *flags, folder / "all.cc"], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("platform", "file", "old", "new"),
    [
        ("cpu", "cpu/ops.h", "BernoulliF32, ", ""),
        ("cpu", "cpu/ops.h", "Randint64<uint16_t>, ", ""),
        ("cpu", "cpu/ops.h", "Table<uint8_t>, ", ""),
        ("cpu", "kinds.h", "{8, {1, 2, 4}, kCount, 4}", "{8, {1, 2, 4, 8}, kCount, 4}"),
        ("cuda", "cuda/ops.h", "RowKeys, ", ""),
        ("cuda", "cuda/ops.h", "Constant<uint16_t>, ", ""),
        ("cuda", "cuda/ops.h", "BernoulliF64,\n", "\n"),
        ("cuda", "kinds.h", "kCount, 5, kCpuOnly}", "kCount, 5}"),
        ("cuda", "kinds.h", "{32, {4}, kNear, 5}", "{32, {4}, kNear, 5, kCpuOnly}"),
    ],
)
def test_every_form_has_an_operation(tmp_path, platform, file, old, new):
    assert compiled(tmp_path, platform).returncode == 0
    text = (ROOT / "csrc" / file).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    failed = compiled(tmp_path, platform)
    assert failed.returncode and "a form in kinds.h has no operation" in failed.stderr


def test_parameters_have_names():
    words = _plan.float_params(Kind.NORMAL, 32, span=2.0, low=-1.0)
    draw = _plan.make_draw(Kind.NORMAL, _plan.KeyPath(), 32, "float32", (3,), words)
    neutral = {"factor": 1.0, "clip_low": -float("inf"), "clip_high": float("inf")}
    assert draw.floats() == {"span": 2.0, "low": -1.0, **neutral, "scale": 1.0, "shift": 0.0}
    for values in ({"span": 2.0}, {"span": 2.0, "low": 0.0, "spam": 1.0}):
        with pytest.raises(KeyError, match="low" if len(values) == 1 else "spam"):
            _plan.float_params(Kind.UNIFORM, 32, **values)
