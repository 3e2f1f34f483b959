"""Draws of every kind under settings of jax, for a process that has made none yet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import seedbed as sb
from helpers import assert_same_bits

AUTO = (jax.sharding.AxisType.Auto,)


@contextlib.contextmanager
def _explain():
    jax.config.update("jax_explain_cache_misses", True)
    try:
        yield
    finally:
        jax.config.update("jax_explain_cache_misses", False)


SETTINGS: dict[str, Callable[[], Any]] = {
    "transfer_guard": lambda: jax.transfer_guard("disallow"),
    "transfer_guard of explicit ones": lambda: jax.transfer_guard("disallow_explicit"),
    "disable_jit": jax.disable_jit,
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "checking_leaks": jax.checking_leaks,
    "enable_checks": lambda: jax.enable_checks(True),
    "debug_key_reuse": lambda: jax.debug_key_reuse(True),
    "promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "log_compiles": lambda: jax.log_compiles(True),
    "explain_cache_misses": _explain,
    "precision": lambda: jax.default_matmul_precision("bfloat16"),
    "a device": lambda: jax.default_device(jax.devices()[2]),
    "a platform": lambda: jax.default_device("cpu"),
    "a mesh": lambda: jax.set_mesh(jax.make_mesh((1,), ("d",), axis_types=AUTO)),
}

KEY, LEGACY = jax.random.key(5), jax.random.PRNGKey(5)
KEYS, OURS = jax.random.split(KEY, 4), sb.prng.from_threefry(KEY)
INDEX = jnp.array([1, 3])
jax.block_until_ready([KEY, LEGACY, KEYS, OURS, INDEX])


def jitted(draw, key):
    return jax.jit(lambda key: draw(key))(key)


def accelerated(draw):
    with sb.accelerate():
        return jitted(draw, KEY)


def init(key):
    return (
        jax.random.gumbel(key, (9,), "bfloat16"),
        jax.random.uniform(key, (3,)),
        jnp.arange(3.0),
    )


def sampled(module):
    return {
        "narrow": lambda key: module.gumbel(key, (9,), "bfloat16"),
        "half": lambda key: module.uniform(key, (9,), "float16"),
        "normal": lambda key: module.normal(key, (600,)),
        "truncated": lambda key: module.truncated_normal(key, -1.25, 2.0, (600,)),
        "exponential": lambda key: module.exponential(key, (600,)),
        "gamma": lambda key: module.gamma(key, 1.5, (600,)),
        "randint": lambda key: module.randint(key, (600,), 0, 5),
    }


def seeded():
    sb.random.next_key()
    sb.random.seed(3)
    sb.random.set_state(sb.random.get_state())
    first = sb.random.next_key()
    with sb.random.stream(LEGACY):
        return jax.random.key_data(first), sb.random.next_key()


def module():
    sb.random.seed(3)
    net = sb.nn.Linear(10, 20)
    sb.nn.vmap_init_all_states(net, axis_size=8)
    return net.weight.value, net.bias.value


def draws():
    """What is drawn first, by name; each with what it must be, to be asked for later."""
    ours, theirs = sampled(sb.random), sampled(jax.random)
    for name, draw in theirs.items():
        mine = ours[name]
        plain = lambda draw=draw: jitted(draw, KEY)  # noqa: E731
        yield f"random {name}", lambda mine=mine: jitted(mine, KEY), plain
        yield f"keys {name}", lambda draw=draw: jitted(draw, OURS), plain
        yield f"accelerate {name}", lambda draw=draw: accelerated(draw), plain
    make, rows = sb.ensemble(init, 4), jax.vmap(init)
    yield "normal", lambda: sb.random.normal(KEY, (9,)), lambda: jax.random.normal(KEY, (9,))
    yield "narrow", lambda: ours["narrow"](LEGACY), lambda: theirs["narrow"](KEY)
    yield "ensemble", lambda: make(KEY), lambda: rows(KEYS)
    yield "legacy", lambda: make(LEGACY), lambda: rows(KEYS)
    yield "keys", lambda: make(KEYS), lambda: rows(KEYS)
    yield "member", lambda: make.member(KEY, 2), lambda: init(KEYS[2])
    yield "members", lambda: make.members(KEY, slice(1, 3)), lambda: rows(KEYS[1:3])
    yield "list", lambda: make.members(KEY, [1, 3]), lambda: rows(KEYS[1::2])
    yield "array", lambda: make.members(KEY, INDEX), lambda: rows(KEYS[1::2])
    yield "stream", lambda: list(make.stream(KEY, chunk_size=4)), lambda: [rows(KEYS)]
    yield (
        "seeded",
        seeded,
        lambda: (
            jax.random.key_data(jax.random.fold_in(jax.random.key(3), 0)),
            jax.random.fold_in(LEGACY, 0),
        ),
    )
    yield "module", module, module


def compare(names):
    """Makes the draws under the settings of these names, then compares; how many there are."""
    made = list(draws())
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(SETTINGS[name]())
        got = [(name, first(), later) for name, first, later in made]
        jax.block_until_ready([value for _, value, _ in got])
    for name, value, later in got:
        try:
            assert_same_bits(value, later())
        except AssertionError as error:
            raise AssertionError(f"{name} under {names}") from error
    assert np.asarray(got[0][1]).shape == (9,)
    return len(got)
