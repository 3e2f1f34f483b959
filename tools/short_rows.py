"""Counts the float32 normals that XLA:CPU rounds by its loops: rows of 3, 4 and 5, beside others.

    python tools/short_rows.py [--cores 1 2 3 8] [--rows 9 64 257 ...] [--lengths 3 4 5]

Each cell is about one array of normals ``[rows, length]``, made from words of the cipher as jax
makes them. It counts the elements that differ from the same words' normals in one long row, for
each place of the row. Behind ``!`` are those that are not `split` either: the value where no
product and sum of the polynomials behind ``erf_inv`` became one operation. The last line compares
rows of all 2^23 words a normal can be made from.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

LOW, ROOT_TWO = np.nextafter(np.float32(-1), np.float32(0)), np.sqrt(np.float32(2))
MANTISSAS = 1 << 23


def uniform(words: Any, zeros: Any) -> Any:
    mantissa = jax.lax.shift_right_logical(words ^ zeros, jnp.uint32(9))
    one_two = jax.lax.bitcast_convert_type(mantissa | jnp.uint32(0x3F800000), jnp.float32)
    return jnp.maximum(LOW, (one_two - jnp.float32(1)) * jnp.float32(2) + LOW)


@jax.jit
def normal(words: Any, zeros: Any) -> Any:
    return jax.lax.erf_inv(uniform(words, zeros)) * ROOT_TWO


def made(words: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(normal(words, np.zeros_like(words)))


# The polynomials in w - 2.5 and in sqrt(w) - 3, w = -log(1 - x^2), below and above w = 5.
CENTRE = "2.81022636e-08 3.43273939e-07 -3.5233877e-06 -4.39150654e-06 0.00021858087"
CENTRE += " -0.00125372503 -0.00417768164 0.246640727 1.50140941"
TAIL = "-0.000200214257 0.000100950558 0.00134934322 -0.00367342844 0.00573950773"
TAIL += " -0.0076224613 0.00943887047 1.00167406 2.83297682"


def split(words: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Normals with two roundings in every step of the polynomials."""
    x = np.asarray(jax.jit(uniform)(words, np.zeros_like(words)))
    w = -np.asarray(jax.jit(lambda x: jax.lax.log1p(-x * x))(x))
    central = w < 5
    t = np.where(central, w - np.float32(2.5), np.sqrt(w) - np.float32(3))
    both = zip(*(np.array(one.split(), np.float32) for one in (CENTRE, TAIL)), strict=True)
    first, *others = (np.where(central, *pair) for pair in both)
    for other in others:
        first = first * t + other
    return first * x * ROOT_TWO


def differing(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return a.view(np.int32) != b.view(np.int32)


def cell(words: np.ndarray[Any, Any], length: int) -> str:
    by_rows = made(words.reshape(-1, length))
    wrong = differing(by_rows, made(words).reshape(by_rows.shape))
    other = wrong & differing(by_rows, split(words).reshape(by_rows.shape))
    counts = "+".join(map(str, wrong.sum(0))) if wrong.any() else "0"
    return f"{counts} !{other.sum()}" if other.any() else counts


def table(rows: list[int], lengths: list[int]) -> None:
    generator = np.random.default_rng(0)
    for length in lengths:
        print(f"  length {length}:", end="")
        for count in rows:
            words = generator.integers(0, 1 << 32, count * length, np.uint32)
            print(f"  {count}: {cell(words, length)}", end="", flush=True)
        words = np.resize(
            np.arange(MANTISSAS, dtype=np.uint32) << 9, -(-MANTISSAS // length) * length
        )
        print(f"  all words: {cell(words, length)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cores", type=int, nargs="*", default=[])
    parser.add_argument("--rows", type=int, nargs="*", default=[9, 64, 257, 258, 601, 602, 1024])
    parser.add_argument("--lengths", type=int, nargs="*", default=[3, 4, 5])
    args = parser.parse_args()
    if not args.cores:
        table(args.rows, args.lengths)
        return
    print(f"jaxlib {jaxlib.__version__}, elements that differ from one long row", flush=True)
    for cores in args.cores:
        print(f"{cores} cores", flush=True)
        # How XLA:CPU is told the size of its thread pool, by which it divides loops.
        lists = ["--rows", *map(str, args.rows), "--lengths", *map(str, args.lengths)]
        subprocess.run(
            [sys.executable, __file__, *lists], env=os.environ | {"NPROC": str(cores)}, check=True
        )


if __name__ == "__main__":
    main()
