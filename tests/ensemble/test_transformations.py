"""An ensemble under every transformation and setting of jax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import as_words, assert_same_bits, native_problem, oracle, split, take
from models import small as init
from models import sweep

pytestmark = [pytest.mark.shared, pytest.mark.reference("oldest")]

normal, uniform = jax.random.normal, jax.random.uniform


# --- transformations --------------------------------------------------------------------


def test_jit(make, key, expected):
    assert_same_bits(jax.jit(make)(key), expected)
    assert_same_bits(jax.jit(make)(split(key, 9)), expected)


def test_vmap_is_a_batch_of_ensembles(make, key):
    # Row 28.
    keys = jax.random.split(key, 4)
    want = jax.jit(jax.vmap(lambda key: jax.vmap(init)(split(key, 9))))(keys)
    assert_same_bits(jax.vmap(make)(keys), want)
    assert_same_bits(jax.jit(jax.vmap(make))(keys), want)
    assert_same_bits(jax.vmap(make, in_axes=0, out_axes=1)(keys)["b"], want["b"].swapaxes(0, 1))
    nested = jax.vmap(jax.vmap(make))(keys.reshape(2, 2))
    assert_same_bits(nested["w"].reshape(4, 9, 7, 2), want["w"])
    stacks = jax.vmap(lambda key: split(key, 9))(keys)
    assert_same_bits(jax.vmap(make)(stacks), want)
    assert_same_bits(jax.vmap(lambda key: make.member(key, 3))(keys), take(want, (slice(None), 3)))


def test_vmap_over_members(make, key, expected):
    assert_same_bits(jax.vmap(make.member, (None, 0))(key, jnp.arange(9)), expected)


def test_vmap_over_no_keys(make, key):
    # Row 28.
    got = jax.vmap(make)(jax.random.split(key, 0))
    assert {name: leaf.shape for name, leaf in got.items()} == {
        "w": (0, 9, 7, 2),
        "b": (0, 9, 6),
        "step": (0, 9),
    }


def test_vmap_over_arguments(key):
    make = sb.ensemble(sweep, 3)
    scales = jnp.linspace(0.5, 2.0, 4)
    got = jax.vmap(make, (None, 0, None))(key, scales, 0.25)
    both = jax.vmap(lambda scale: jax.vmap(sweep, (0, None, None))(split(key, 3), scale, 0.25))
    assert_same_bits(got, jax.jit(both)(scales), either=both(scales))


def test_scan(make, key):
    _, got = jax.lax.scan(lambda carry, key: (carry, make(key)["w"]), 0, jax.random.split(key, 3))
    want = [oracle(init, 9, one)["w"] for one in jax.random.split(key, 3)]
    assert_same_bits(got, jnp.stack(want))


def test_while_and_cond(make, key, expected):
    got = jax.lax.cond(True, make, lambda key: take(expected, slice(None)), key)
    assert_same_bits(got, expected)
    grown = jax.lax.fori_loop(0, 2, lambda i, total: total + make(key)["b"], jnp.zeros((9, 6)))
    assert_same_bits(grown, expected["b"] + expected["b"])


def test_eval_shape(make, key, expected):
    shapes = jax.eval_shape(make, key)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), expected
    )
    huge = jax.eval_shape(sb.ensemble(lambda key: normal(key, (2**20,)), 2**20), key)
    assert huge.shape == (2**20, 2**20)


def test_grad_of_what_follows(make, key, expected):
    # Row 27: the draws are constants of the gradient.
    x = jnp.linspace(0.0, 1.0, 14).reshape(7, 2)

    def loss(x, draws):
        return ((draws["w"] * x[None]) ** 2).sum()

    got = jax.grad(lambda x: loss(x, make(key)))(x)
    assert_same_bits(got, jax.grad(loss)(x, expected))
    compiled = jax.jit(jax.grad(lambda x: loss(x, make(key))))(x)
    np.testing.assert_allclose(compiled, got, rtol=1e-6)


def test_grad_through_an_argument(key):
    def total(make):
        return lambda scale: make(key, scale, 0.5).sum()

    make = sb.ensemble(sweep, 5)
    got = jax.grad(total(make))(2.0)
    want = jax.grad(total(lambda *args: oracle(sweep, 5, *args)))(2.0)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    forward = jax.jvp(lambda scale: make(key, scale, 0.5), (2.0,), (1.0,))[1]
    assert_same_bits(forward, oracle(lambda key: normal(key, (7,)), 5, key))
    assert jax.jacrev(lambda scale: make(key, scale, 0.5))(2.0).shape == (5, 7)


def test_grad_with_respect_to_a_key_is_refused_as_jax_does(make, key):
    with pytest.raises(TypeError):
        jax.grad(lambda key: make(key)["w"].sum())(key)


def test_checkpoint(key):
    make = sb.ensemble(sweep, 5)
    plain = jax.grad(lambda scale: jnp.sin(make(key, scale, 0.5)).sum())
    saved = jax.grad(jax.checkpoint(lambda scale: jnp.sin(make(key, scale, 0.5)).sum()))
    np.testing.assert_allclose(saved(2.0), plain(2.0), rtol=1e-6)


def test_custom_derivatives_inside_init_keep_their_meaning(key):
    @jax.custom_jvp
    def clipped(x):
        return jnp.clip(x, -1.0, 1.0)

    clipped.defjvp(lambda primals, tangents: (clipped(*primals), 10.0 * tangents[0]))

    def init(key, scale):
        return clipped(scale * normal(key, (6,)))

    make = sb.ensemble(init, 3)
    got = jax.jacfwd(lambda scale: make(key, scale))(0.1)
    want = jax.jacfwd(lambda scale: oracle(init, 3, key, scale))(0.1)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_sharding_of_the_result(make, key, expected):
    # Row 29: the numbers do not depend on where they are made.
    mesh = jax.make_mesh((4,), ("members",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.NamedSharding(mesh, jax.P("members"))
    wide = sb.ensemble(init, 8)
    got = jax.jit(wide, out_shardings=spread)(key)
    assert all(leaf.sharding.is_equivalent_to(spread, leaf.ndim) for leaf in jax.tree.leaves(got))
    assert_same_bits(got, take(expected, slice(8)))
    keys = jax.device_put(split(key, 9)[:8], spread)
    assert_same_bits(jax.jit(wide)(keys), take(expected, slice(8)))


def test_shard_map(key, expected):
    mesh = jax.make_mesh((4,), ("members",), axis_types=(jax.sharding.AxisType.Auto,))
    local = sb.ensemble(init, 2)
    spread = jax.shard_map(local, mesh=mesh, in_specs=jax.P("members"), out_specs=jax.P("members"))
    assert_same_bits(spread(split(key, 9)[:8]), take(expected, slice(8)))
    assert_same_bits(jax.jit(spread)(split(key, 9)[:8]), take(expected, slice(8)))


# What XLA makes of draws holds constants, which lie on no device in particular.
LEFT_TO_XLA = {
    "rows of 3": lambda key: jax.random.normal(key, (9, 3)),
    "rows of 8": lambda key: jnp.tanh(jax.random.normal(key, (8,))),
    "a number": jax.random.gumbel,
    "longer rows": lambda key: 7 - jnp.exp(0.5 * jax.random.normal(key, (16,))),
    "a call": lambda key: jax.nn.softplus(jax.random.normal(key, (16,))),
    "complex": lambda key: jax.random.normal(key, (5,), jnp.complex64) * 2,
    "words": lambda key: 7 - jax.random.bits(key, (32,)),
    "a loop": lambda key: jax.lax.scan(
        lambda c, x: (c + x, c), jnp.float32(0), jax.random.normal(key, (9,))
    )[1],
}


@pytest.mark.parametrize("name", LEFT_TO_XLA)
@pytest.mark.parametrize("kind", list(jax.sharding.AxisType)[:2], ids=str)
def test_shard_map_of_what_stays_in_xla(name, kind, key):
    function = LEFT_TO_XLA[name]
    mesh = jax.make_mesh((4,), ("members",), axis_types=(kind,))
    specs = {"mesh": mesh, "out_specs": jax.P("members")}
    keys = split(key, 8)
    expected = jax.jit(jax.vmap(function))(keys), jax.vmap(function)(keys)
    spread = jax.shard_map(sb.ensemble(function, 2), in_specs=jax.P("members"), **specs)
    placed = jax.device_put(keys, jax.NamedSharding(mesh, jax.P("members")))
    assert_same_bits(jax.jit(spread)(placed), expected[0], either=expected[1])

    def own(key):
        here = 2 * jax.lax.axis_index("members")
        return sb.ensemble(function, 8).members(key, here + jnp.arange(2))

    some = jax.shard_map(own, in_specs=jax.P(), **specs)
    placed = jax.device_put(key, jax.NamedSharding(mesh, jax.P()))
    assert_same_bits(jax.jit(some)(placed), expected[0], either=expected[1])


def test_results_follow_the_device_of_the_key(make, key, expected):
    # Row 29.
    device = jax.devices()[2]
    got = make(jax.device_put(key, device))
    assert {leaf.device for leaf in jax.tree.leaves((got["w"], got["b"]))} == {device}
    assert_same_bits(got, expected)


# --- settings of jax --------------------------------------------------------------------


def test_disable_jit(make, key, expected):
    # Row 31.
    with jax.disable_jit():
        got = make(key)
    assert_same_bits(got, expected, either=jax.vmap(init)(split(key, 9)))


def test_debug_nans(make, key, expected):
    # Row 31.
    with jax.debug_nans(True):
        assert_same_bits(make(key), expected)


def test_debug_key_reuse(key, expected):
    # Row 32.
    with jax.debug_key_reuse(True):
        assert_same_bits(sb.ensemble(init, 9)(jax.random.key(20)), expected)


def test_transfer_guard(make, key, expected):
    # Row 33: a warm call moves nothing that was not asked for.
    make(key)
    with jax.transfer_guard("disallow"):
        got = make(key)
    assert_same_bits(got, expected)


def test_strict_promotion(key, expected):
    # Row 34 (rank promotion is an error in all tests).
    with jax.numpy_dtype_promotion("strict"):
        assert_same_bits(sb.ensemble(init, 9)(key), expected)


def test_tracer_leak_check(key, expected):
    with jax.check_tracer_leaks():
        assert_same_bits(jax.jit(sb.ensemble(init, 9))(key), expected)


def test_x64_switched_between_calls(key):
    # Row 15: the default dtype belongs to the call, not to the ensemble.
    make = sb.ensemble(lambda key: uniform(key, (6,)), 3)
    narrow = make(key)
    with jax.enable_x64(True):
        wide = make(key)
        assert_same_bits(wide, oracle(make.init, 3, key))
    assert (narrow.dtype, wide.dtype) == (np.float32, np.float64)
    assert_same_bits(make(key), narrow)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg", "philox4x32"])
def test_other_key_types_go_through_the_reference(impl):
    # Row 20.
    def init(key):
        return jax.random.bits(jax.random.fold_in(key, 1), (2,))

    try:
        key = jax.random.key(3, impl=impl)
    except ValueError:
        pytest.skip(reason=f"jax {jax.__version__} has no {impl}")
    make, want = sb.ensemble(init, 4), oracle(init, 4, key)
    assert_same_bits(make(key), want)
    assert_same_bits(make(split(key, 4)), want)
    # The hardware's generators draw for a whole batch; a member is still one of the whole.
    assert_same_bits(make.members(key, slice(1, 3)), want[1:3])
    assert_same_bits(make.members(key, [3, 0]), want[jnp.array([3, 0])])
    assert_same_bits(make.member(key, 2), want[2])
    assert_same_bits(jnp.concatenate([*make.stream(key, chunk_size=3)]), want)
    assert native_problem() or repr(impl) in make.plan(key).explain()


def test_non_partitionable_threefry_goes_through_the_reference(make, key, expected):
    # Row 30.
    with jax.threefry_partitionable(False):
        want = oracle(init, 9, key)
        assert_same_bits(make(key), want)
        assert_same_bits(make.member(key, 4), take(want, 4))
        assert_same_bits(make.members(key, [7, 2]), take(want, np.array([7, 2])))
        assert native_problem() or "jax_threefry_partitionable" in make.plan(key).explain()
    assert not np.array_equal(as_words(want["w"]), as_words(expected["w"]))
    assert_same_bits(make(key), expected)


def test_legacy_keys_of_another_default_type():
    with jax.default_prng_impl("rbg"):
        key = jax.random.PRNGKey(3)
        assert key.shape == (4,)
        assert_same_bits(sb.ensemble(init, 4)(key), oracle(init, 4, key))


def test_side_effects_run_as_in_jax(key, capfd):
    def init(key):
        x = normal(key, (2,))
        jax.debug.callback(lambda x: None, x)
        return x

    make = sb.ensemble(init, 3)
    assert_same_bits(make(key), oracle(init, 3, key))
    assert native_problem() or "side effects" in make.plan(key).explain()
