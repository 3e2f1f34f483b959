"""Checks every native kernel, under every instruction set of this machine, against XLA.

Known answers of the cipher; then all 2^23 words that a float32 normal can be made from, one by
one (at every place of short rows too, where those are native); then float64 normals at both ends,
around every point where their arithmetic changes, and of random words (--words sets how many); then
uniforms, booleans, and an ensemble from end to end. Every number counts values whose bits differ.
Where jax computes on an NVIDIA GPU, its kernels are compared with XLA there, on random words.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._ensemble import ensemble
from .._jax import ask_xla, compat, known, lowering
from .._plan import CUDA_KERNELS, Draw, FromDraw, KeyMode, KeyPath, Kind, float_params, node
from .._run import formula, native
from .._trust import cache, cases, selfcheck
from . import OK, _text
from ._oracle import Oracle, bits
from ._results import Result, finish

# A float32 uniform keeps 23 bits of its word; the words i << 9 are all of them.
_MANTISSAS = 1 << 23
_CHUNK = 1 << 19
_DRAWN = 1 << 21
_QUICK = 16  # a quick run does a 16th
_MEMBERS = 64
# A GPU draws words instead of taking them: in so many rounds all mantissas but one or two.
_CUDA_ROUNDS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quick", action="store_true", help="check a subset: no proof, but done in seconds"
    )
    parser.add_argument(
        "--words",
        type=_text.positive,
        metavar="N",
        help=f"random words for each float64 normal (default {_DRAWN:,}, --quick a {_QUICK}th)",
    )
    parser.add_argument(
        "--clear-cache", action="store_true", help="remove what earlier self-checks measured, only"
    )


def run(args: argparse.Namespace) -> int:
    if args.clear_cache:
        where, count = cache.clear()
        print(f"seedbed doctor: {count} measurement(s) removed from {where or 'no cache'}")
        return OK
    with warnings.catch_warnings():
        # What it says is shown here, in more detail.
        warnings.simplefilter("ignore", selfcheck.SelfCheckWarning)
        return _examine(args)


def _examine(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    versions = known.versions()
    print(f"seedbed doctor: native kernels against XLA of jaxlib {versions['jaxlib']}")
    if args.quick:
        print("QUICK: only a subset of the values is checked; leave out --quick for all of them.")
    module, problem = native.load()
    if module is None:
        print(f"\nThere is no native extension to check: {problem}.")
        print("Everything is computed by JAX itself (the reference backend), so there is")
        print("nothing that could differ. Cipher, kernels and FFI target were NOT checked.")
        if args.quick:
            return OK
        return finish(_ensemble_results(None), started)
    module.isa()  # an unknown SEEDBED_ISA is an error before any work
    isas = list(module.isas())
    checks = _checks(args.quick, args.words)
    results = [_known_answers(module, isas)]
    total = sum(check.compared for check in checks)
    if compat.has_platform("cpu"):
        with _text.Progress(total) as progress, lowering.xla_on("cpu"):
            for check in checks:
                results.append(_compare(module, isas, check, progress))
    else:
        print("\njax was told to do without the CPU, whose kernels were NOT compared with XLA.")
    if compat.platform() == "cuda":
        narrow = [check for check in checks if check.row == 1 and check.draw.needs in CUDA_KERNELS]
        results += _cuda_results(narrow)
    results += _ensemble_results(module)
    header = ["values whose bits differ", *isas]
    print("\n" + _text.table([header, *(result.row(isas) for result in results if result.wrong)]))
    if not ask_xla.flat_rows():
        print("\nmade by XLA, by its loops: normals in rows of 3 to 5, other samplers' in 2 to 8")
    return finish(results, started)


# --- the cipher and the kernels -----------------------------------------------------------


def _known_answers(module: Any, isas: list[str]) -> Result:
    wrong = {isa: selfcheck.known_answers(module, isa) for isa in isas}
    return Result("cipher, known answers", len(cases.KNOWN_ANSWERS), wrong)


@dataclass(frozen=True)
class _Check:
    """A draw whose values are compared: on all mantissas, or on random words.

    ``count`` is the number of mantissas or words; a float64 normal has its edges besides.
    """

    name: str
    draw: Draw
    count: int
    exhaustive: bool = False
    row: int = 1  # in rows of this length, where every word comes at every place

    @property
    def compared(self) -> int:
        """How many values: the last row of each chunk is filled up."""
        if self.row == 1:
            return self.count + (_edges(self.draw).size if self.draw.needs == "normal64" else 0)
        chunk = min(self.count, _CHUNK)
        return self.count // chunk * self.row * _whole(chunk, self.row)


def _whole(count: int, row: int) -> int:
    return -(-count // row) * row


def _checks(quick: bool, words_of_normals: int | None = None) -> list[_Check]:
    root_two, below_one = np.sqrt(np.float32(2)), np.nextafter(np.float32(-1), np.float32(0))
    everything = {"span": np.float32(2), "low": below_one}
    # jax.random.truncated_normal(-2, 2): a uniform between erf(-2 / sqrt 2) and erf(2 / sqrt 2).
    truncated = {"span": 1.9089994430541992, "low": -0.9544997215270996, "factor": root_two}
    truncated |= _clip(np.float32(2))
    normals = {
        "normal": {**everything, "scale": root_two},
        "normal * 0.02": {**everything, "scale": root_two * np.float32(0.02)},
        "normal * 0.5 + 1": {**everything, "scale": root_two * np.float32(0.5), "shift": 1.0},
        "truncated normal (-2, 2)": truncated,
        "  scaled as he_normal": {**truncated, "scale": 0.20097},
    }
    ranges = {
        "uniform [0, 1)": (0, 1),
        "uniform [-1, 1)": (-1, 1),
        "uniform [-3.7, 1e6)": (-3.7, 1e6),
    }
    mantissas, drawn = (n // (_QUICK if quick else 1) for n in (_MANTISSAS, _DRAWN))
    floats = [(name, Kind.NORMAL, values) for name, values in normals.items()]
    samplers = Kind.EXPONENTIAL, Kind.GUMBEL, Kind.LAPLACE
    floats += [(kind.name.lower(), kind, {}) for kind in samplers]
    checks = [
        _Check(name, _float_draw(kind, 32, values), mantissas, exhaustive=True)
        for name, kind, values in floats
    ]
    wide = drawn if words_of_normals is None else words_of_normals
    for name, values in _wide_normals().items():
        checks.append(_Check(name, _float_draw(Kind.NORMAL, 64, values), wide))
    if ask_xla.flat_rows():
        normal = _float_draw(Kind.NORMAL, 32, normals["normal"])
        checks += [
            _Check(f"normal in rows of {row}", normal, mantissas, exhaustive=True, row=row)
            for row in ask_xla.SHORT_ROWS
        ]
    for word_bits in (32, 64):
        real: Any = np.float32 if word_bits == 32 else np.float64
        for name, (low, high) in ranges.items():
            values = {"span": real(high) - real(low), "low": real(low)}
            title = name if word_bits == 32 else f"{name} float64"
            checks.append(_Check(title, _float_draw(Kind.UNIFORM, word_bits, values, drawn), drawn))
        values = {"span": 1.0, "low": 0.0, "p": 0.3}
        draw = _float_draw(Kind.BERNOULLI, word_bits, values, drawn)
        checks.append(_Check(f"bernoulli 0.3 of {word_bits} bits", draw, drawn))
    return checks


def _wide_normals() -> dict[str, dict[str, float]]:
    root_two, edge = math.sqrt(2), math.erf(math.sqrt(2))
    everything = {"span": 2.0, "low": math.nextafter(-1, 0)}
    truncated = {"span": 2 * edge, "low": -edge, "factor": root_two, **_clip(2.0)}
    return {
        "normal float64": {**everything, "scale": root_two},
        "normal * 0.5 + 1 float64": {**everything, "scale": root_two * 0.5, "shift": 1.0},
        "truncated normal float64": {**truncated, "scale": 0.17},
    }


# Where the arithmetic of a float64 erf_inv changes: -x^2 at both bounds of log1p, w at both ends of
# the middle polynomial.
_CHANGES = (
    0.6435942529055827,
    0.541196100146197,
    *(math.sqrt(-math.expm1(-w)) for w in (6.25, 16)),
)
_NEAR_EDGES = 1 << 12


def _edges(draw: Draw) -> np.ndarray[Any, Any]:
    """Words of both ends of a draw's range, of its middle and of where its arithmetic changes."""
    p = draw.floats()
    places = [(sign * x - p["low"]) / p["span"] for x in _CHANGES for sign in (-1, 1)]
    units = [0.0, 0.5, 1.0, *places]
    inside = [int(unit * (1 << 52)) for unit in units if 0 <= unit <= 1]
    around = np.add.outer(np.array(inside), np.arange(-_NEAR_EDGES, _NEAR_EDGES)).ravel()
    mantissas: np.ndarray[Any, Any] = around.clip(0, (1 << 52) - 1).astype(np.uint64)
    return mantissas << np.uint64(12)


def _clip(bound: Any) -> dict[str, float]:
    edge = np.nextafter(bound, type(bound)(0))
    return {"clip_low": -edge, "clip_high": edge}


def _float_draw(kind: Kind, word_bits: int, values: dict[str, float], inner: int = 0) -> Draw:
    dtype = "bool" if kind is Kind.BERNOULLI else f"float{word_bits}"
    constants = float_params(kind, word_bits, **values)
    return Draw(kind, KeyPath(node=node(1)), inner, word_bits, dtype, (inner,), constants)


def _compare(module: Any, isas: list[str], check: _Check, progress: _text.Progress) -> Result:
    """Runs XLA once and every instruction set against it."""
    result = Result(check.name, check.compared, dict.fromkeys(isas, 0))
    expected_of = jax.jit(formula.chain(check.draw))
    for word in _words(module, check):
        shape = word.shape if check.row == 1 else (-1, check.row)
        expected = np.asarray(expected_of(word.reshape(shape))).reshape(word.shape)
        for isa in isas:
            made = _made(module, isa, check, word)
            result.wrong[isa] += int(np.count_nonzero(bits(made) != bits(expected)))
        progress.advance(word.size, check.name.strip())
    return result


def _cuda_results(checks: list[_Check]) -> list[Result]:
    """The CUDA kernels against XLA on the same device, on random words."""
    module, problem = native.load_cuda()
    if module is None:
        print(f"\nThe CUDA kernels were NOT checked: {problem}.")
        return []
    results = []
    rounds = {check.name: _CUDA_ROUNDS if check.exhaustive else 1 for check in checks}
    with _text.Progress(sum(check.count * rounds[check.name] for check in checks)) as progress:
        for check in checks:
            name, count, different = f"{check.name.strip()}, CUDA", 0, 0
            seen = np.zeros(_MANTISSAS, bool)
            for index in range(rounds[check.name]):
                try:
                    word, wrong = _cuda_round(check, index)
                except jax.errors.JaxRuntimeError as error:
                    print(f"\nThe CUDA kernels do not run: {error}")
                    return [Result("CUDA kernels", 1, total_wrong=1, by_kernel=True)]
                count += word.size
                different += wrong
                if check.exhaustive:
                    seen[word >> np.uint32(9)] = True
                progress.advance(word.size, name)
            if check.exhaustive:
                name += f" ({int(seen.sum()):,} of {_MANTISSAS:,} mantissas)"
            results.append(Result(name, count, total_wrong=different, by_kernel=True))
    return results


def _cuda_round(check: _Check, index: int) -> tuple[np.ndarray[Any, Any], int]:
    """Random words and how many of their values differ."""
    path = KeyPath(node=node(1 + index))
    draw = check.draw.replace(key=path, inner=check.count, shape=(check.count,))
    plain = f"uint{draw.word_bits}"
    drawn = Draw(Kind.BITS, path, draw.inner, draw.word_bits, plain, draw.shape)
    word, made = selfcheck.cuda_values((drawn, draw))
    with lowering.xla_on("cuda"):
        expected = np.asarray(jax.jit(formula.chain(draw))(word))
    return word, int(np.count_nonzero(bits(made) != bits(expected)))


def _words(module: Any, check: _Check) -> Iterator[np.ndarray[Any, Any]]:
    if check.draw.needs == "normal64":
        yield _edges(check.draw)
        for start in range(0, check.count, _CHUNK):
            yield _random_words(module, 1 + start, min(_CHUNK, check.count - start))
        return
    if not check.exhaustive:
        plain = check.draw.replace(kind=Kind.BITS, params=(), dtype=f"uint{check.draw.word_bits}")
        yield selfcheck.native_values(module, (plain,))[0]
        return
    # A subset has every 16th mantissa, so that it still reaches both tails.
    step = _MANTISSAS // check.count
    for start in range(0, _MANTISSAS, _CHUNK * step):
        stop = min(start + _CHUNK * step, _MANTISSAS)
        word = np.arange(start, stop, step, dtype=np.uint32) << np.uint32(9)
        for places in range(check.row):
            yield np.resize(np.roll(word, places), _whole(word.size, check.row))


def _random_words(module: Any, index: int, count: int) -> np.ndarray[Any, Any]:
    draw = Draw(Kind.BITS, KeyPath(node=node(index)), count, 64, "uint64", (count,))
    return selfcheck.native_values(module, (draw,))[0]


def _made(module: Any, isa: str, check: _Check, word: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if not check.exhaustive and check.draw.needs != "normal64":
        return selfcheck.native_values(module, (check.draw,), isa)[0]
    made = np.empty(word.shape, check.draw.dtype)
    params = np.array(native.params(check.draw), word.dtype).view(made.dtype)
    module.transform(params, word, made, isa=isa, kind=check.draw.kind)
    return made


# --- an ensemble, from end to end ---------------------------------------------------------


def _init(key: jax.Array) -> dict[str, jax.Array]:
    """One leaf of every kind, with every way to come by a key."""
    a, b, c, d = jax.random.split(jax.random.fold_in(key, 5), 4)
    stacked: Any = jax.vmap(lambda key: jax.nn.initializers.lecun_normal()(key, (7, 9)))
    return {
        "bfloat16": jax.random.normal(jax.random.fold_in(a, 1), (33,), jnp.bfloat16),
        "bits": jax.random.bits(jax.random.fold_in(a, 2), (31,)),
        "coin": jax.random.bernoulli(jax.random.fold_in(a, 3), 0.3, (17,)),
        "integers": jax.random.randint(b, (100,), -7, 1000),
        "normal": 0.02 * jax.random.normal(jax.random.fold_in(b, 1), (65, 33)),
        "stack": stacked(jax.random.split(c, 5)),
        "uniform": jax.random.uniform(d, (129,), minval=-0.3, maxval=0.9),
    }


def _ensemble_results(module: Any) -> list[Result]:
    """The same ensemble by XLA, by the installed backend (also under jit), and by each kernel."""
    key = jax.random.key(7, impl="threefry2x32")
    make = ensemble.ensemble(_init, _MEMBERS)
    plan = make.plan(key)
    oracle = Oracle(_init, jax.random.split(key, _MEMBERS))
    results = []
    made_by = "reference" if plan.reference else "native"
    whole: Any = make
    for name, call in (("called directly", whole), ("under jax.jit", jax.jit(whole))):
        wrong, _ = oracle.differing(enumerate(jax.tree.leaves(call(key))))
        name = f"ensemble of {_MEMBERS} {name}, {made_by}"
        results.append(Result(name, oracle.count(range(len(plan.outputs))), total_wrong=wrong))
    if module is None or not plan.draws:
        return results
    written = [
        (leaf, output.source.index)
        for leaf, output in enumerate(plan.outputs)
        if isinstance(output.source, FromDraw)
    ]
    each = Result(f"ensemble of {_MEMBERS}", oracle.count(leaf for leaf, _ in written))
    for isa in module.isas():
        made = _by_kernel(module, isa, plan.draws, key)
        each.wrong[isa], _ = oracle.differing([(leaf, made[index]) for leaf, index in written])
    return [each, *results]


def _by_kernel(module: Any, isa: str, draws: tuple[Draw, ...], key: Any) -> list[Any]:
    """All members' draws by one instruction set, without XLA."""
    made = [np.zeros((_MEMBERS, *draw.shape), jnp.dtype(draw.dtype)) for draw in draws]
    module.run_plan(
        native.encode(draws),
        KeyMode.RANGE,
        _MEMBERS,
        np.asarray(jax.random.key_data(key)),
        np.zeros(2, np.uint32),
        [bits(array) for array in made],
        isa=isa,
    )
    return made
