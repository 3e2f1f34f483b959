"""A Hypothesis strategy of init functions, put together from what init functions do."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from hypothesis import strategies as st

# No innermost dimension of 3 to 5: there XLA's own float32 normals are off by a few ulp.
SHAPES = [(), (1,), (2,), (6,), (7, 2), (2, 8), (2, 1, 6), (0, 6), (31,), (3, 17)]

_DRAWS = {
    "uniform": jax.random.uniform,
    "range": lambda key, shape: jax.random.uniform(key, shape, minval=-0.7, maxval=0.2),
    "normal": jax.random.normal,
    "truncated": lambda key, shape: jax.random.truncated_normal(key, -1.5, 2.5, shape),
    "bf16": lambda key, shape: jax.random.normal(key, shape, jnp.bfloat16),
    "f16": lambda key, shape: jax.random.uniform(key, shape, jnp.float16),
    "bernoulli": lambda key, shape: jax.random.bernoulli(key, 0.25, shape),
    "randint": lambda key, shape: jax.random.randint(key, shape, -9, 1000),
    "bits": lambda key, shape: jax.random.bits(key, shape, jnp.uint8),
    "exponential": jax.random.exponential,
    "zeros": lambda key, shape: jnp.zeros(shape),
}

_KEYS = {
    "split": lambda key: jax.random.split(key)[1],
    "unpack": lambda key: next(iter(jax.random.split(key, 3))),
    "last": lambda key: jax.random.split(key, 5)[-1],
    "middle": lambda key: jax.random.split(key, (2, 3))[1, 2],
    "sliced": lambda key: jax.random.split(key, 6)[1:5][::2][1],
    "picked": lambda key: jax.random.split(key, 5)[jnp.array([3, 1])][0],
    "fold": lambda key: jax.random.fold_in(key, 7),
    "fold big": lambda key: jax.random.fold_in(key, 2**32 - 1),
    "rewrapped": lambda key: jax.random.wrap_key_data(jax.random.key_data(key)),
    "same": lambda key: key,
}


def _floating(x):
    return jnp.issubdtype(x.dtype, jnp.floating)


# Arithmetic on floats only, in the dtype of the draw; `t` is traced, one number a member.
_TAILS = {
    "scale": lambda x, t: x * 0.3,
    "shift": lambda x, t: x + 0.7,
    "minus": lambda x, t: 1.0 - x,
    "divide": lambda x, t: x / 3.0,
    "by t": lambda x, t: x * t,
    "plus t": lambda x, t: x + t,
    "negative": lambda x, t: -x,
    "abs": lambda x, t: jnp.abs(x),
    "clip": lambda x, t: jnp.clip(x, -0.4, 0.4),
    "relu": lambda x, t: jnp.maximum(x, 0.0),
    "square": lambda x, t: x * x,
    "wide": lambda x, t: x.astype(jnp.float32),
    "narrow": lambda x, t: x.astype(jnp.bfloat16),
}
_MOVES = {
    "flat": lambda x: x.reshape(-1),
    "column": lambda x: x.reshape(-1, 1),
    "turn": lambda x: x.T,
    "lead": lambda x: x[None],
    "half": lambda x: x.reshape(-1)[::2],
    "flip": lambda x: jnp.flip(x),
    "stack": lambda x: jnp.stack([x, x]),
    "stop": jax.lax.stop_gradient,
    "max": lambda x: x.max(initial=jnp.zeros((), x.dtype)),
    "sort": lambda x: jnp.sort(x.reshape(-1)),
}
_WRAPS = {
    "plain": lambda make: make,
    "jit": jax.jit,
    "remat": jax.checkpoint,
    "vmap": lambda make: lambda key, t: jax.vmap(make, (0, None))(jax.random.split(key, 3), t),
    "vmap twice": lambda make: (
        lambda key, t: jax.vmap(jax.vmap(make, (0, None)), (0, None))(
            jax.random.split(key, (2, 2)), t
        )
    ),
    "map": lambda make: (
        lambda key, t: jax.lax.map(lambda key: make(key, t), jax.random.split(key, 2))
    ),
    "cond": lambda make: (
        lambda key, t: jax.lax.cond(
            t > 0.6, lambda: make(key, t), lambda: make(jax.random.fold_in(key, 1), t)
        )
    ),
}


@dataclass(frozen=True)
class Leaf:
    """One leaf: how its key is reached, what is drawn, what is done to it, under what call."""

    keys: tuple[str, ...]
    draw: str
    shape: tuple[int, ...]
    tail: tuple[str, ...]
    wrap: str

    def make(self, key, t):
        for name in self.keys:
            key = _KEYS[name](key)
        return _WRAPS[self.wrap](self._member)(key, t)

    def _member(self, key, t):
        x = _DRAWS[self.draw](key, self.shape)
        for name in self.tail:
            if name in _MOVES:
                x = _MOVES[name](x)
            elif _floating(x):
                x = _TAILS[name](x, t.astype(x.dtype))
        return x


@dataclass(frozen=True)
class Program:
    """An init function ``(key, t) -> leaves``; some leaves come back twice."""

    leaves: tuple[Leaf, ...]
    again: bool
    ulps: int = 0

    def __call__(self, key, t):
        made = [leaf.make(key, t) for leaf in self.leaves]
        return {"leaves": made, "again": made[0] if self.again else None}


_leaves = st.builds(
    Leaf,
    st.lists(st.sampled_from(list(_KEYS)), max_size=4).map(tuple),
    st.sampled_from(list(_DRAWS)),
    st.sampled_from(SHAPES),
    st.lists(st.sampled_from([*_TAILS, *_MOVES]), max_size=4).map(tuple),
    st.sampled_from(list(_WRAPS)),
)


def programs() -> st.SearchStrategy[Program]:
    """Init functions of one to three leaves."""
    return st.builds(Program, st.lists(_leaves, min_size=1, max_size=3).map(tuple), st.booleans())
