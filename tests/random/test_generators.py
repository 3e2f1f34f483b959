"""Which generator a key is of: known by its functions, and foreign whatever else it is called."""

from __future__ import annotations

import copy
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import define_prng_impl, threefry_2x32, threefry_prng_impl

import seedbed as sb
from helpers import as_words, assert_same_bits, native_problem, oracle, run_python, split, take
from seedbed._jax import generators
from seedbed._random.accelerate import accelerate

pytestmark = [pytest.mark.shared, pytest.mark.reference("oldest")]

SIZE = 4
PARTS = ("seed", "split", "random_bits", "fold_in")
RBG = jax.random.key(0, impl="rbg").dtype._impl


def shifted_bits(key, width, shape):
    count = math.prod(shape)
    words = threefry_2x32(key, jnp.arange(2 * count, dtype=jnp.uint32) + 12345)[:count]
    return words.reshape(shape).astype(f"uint{width}")


def shifted_split(key, shape):
    return threefry_prng_impl.split(key ^ jnp.uint32(1), shape)


def shifted_fold_in(key, data):
    return threefry_prng_impl.fold_in(key ^ jnp.uint32(1), data)


def made(name, base=threefry_prng_impl, tag="mine", **functions):
    """An implementation like another but for its name and some functions."""
    parts = {part: getattr(base, part) for part in PARTS} | functions
    return define_prng_impl(key_shape=base.key_shape, name=name, tag=tag, **parts)


# Called what they are not. (The last four are not threefry in one function only.)
FOREIGN = {
    "threefry by name": made("threefry2x32", random_bits=shifted_bits),
    "seedbed by name": made("seedbed", random_bits=shifted_bits),
    "a name and a tag": made("threefry2x32", tag="fry", random_bits=shifted_bits),
    "rbg by another name": made("cell", base=RBG),
    "rbg as threefry": made("threefry2x32", base=RBG),
    "bits": made("other", random_bits=shifted_bits),
    "split": made("threefry2x32", split=shifted_split),
    "fold_in": made("threefry2x32", fold_in=shifted_fold_in),
}
# Threefry by another name, and copies of it.
THREEFRY = {
    "renamed": made("other"),
    "seeded another way": made("seeded", seed=lambda seed: threefry_prng_impl.seed(seed + 1)),
    "pickled": pickle.loads(pickle.dumps(threefry_prng_impl)),
    "deep copy": copy.deepcopy(threefry_prng_impl),
    "defined again": made("threefry2x32", tag="fry"),
}


@pytest.fixture(params=["seedbed by name", "rbg as threefry", "fold_in"])
def foreign(request):
    """A key of an implementation that is not threefry."""
    return jax.random.key(3, impl=FOREIGN[request.param])


def init(key):
    first, second = jax.random.split(key)
    return {
        "w": jax.random.normal(first, (37,)),
        "b": jax.random.uniform(jax.random.fold_in(second, 7), (3,)),
    }


def assert_like_jax(make, key, expected, *args):
    """The whole and its parts, of one key or of all members' own."""
    picked = np.array([3, 0, 3])
    assert_same_bits(make(key, *args), expected)
    assert_same_bits(make.member(key, 2, *args), take(expected, 2))
    assert_same_bits(make.member(key, -1, *args), take(expected, -1))
    assert_same_bits(make.members(key, picked, *args), take(expected, picked))
    assert_same_bits(make.members(key, slice(1, 3), *args), take(expected, slice(1, 3)))
    chunks = list(make.stream(key, *args, chunk_size=3))
    assert_same_bits(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *chunks), expected)


# --- ensembles --------------------------------------------------------------------------


def test_a_generator_of_the_users_own_under_the_name_of_jaxs():
    # The report: threefry's normals came out.
    key = jax.random.key(0, impl=FOREIGN["threefry by name"])

    def draw(key):
        return jax.random.normal(key, (600,))

    threefry = draw(jax.random.wrap_key_data(jax.random.key_data(key)))
    assert (as_words(draw(key)) != as_words(threefry)).mean() > 0.9
    assert_same_bits(sb.ensemble(draw, 4)(key), oracle(draw, 4, key))
    assert_same_bits(sb.random.normal(key, (600,)), draw(key))
    with accelerate():
        assert_same_bits(jax.jit(lambda key: draw(key))(key), draw(key))


@pytest.mark.parametrize("name", FOREIGN)
def test_every_foreign_generator(name):
    def draw(key):
        return jax.random.bits(jax.random.fold_in(jax.random.split(key)[0], 7), (3,))

    key = jax.random.key(3, impl=FOREIGN[name])
    make, expected = sb.ensemble(draw, SIZE), oracle(draw, SIZE, key)
    assert_same_bits(make(key), expected)
    assert_same_bits(make.member(key, 2), expected[2])
    assert_same_bits(sb.random.bits(key, (600,)), jax.random.bits(key, (600,)))


def test_ensembles_of_foreign_keys(foreign):
    make, expected = sb.ensemble(init, SIZE), oracle(init, SIZE, foreign)
    assert_like_jax(make, foreign, expected)
    assert_like_jax(make, split(foreign, SIZE), expected)
    assert_same_bits(jax.jit(make.member)(foreign, -2), take(expected, 2))
    assert_same_bits(jax.jit(make)(foreign), expected)


def test_explain_says_why(foreign, native):
    impl = foreign.dtype._impl
    called = repr(impl.name)
    if impl.name in ("threefry2x32", "seedbed"):
        called += " (by name; its functions are others)"
    reason = f"the key is of type {called}, the native cipher is 'threefry2x32'"
    plan = sb.ensemble(init, SIZE).plan(foreign)
    assert plan.reference == reason and reason in plan.explain()


@pytest.mark.parametrize("name", THREEFRY)
def test_threefry_by_any_name_is_native(name):
    key = jax.random.key(3, impl=THREEFRY[name])
    make = sb.ensemble(init, SIZE)
    assert_like_jax(make, key, oracle(init, SIZE, key))
    assert make.plan(key).reference == (native_problem() or None)
    assert sb.ensemble(lambda key: key, SIZE)(key).dtype == key.dtype
    with accelerate():
        assert_same_bits(
            jax.jit(lambda key: init(key))(key), jax.jit(init)(sb.prng.to_threefry(ours(key)))
        )


def ours(key):
    """The key of `prng.impl` with the same words."""
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=sb.prng.impl)


def test_jaxs_own_and_ours_are_known():
    assert generators.is_threefry(jax.random.key(0).dtype._impl)
    assert generators.is_threefry(ours(jax.random.key(0)).dtype._impl)
    for name, impl in FOREIGN.items():
        assert not generators.is_threefry(impl._impl), name
    # Of a jax that keeps something else behind a key.
    assert not generators.is_threefry(object())


def test_keys_of_both_kinds_in_one_pytree(foreign):
    def both(keys):
        return {name: jax.random.normal(key, (5,)) for name, key in keys.items()}

    keys = {"a": jax.random.key(1), "b": foreign, "c": ours(jax.random.key(2))}
    expected = jax.jit(jax.vmap(both))(jax.tree.map(lambda key: split(key, SIZE), keys))
    assert_like_jax(sb.ensemble(both, SIZE), keys, expected)
    mixed = {**keys, "b": split(foreign, SIZE)}
    assert_like_jax(sb.ensemble(both, SIZE), mixed, expected)


def test_foreign_keys_among_the_arguments(foreign, key):
    def noisy(key, other):
        return jax.random.normal(key, (3,)), jax.random.normal(other, (3,))

    others = split(foreign, SIZE)
    make = sb.ensemble(noisy, SIZE, in_axes=0)
    expected = jax.jit(jax.vmap(noisy))(split(key, SIZE), others)
    assert_like_jax(make, key, expected, others)
    reason = make.plan(key, others).reference
    assert native_problem() or foreign.dtype._impl.name in reason


def captured(foreign):
    return lambda key: jax.random.normal(
        jax.random.fold_in(foreign, jax.random.randint(key, (), 0, 1000)), (3,)
    )


def seeded(foreign):
    impl = foreign.dtype
    return lambda key: jax.random.normal(
        jax.random.wrap_key_data(
            jax.random.bits(key, jax.random.key_data(foreign).shape, "uint32"), impl=impl._impl
        ),
        (3,),
    )


def looped(foreign):
    inner = seeded(foreign)

    def init(key):
        def step(key, _):
            key, one = jax.random.split(key)
            return key, inner(one)

        return jax.lax.scan(step, key, length=2)[1]

    return init


@pytest.mark.parametrize("how", [captured, seeded, looped], ids=lambda how: how.__name__)
def test_foreign_keys_inside_of_an_init_function(foreign, key, how):
    init = how(foreign)
    make = sb.ensemble(init, SIZE)
    assert_like_jax(make, key, oracle(init, SIZE, key))
    assert native_problem() or foreign.dtype._impl.name in make.plan(key).reference


def test_words_that_are_drawn_for_a_batch_as_a_whole(key):
    def init(key):
        words = jnp.tile(jax.random.key_data(key), 2)
        return jax.lax.rng_bit_generator(words, (4,))[1]

    expected = oracle(init, SIZE, key)
    # What makes the test one: alone, the last member draws something else.
    assert (as_words(init(split(key, SIZE)[3])) != as_words(expected[3])).any()
    assert_like_jax(sb.ensemble(init, SIZE), key, expected)


def test_programs_of_two_generators_of_one_name_are_two():
    make = sb.ensemble(init, SIZE)
    for name in ("threefry by name", "rbg as threefry", "split", "fold_in"):
        key = jax.random.key(3, impl=FOREIGN[name])
        assert_same_bits(make(key), oracle(init, SIZE, key))
    key = jax.random.key(3)
    assert_same_bits(make(key), oracle(init, SIZE, key))


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg", "threefry2x32"])
def test_legacy_keys_are_of_the_default_generator(impl):
    with jax.default_prng_impl(impl):
        key = jax.random.PRNGKey(3)
        make, expected = sb.ensemble(init, SIZE), oracle(init, SIZE, key)
        assert_like_jax(make, key, expected)
        assert_like_jax(make, split(key, SIZE), expected)
        native = not native_problem() and impl == "threefry2x32"
        assert (make.plan(key).reference is None) == native
        # A typed key says itself what it is.
        assert_like_jax(
            make,
            jax.random.key(3, impl="threefry2x32"),
            oracle(init, SIZE, jax.random.key(3, impl="threefry2x32")),
        )


# --- the drop-ins, accelerate, prng -----------------------------------------------------


CALLS = {
    "normal": ((600,),),
    "bits": ((600,),),
    "split": (600,),
    "fold_in": (5,),
    "permutation": (50,),
}


@pytest.mark.parametrize("name", CALLS)
def test_drop_ins_leave_foreign_keys_to_jax(foreign, name):
    drop_in, jaxs = getattr(sb.random, name), getattr(jax.random, name)
    assert_same_bits(drop_in(foreign, *CALLS[name]), jaxs(foreign, *CALLS[name]))
    assert drop_in.programs.made_by(foreign, *CALLS[name]) == "jax"


def test_accelerated_programs_with_foreign_keys(foreign):
    def program(key):
        many = jax.random.split(key, 600)
        folded = jax.vmap(jax.random.fold_in)(many, jnp.arange(600))
        return jax.random.normal(key, (600,)), jax.random.key_data(many), folded

    expected = jax.jit(lambda key: program(key))(foreign)
    with accelerate():
        assert_same_bits(jax.jit(lambda key: program(key))(foreign), expected)


def test_conversions_of_keys_refuse_foreign_ones(foreign):
    with pytest.raises(TypeError, match="got keys of type"):
        sb.prng.from_threefry(foreign)
    with pytest.raises(TypeError, match="got keys of type"):
        sb.prng.to_threefry(foreign)


def test_the_name_of_ours_is_somebody_elses():
    # Whoever registers "seedbed" before us keeps it, and our own keys are ours all the same.
    out = run_python(
        """
        import importlib, jax, numpy as np
        from jax.extend.random import define_prng_impl
        rbg = jax.random.key(0, impl="rbg").dtype._impl
        parts = {p: getattr(rbg, p) for p in ("key_shape", "seed", "split", "fold_in")}
        spec = define_prng_impl(random_bits=rbg.random_bits, name="seedbed", tag="x", **parts)
        for place in ("jax._src.random.prng", "jax._src.prng"):
            try:
                importlib.import_module(place).register_prng(spec._impl)
                break
            except ImportError:
                pass
        import seedbed as sb
        init = lambda key: jax.random.normal(key, (50,))
        make = sb.ensemble(init, 3)
        for key in (jax.random.key(1, impl="seedbed"), jax.random.key(1, impl=sb.prng.impl)):
            want = jax.jit(jax.vmap(init))(jax.random.split(key, 3))
            whole, one = (make(key) == want).all(), (make.member(key, 2) == want[2]).all()
            print(key.dtype, bool(whole and one))
        print(jax.random.key_impl(sb.prng.to_threefry(key)))
        """
    )
    assert out.split() == ["key<x>", "True", "key<sb>", "True", "threefry2x32"]


# --- streams and modules ----------------------------------------------------------------


def test_streams_of_foreign_keys(foreign):
    with sb.random.stream(foreign):
        for number in range(3):
            assert_same_bits(sb.random.next_key(), jax.random.fold_in(foreign, number))


def test_the_state_of_a_stream_leads_back_to_its_generator(foreign):
    # Its name alone would make it another's, or nobody's.
    with sb.random.stream(foreign):
        with pytest.raises(ValueError, match="does not find by its name, '[a-z0-9]+', so that no"):
            sb.random.get_state()
    for key in (jax.random.key(1), jax.random.key(1, impl="rbg"), ours(jax.random.key(1))):
        with sb.random.stream(key):
            state = sb.random.get_state()
            first = sb.random.next_key()
            sb.random.set_state(state)
            assert_same_bits(sb.random.next_key(), first)


def test_modules_of_foreign_keys(foreign):
    net = sb.nn.Linear(3, 2)
    with sb.random.stream(foreign):
        sb.nn.vmap_init_all_states(net, axis_size=SIZE)
    expected = oracle(sb.nn.init_function(sb.nn.Linear(3, 2)), SIZE, jax.random.fold_in(foreign, 0))
    assert_same_bits(net.weight.value, expected["weight"])


@pytest.mark.parametrize("name", [*FOREIGN, "renamed", "rbg", "seedbed"])
def test_states_that_hold_keys_are_pickled_with_their_generator(name):
    impl = FOREIGN.get(name) or THREEFRY.get(name) or name
    state = sb.nn.State(jax.random.split(jax.random.key(3, impl=impl), 2))
    again = pickle.loads(pickle.dumps(state)).value
    assert again.dtype == state.value.dtype
    assert_same_bits(again, state.value)
