"""What the tests share: the oracle, comparison by bits, and plans without a backend."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from jax.interpreters import partial_eval

from seedbed import _match, _trace
from seedbed._ensemble import check
from seedbed._plan import Drawn
from seedbed._plan import plan as _plan
from seedbed._run import execute
from seedbed._trust import backends

ROOT = Path(__file__).resolve().parents[2]


def load_tool(name: str):
    """A script of `tools/` as a module."""
    return load_file(name, ROOT / "tools" / f"{name}.py")


def load_file(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def native_problem() -> str:
    """Why the native backend does not run here; empty if it does."""
    return backends.why_reference(None, False) or ""


def backend_name() -> str:
    problem = native_problem()
    if problem:
        return f"reference ({problem})"
    from seedbed import _cpu

    return f"native ({_cpu.isa()})"


def as_words(array) -> np.ndarray:
    """The bit pattern of an array: keys as their words, numbers as unsigned integers."""
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    array = np.asarray(array)
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], axis=-1)
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)


def _ordered(words: np.ndarray) -> np.ndarray:
    """Bit patterns of floats as integers in the order of the floats, so that 1 is one ulp."""
    top = np.uint64(1) << np.uint64(8 * words.dtype.itemsize - 1)
    wide = words.astype(np.uint64)
    size = (wide & (top - np.uint64(1))).astype(np.int64)
    return np.where(wide & top, -size, size)


def mismatches(got, expected, *, either=None, ulps: int = 0, nan: bool = False) -> np.ndarray:
    """Where two arrays differ in their bits.

    Args:
        either: a second array of right answers; an element equal to one of the two is right.
        ulps: how many units in the last place are allowed.
        nan: take all NaNs as equal (their sign and payload are nobody's promise).
    """
    wrong = as_words(got) != as_words(expected)
    if either is not None:
        wrong &= as_words(got) != as_words(either)
    if wrong.any() and ulps:
        wrong &= np.abs(_ordered(as_words(got)) - _ordered(as_words(expected))) > ulps
    if wrong.any() and nan:
        wrong &= ~(np.isnan(np.asarray(got)) & np.isnan(np.asarray(expected)))
    return wrong


def assert_same_bits(
    got, expected, *, either=None, ulps: int = 0, nan: bool = False, weak: bool = True
) -> None:
    """Asserts that two pytrees agree in structure, shapes, dtypes, weak types and bits."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    others = jax.tree.leaves(either) if either is not None else None
    leaves = jax.tree_util.tree_leaves_with_path(got)
    for position, ((path, one), two) in enumerate(
        zip(leaves, jax.tree.leaves(expected), strict=True)
    ):
        name = jax.tree_util.keystr(path) or "the result"
        assert one.shape == two.shape, f"{name}: shape {one.shape}, expected {two.shape}"
        assert one.dtype == two.dtype, f"{name}: dtype {one.dtype}, expected {two.dtype}"
        if weak and isinstance(one, jax.Array) and isinstance(two, jax.Array):
            weakness = jax.typeof(one).weak_type
            assert weakness == jax.typeof(two).weak_type, f"{name}: weak type {weakness}"
        other = None if others is None else others[position]
        wrong = mismatches(one, two, either=other, ulps=ulps, nan=nan)
        if wrong.any():
            first = tuple(map(int, np.argwhere(wrong)[0]))
            raise AssertionError(
                f"{name} {one.dtype}{list(one.shape)}: {wrong.sum()} of {wrong.size} elements "
                f"differ, first at {first}: words {as_words(one)[first]:#x}, expected "
                f"{as_words(two)[first]:#x}"
            )


def split(key, size: int):
    return jax.random.split(key, size)


def oracle(init, size: int, key, *args, in_axes=None):
    """``jax.jit(jax.vmap(init))`` over split keys: what an ensemble must equal."""
    axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(args)
    return jax.jit(jax.vmap(init, (0, *axes)))(split(key, size), *args)


def plan_of(init, key=None, *args) -> _plan.Plan:
    """The plan for one member, made without any backend."""
    key = jax.random.key(0) if key is None else key
    types = jax.tree.map(lambda leaf: check.member_type(leaf, None), args)
    graph = _trace.trace(init, check.member_key_type(key), types)
    return _match.planned(graph)


def sources(plan: _plan.Plan) -> dict[str, str]:
    """For each output its draw as text, or what ``explain`` says of its origin."""
    return {
        output.path: str(plan.draws[output.source.index])
        if isinstance(output.source, Drawn)
        else output.why
        for output in plan.outputs
    }


def key_paths(plan: _plan.Plan) -> dict[str, str]:
    """For each natively written output the path of its key."""
    return {output.path: str(plan.draws[output.source.index].key) for output in plan.native}


def programs():
    """How many programs were made so far, on either backend."""
    caches = execute.program, execute.reference_program
    return sum(cache.cache_info().misses for cache in caches)


def run_python(code: str, **env: str) -> str:
    """Runs code in a new interpreter from the root of the project; its standard output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@jax.tree_util.register_pytree_node_class
class Tagged:
    """A model of one array and a static tag."""

    def __init__(self, value, tag):
        self.value, self.tag = value, tag

    def tree_flatten(self):
        return (self.value,), self.tag

    @classmethod
    def tree_unflatten(cls, tag, children):
        return cls(children[0], tag)


def random_variables(plan, leaves, left: str | None) -> int:
    """How many variables differ between members; asserts that all but those of ``left`` are drawn
    natively, also where XLA goes on with a native draw, as for an orthogonal matrix.

    Args:
        leaves: of the members, as ``plan`` makes them.
        left: the beginning of the paths that are left to XLA.
    """
    drawn = 0
    for output, leaf in zip(plan.outputs, leaves, strict=True):
        if (np.asarray(leaf) == np.asarray(leaf)[:1]).all():
            continue
        path = "/".join(re.findall(r"\['(.*?)'\]", output.path))
        of_draws = " of draw" in output.why and "reference" not in output.why
        native = output in plan.native or of_draws
        assert native != (left is not None and path.startswith(left)), f"{path}: {output.why}"
        drawn += 1
    return drawn


def not_native_rows(page: str) -> dict[str, str]:
    """What a page of the documentation lists as not native: model and beginning of its paths."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE))


def some(cases):
    """The cases to run: a few on the reference backend, where each compiles the whole init."""
    return cases[::4] if native_problem() else cases


def take(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def chunks(names, count):
    """Groups of names, one oracle each; on the reference backend some of them will do."""
    names = list(names)
    chunks = [tuple(names[start : start + count]) for start in range(0, len(names), count)]
    return chunks[::3] if native_problem() else chunks


# The dtypes whose draws jax supports, by name (ml_dtypes registers bfloat16 with numpy).
BF16 = np.dtype(ml_dtypes.bfloat16)
F16, F32, F64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)


def eagerly(function, *args):
    """``function(*args)`` op by op, as it is without `jax.jit`, but for what no result needs."""
    closed, result = jax.make_jaxpr(function, return_shape=True)(*args)
    needed = [True] * len(closed.jaxpr.outvars)
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, needed, instantiate=True)
    leaves = jax.core.eval_jaxpr(jaxpr, closed.consts, *jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(result), leaves)


def assert_same_as_either(got, function, *args) -> None:
    """Asserts equality with ``function(*args)``; where jit changes bits, with either result.

    Running op by op compiles a draw once for all models that make one of its shape; what differs is
    compiled as a whole, since XLA rounds a leaf by what else the program makes of its draw.
    """
    expected = eagerly(function, *args)
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    differs = any(mismatches(one, two).any() for one, two in pairs)
    either = jax.jit(function)(*args) if differs else None
    assert_same_bits(got, expected, either=either)
