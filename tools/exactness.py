"""Counts the elements of functions of draws that equal neither jax's jitted nor its eager result.

    python tools/exactness.py [--members 4 257 1024] [--dims 1 2 3 ...] [--functions tanh ...]

Every function of a draw is one leaf of an init function, with each innermost dimension. A cell of
the table is ``wrong (ulp)``: elements that equal neither result, and the largest distance to the
nearer of the two in units in the last place; ``.`` where there are none.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

import seedbed as sb

R, I = jax.random, jax.nn.initializers  # noqa: E741 - the names the field uses
Function = Callable[[Any, tuple[int, ...]], Any]


def _of_normal(function: Callable[[Any], Any]) -> Function:
    return lambda key, shape: function(R.normal(key, shape))


FUNCTIONS: dict[str, Function] = {
    "normal": R.normal,
    "truncated_normal": lambda key, shape: R.truncated_normal(key, -2.0, 2.0, shape),
    "uniform": R.uniform,
    "0.3 * normal + 0.1": _of_normal(lambda x: 0.3 * x + 0.1),
    "exponential": R.exponential,
    "gumbel": R.gumbel,
    "logistic": R.logistic,
    "laplace": R.laplace,
    "cauchy": R.cauchy,
    "lognormal": lambda key, shape: R.lognormal(key, shape=shape),
    "rayleigh": lambda key, shape: R.rayleigh(key, 1.0, shape),
    "weibull_min": lambda key, shape: R.weibull_min(key, 1.0, 2.0, shape),
    "pareto": lambda key, shape: R.pareto(key, 2.0, shape),
    "maxwell": R.maxwell,
    "tanh": _of_normal(jnp.tanh),
    "tanh(0.3 x + 0.1)": _of_normal(lambda x: jnp.tanh(0.3 * x + 0.1)),
    "exp": _of_normal(jnp.exp),
    "log(abs)": _of_normal(lambda x: jnp.log(jnp.abs(x))),
    "sqrt(abs)": _of_normal(lambda x: jnp.sqrt(jnp.abs(x))),
    "sin": _of_normal(jnp.sin),
    "square": _of_normal(lambda x: x**2),
    "1 + x + x x": _of_normal(lambda x: 1.0 + x + x * x),
    "sigmoid": _of_normal(jax.nn.sigmoid),
    "softplus": _of_normal(jax.nn.softplus),
    "gelu": _of_normal(jax.nn.gelu),
    "elu": _of_normal(jax.nn.elu),
    "abs(normal) * 0.3": _of_normal(lambda x: jnp.abs(x) * 0.3),
    "log(uniform)": lambda key, shape: jnp.log(R.uniform(key, shape, minval=0.1)),
    "complex normal": lambda key, shape: R.normal(key, shape, jnp.complex64),
    "complex lecun_normal": lambda key, shape: I.lecun_normal(dtype=jnp.complex64)(
        key, (3, *shape)
    ),
    "complex he_uniform": lambda key, shape: I.he_uniform(dtype=jnp.complex64)(key, (3, *shape)),
}


def _words(array: Any) -> Any:
    """The floats as integers in the order of the floats, so that 1 is one ulp."""
    array = np.asarray(array)
    size = array.dtype.itemsize // (2 if array.dtype.kind == "c" else 1)
    words = array.view(f"i{size}").astype(np.int64)
    return np.where(words < 0, -(words & ((1 << (8 * size - 1)) - 1)), words)


def count(names: list[str], dim: int, members: int, seed: int) -> dict[str, tuple[int, ...]]:
    """For each function: how many elements are wrong, by how many ulps at most, of how many."""

    def init(key: Any) -> Any:
        keys = R.split(key, len(names))
        return {name: FUNCTIONS[name](one, (dim,)) for name, one in zip(names, keys, strict=True)}

    key = R.key(seed)
    keys = R.split(key, members)
    got = sb.ensemble(init, members)(key)
    jitted = jax.jit(jax.vmap(init))(keys)
    eager = None
    found = {}
    for name in names:
        away = np.abs(_words(got[name]) - _words(jitted[name]))
        if away.any():
            eager = eager or jax.vmap(init)(keys)
            away = np.minimum(away, np.abs(_words(got[name]) - _words(eager[name])))
        found[name] = (int((away > 0).sum()), int(away.max()), away.size)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    dims = [*range(1, 18), 32, 64]
    parser.add_argument("--members", type=int, nargs="+", default=[4, 257, 1024])
    parser.add_argument("--dims", type=int, nargs="+", default=dims)
    parser.add_argument("--functions", nargs="+", default=list(FUNCTIONS), choices=FUNCTIONS)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    table = {name: [] for name in args.functions}
    compared = 0
    for dim in args.dims:
        total = {name: (0, 0) for name in args.functions}
        for members in args.members:
            for seed in range(args.seeds):
                found = count(args.functions, dim, members, seed)
                for name, (wrong, ulp, size) in found.items():
                    before = total[name]
                    total[name] = (before[0] + wrong, max(before[1], ulp))
                    compared += size
        for name, (wrong, ulp) in total.items():
            table[name].append(f"{wrong} ({ulp})" if wrong else ".")
        print(f"# {dim}: {sum(wrong for wrong, _ in total.values())}", flush=True)
    print(f"jaxlib {jaxlib.__version__}, {' '.join(map(str, args.members))} members\n")
    print("| innermost dimension |", " | ".join(map(str, args.dims)), "|")
    print("| --- |" + " --- |" * len(args.dims))
    for name, row in table.items():
        print(f"| {name} |", " | ".join(row), "|")
    print(f"\n{compared:,} numbers compared.")


if __name__ == "__main__":
    main()
