"""Calls of the functions of `seedbed.random`, by what makes their results."""

from __future__ import annotations

import jax
import numpy as np

from seedbed import random

KEY = jax.random.key(11)
SQUARE = np.array([[2.0, 0.25], [0.25, 1.0]], np.float32)
THREE = np.array([0.1, 0.2, 0.7], np.float32)

# What makes the result of calls, beside the docs: (function, arguments).
FUSED = [
    *[("uniform", (shape,)) for shape in ((), (0,), (2, 0, 3), (2, 7), [9])],
    *[("uniform", ((9,), dtype, -3.0, 0.7)) for dtype in ("float16", "bfloat16", "float32")],
    *[("normal", ((2, 7), dtype)) for dtype in ("float16", "bfloat16", "float32")],
    ("normal", ()),
    *[("bits", ((33,), dtype)) for dtype in ("uint8", "uint16", "uint32")],
    *[("randint", ((9,), 2, 77, dtype)) for dtype in ("uint8", "int16", "uint32", "int8", "int32")],
    ("truncated_normal", (-2.0, 2.0, (9,))),
    ("truncated_normal", (-1.5, 2.0, (9,), "bfloat16")),
    ("bernoulli", ()),
    ("bernoulli", (0.3, (9,))),
    ("gumbel", ((9,), "float16")),
    *[(name, ((2, 9),)) for name in ("exponential", "gumbel", "laplace")],
    ("choice", (10, (4,))),
    ("split", ()),
    ("split", ((2, 3),)),
    ("fold_in", (2**32 - 1,)),
    ("fold_in", (np.array(-7, np.int32),)),
]
WORDS = [
    *[(name, ((2, 7),)) for name in ("logistic", "cauchy", "rademacher", "maxwell")],
    ("gumbel", ((9,), "float32", "high")),
    ("uniform", ((2, 3), "float32", THREE, 1.0)),
    ("randint", ((9,), np.int32(-5), np.array(5))),
    ("truncated_normal", (-1.5, 2.0, (9,))),
    ("bernoulli", (THREE,)),
    ("bernoulli", (0.3, (9,), "high")),
    ("geometric", (0.3, (9,))),
    ("triangular", (0.0, 0.3, 1.0, (9,))),
    ("pareto", (2.0, (9,))),
    ("rayleigh", (2.0, (9,))),
    ("weibull_min", (1.0, 2.0, (9,))),
    ("lognormal", (0.5, (9,))),
    ("double_sided_maxwell", (0.0, 1.0, (9,))),
    ("wald", (1.0, (9,))),
    ("multivariate_normal", (SQUARE[0], SQUARE, (8,))),
    ("orthogonal", (6,)),
    ("categorical", (np.zeros((3, 7), np.float32), 0)),
    ("choice", (np.arange(8.0), (4,), False)),
    ("choice", (3, (4,), True, THREE)),
    ("permutation", (9,)),
    ("permutation", (np.arange(12.0).reshape(3, 4), 1, True)),
    ("binomial", (10.0, 0.3, (9,))),
    ("multinomial", (10.0, THREE)),
]
JAXS = [
    ("gamma", (1.5, (2,))),
    ("loggamma", (1.5, (2,))),
    ("beta", (1.0, 2.0, (2,))),
    ("dirichlet", (THREE,)),
    ("chisquare", (3.0, (2,))),
    ("f", (3.0, 4.0, (2,))),
    ("t", (3.0, (2,))),
    ("generalized_normal", (1.5, (2,))),
    ("ball", (3, 2.0)),
    ("poisson", (3.0, (2,))),
]
WIDE = [
    ("uniform", ((2, 7), "float64")),
    ("uniform", ((9,), None, -3, 1)),
    ("bits", ((9,), "uint64")),
    ("randint", ((9,), -(2**40), 2**40, "int64")),
    ("bernoulli", (0.3, (9,))),
    ("normal", ((9,), "float64")),
    ("normal", ((9,), "complex64")),
    ("normal", ((9,), "float32")),
    ("split", (3,)),
]
SAMPLERS = sorted(name for name in random.__all__ if hasattr(getattr(random, name), "programs"))


def run(module, cases, key=KEY):
    with jax.numpy_rank_promotion("allow"):  # jax's own functions need it
        return [getattr(module, name)(key, *args) for name, args in cases]


def made_by(name, args, key=KEY, **kwargs):
    with jax.numpy_rank_promotion("allow"):
        return getattr(random, name).programs.made_by(key, *args, **kwargs)
