"""Tracing: one flat list of equations, calls opened, constants folded as XLA folds them."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import as_words
from seedbed import _trace
from seedbed._trace import fold

normal = jax.random.normal


def graph_of(init, *args):
    key = jax.random.key(0)
    types = [
        jax.ShapeDtypeStruct(np.shape(arg), jax.dtypes.canonicalize_dtype(np.result_type(arg)))
        for arg in args
    ]
    return _trace.trace(init, jax.ShapeDtypeStruct(key.shape, key.dtype), tuple(types))


def names(graph):
    return [equation.name for equation in graph.equations]


def test_calls_are_opened():
    @jax.jit
    def inner(key):
        return jax.jit(lambda key: jax.random.bits(key, (3,)))(key)

    graph = graph_of(lambda key: inner(key))
    assert names(graph) == ["random_bits"] and graph.outputs == graph.equations[0].outputs
    # The calls stay known, so that a residual part can be called as it was written.
    assert {call.eqn.primitive.name for call in graph.calls} <= {"jit", "pjit"} and graph.calls


def test_nested_calls():
    def init(key):
        return normal(key, (3,))

    for _ in range(8):
        init = jax.jit(init)
    graph = graph_of(init)
    assert "random_bits" in names(graph) and len(graph.calls) >= 8


def test_loops_branches_and_derivative_rules_stay_closed():
    def init(key):
        loop = jax.lax.scan(lambda carry, _: (carry + 1.0, carry), 0.0, None, length=3)[1]
        branch = jax.lax.cond(loop[0] > 0, lambda: 1.0, lambda: 2.0)
        return jax.nn.relu(loop), branch

    assert {"scan", "cond", "custom_jvp_call"} <= set(names(graph_of(init)))


def test_paths_of_the_results():
    graph = graph_of(lambda key: {"a": [key, None], "b": (normal(key),)})
    assert graph.paths == ("['a'][0]", "['b'][0]")
    assert graph_of(lambda key: key).paths == ("result",)
    assert graph_of(lambda key: {}).paths == ()


def test_arguments_and_captured_arrays():
    large = jnp.arange(5000.0)
    graph = graph_of(
        lambda key, a, b: (a, large + b["x"]) if isinstance(b, dict) else (a, large + b), 1.5, 2.5
    )
    assert graph.outputs[0] == graph.arg_inputs[0] and len(graph.arg_inputs) == 2
    assert [value.shape for value in graph.captured.values()] == [(5000,)]


def test_effects_are_seen():
    def init(key):
        jax.debug.callback(lambda x: None, normal(key))
        return key

    assert graph_of(init).effects and not graph_of(lambda key: key).effects


# --- constants --------------------------------------------------------------------------

CONSTANTS = {
    "arithmetic": lambda: (jnp.float32(0.1) + 0.2) * 0.3 / 0.7 - jnp.sqrt(jnp.float32(2.0)),
    "bounds": lambda: jax.lax.erf(jnp.float32(-1.5) / np.float32(np.sqrt(2))),
    "erf of f64": lambda: jax.lax.erf(jnp.asarray(0.3, jnp.bfloat16).astype(jnp.float32)),
    "next": lambda: jax.lax.nextafter(jnp.float32(-1.0), jnp.float32(0.0)),
    "integers": lambda: (jnp.int32(-7) * 3 - 1, jax.lax.rem(jnp.int32(-7), jnp.int32(3))),
    "division": lambda: jax.lax.div(jnp.int32(-7), jnp.int32(2)),
    "wrap": lambda: jnp.uint32(2**31) * jnp.uint32(6),
    "shifts": lambda: (jnp.uint32(0xF0) >> 3, jax.lax.shift_right_logical(jnp.int32(-8), 1)),
    "long shift": lambda: jax.lax.shift_right_logical(jnp.uint32(5), jnp.uint32(32)),
    "narrow": lambda: jnp.asarray(1 / 3, jnp.bfloat16) * jnp.asarray(3.1, jnp.bfloat16),
    "casts": lambda: (jnp.float32(1 / 3).astype(jnp.bfloat16), jnp.int32(300).astype(jnp.int8)),
    "negative cast": lambda: jnp.int32(-1).astype(jnp.uint32),
    "compare": lambda: jnp.where(jnp.arange(6) < 3, jnp.arange(6), -1),
    "clip": lambda: [jax.lax.clamp(0.0, jnp.float32(x), 1.0) for x in (-1.0, 0.25, 1.7)],
    "shapes": lambda: jnp.arange(12).reshape(3, 4).T[1:3, ::2],
    "joined": lambda: jnp.concatenate([jnp.zeros(2), -jnp.zeros(2), jnp.ones(1)]),
    "signed zeros": lambda: jnp.concatenate([jnp.zeros(2), -jnp.zeros(2)]),
    "minus zero": lambda: -jnp.zeros((2, 3)),
    "flipped": lambda: jnp.flip(jnp.arange(5)),
    "infinite": lambda: jnp.float32(1.0) / jnp.zeros(3),
    "select": lambda: jax.lax.select_n(jnp.int32(2), *map(jnp.float32, (1.0, 2.0, 3.0))),
    "logic": lambda: (jnp.bool_(True) & ~jnp.bool_(False), jnp.uint8(0x0F) ^ jnp.uint8(0xFF)),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_fold_to_the_bits_of_xla(name):
    graph = graph_of(lambda key: CONSTANTS[name]())
    for atom, want in zip(graph.outputs, jax.tree.leaves(jax.jit(CONSTANTS[name])()), strict=True):
        assert isinstance(atom, fold.Const), names(graph)
        assert atom.value.dtype == want.dtype and atom.value.shape == want.shape
        assert np.array_equal(as_words(atom.value), as_words(want))


def test_what_xla_defines_is_left_to_xla():
    def init(key):
        low = jax.lax.convert_element_type(jnp.zeros(()) + 3e9, jnp.int32)
        zero = jax.lax.rem(jnp.int32(5), jnp.int32(0))
        return low, zero, jnp.exp(jnp.float32(0.3))

    assert names(graph_of(init)) == ["convert_element_type", "rem", "exp"]


def test_large_constants_cost_nothing():
    graph = graph_of(lambda key: jnp.zeros((2**20, 2**10)) * 2.0 + 1.0)
    (atom,) = graph.outputs
    assert isinstance(atom, fold.Const) and atom.value.shape == (2**20, 2**10)
    assert set(atom.value.strides) == {0} and fold.splat(atom.value) == 1.0


def test_splat():
    assert fold.splat(np.full((3, 2), 2.5)) == 2.5
    assert fold.splat(np.array([])) is None
    assert fold.splat(np.array([1.0, 2.0])) is None
    assert fold.splat(np.array([0.0, -0.0])) is None
    assert np.signbit(fold.splat(np.array([-0.0, -0.0])))
    assert np.isnan(fold.splat(np.array([np.nan, np.nan])))


# --- leaks ------------------------------------------------------------------------------


def test_tracing_keeps_nothing_alive():
    class Big:
        pass

    big = Big()
    alive = weakref.ref(big)

    def init(key, big=big):
        return normal(key)

    del big
    graph_of(init)
    del init
    gc.collect()
    assert alive() is None


def test_a_value_in_a_closure_of_a_derivative_rule_is_no_leak():
    @jax.custom_jvp
    def f(x):
        return x

    f.defjvp(lambda primals, tangents: (f(*primals), tangents[0]))
    assert graph_of(lambda key: f(normal(key))).outputs


def test_stored_values_are_refused():
    kept = {}
    with pytest.raises(TypeError, match="stored a traced value outside itself"):
        graph_of(lambda key: kept.setdefault("x", normal(key)))


def test_a_module_that_is_a_cycle_is_no_leak_and_old_objects_are_not_gone_through():
    counts = []

    def init(key):
        counts.append(gc.get_freeze_count())
        module = {"w": normal(key)}
        module["self"] = module  # keeps the value, and so the trace, until it is collected
        return module["w"]

    assert graph_of(init).outputs
    assert counts[0] > 1000
    assert gc.get_freeze_count() == 0


def test_after_an_error_old_objects_are_collected_again():
    def init(key):
        raise ArithmeticError("no init")

    with pytest.raises(ArithmeticError, match="no init"):
        graph_of(init)
    assert gc.get_freeze_count() == 0


def test_what_the_user_froze_stays_frozen():
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        assert graph_of(normal).outputs
        assert gc.get_freeze_count() > frozen // 2
        kept = {}
        with pytest.raises(TypeError, match="stored a traced value outside itself"):
            graph_of(lambda key: kept.setdefault("x", normal(key)))
    finally:
        gc.unfreeze()
