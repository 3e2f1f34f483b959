"""Some members drawn again: `Ensemble.reinit`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits

pytestmark = pytest.mark.shared

normal = jax.random.normal
SIZE = 9


def init(key, scale=2.0):
    w, r, k = jax.random.split(key, 3)
    return {
        "w": normal(w, (7, 2)),
        "residual": jnp.tanh(scale * normal(r, (8,))),
        "key": k,
        "bits": jax.random.bits(w, (3,), jnp.uint8),
        "zeros": jnp.zeros(2),
    }


def chosen(mask, new, old):
    """The contract, member by member."""

    def leaf(new, old):
        if jnp.issubdtype(new.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(leaf(*map(jax.random.key_data, (new, old))))
        new, old = np.asarray(new), np.asarray(old)
        return np.where(np.reshape(mask, (-1, *[1] * (new.ndim - 1))), new, old)

    return jax.tree.map(leaf, new, old)


def pointers(tree):
    return [
        getattr(leaf, "_base_array", leaf).unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)
    ]


@pytest.fixture
def make():
    return sb.ensemble(init, SIZE)


@pytest.fixture
def old(make):
    return make(jax.random.key(99))


@pytest.fixture
def new(make, key):
    return make(key)


MASK = np.array([True, False, False, True, False, False, False, False, True])
CHOICES = {
    "one": (3, [3]),
    "last": (np.int64(-1), [8]),
    "scalar": (jnp.int32(-2), [7]),
    "slice": (slice(2, 5), [2, 3, 4]),
    "steps": (slice(None, None, -3), [8, 5, 2]),
    "whole": (slice(None), list(range(9))),
    "list": ([4, -5, 4, 0], [0, 4]),
    "range": (range(1, 9, 4), [1, 5]),
    "array": (jnp.array([7, 2], jnp.uint8), [2, 7]),
    "mask": (MASK, [0, 3, 8]),
    "listed mask": (MASK.tolist(), [0, 3, 8]),
    "nobody": ([], []),
    "no slice": (slice(4, 4), []),
    "empty mask": (jnp.zeros(9, bool), []),
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_chosen_are_new_and_the_others_old(make, old, new, key, name):
    index, members = CHOICES[name]
    want = chosen(np.isin(np.arange(SIZE), members), new, old)
    assert_same_bits(make.reinit(old, key, index), want)
    again = sb.ensemble(init, SIZE, donate=True)
    given = jax.tree.map(jnp.copy, old)
    before, leaves = pointers(given), jax.tree.leaves(given)
    renewed = again.reinit(given, key, index)
    assert_same_bits(renewed, want)
    assert pointers(renewed) == before
    assert all(leaf.is_deleted() == bool(members) for leaf in leaves)
    if not isinstance(index, (slice, range)):
        index = np.asarray(index, None if np.size(index) else np.int32)
        assert_same_bits(jax.jit(again.reinit)(old, key, index), want)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(old))


def test_traced_indices_out_of_range_choose_nobody(make, old, new, key):
    want = chosen(MASK, new, old)

    @jax.jit
    def renewed(old, key, mask):
        return make.reinit(old, key, jnp.nonzero(mask, size=5, fill_value=SIZE)[0])

    assert_same_bits(renewed(old, key, MASK), want)
    far = jnp.array([0, 3, 8, 9, 2**31 - 1, -10, -(2**31)])
    assert_same_bits(jax.jit(make.reinit)(old, key, far), want)


def test_only_the_chosen_are_drawn(make, old, key):
    """In a traced program nothing is of all members but where the chosen are put in."""

    def made(index):
        program = jax.make_jaxpr(lambda key, index: make.reinit(old, key, index))(key, index)
        shapes = [
            output.aval.shape
            for equation in program.jaxpr.eqns
            if not equation.primitive.name.startswith("scatter")
            for output in equation.outvars
        ]
        return (SIZE, 7, 2) in shapes, (2, 7, 2) in shapes

    assert made(jnp.array([1, 5])) == (False, True)
    assert made(jnp.asarray(MASK))[0]


def test_arguments_keys_and_counts_are_the_members_own(key):
    def of(keys, x):
        return {"w": normal(keys["a"], (3,)) * x, "u": jax.random.uniform(keys["b"])}

    keys = {"a": jax.random.split(key, SIZE), "b": jax.random.key(7)}
    x = jnp.arange(2.0 * SIZE).reshape(2, SIZE)[:, :, None] * jnp.ones((1, 1, 3))
    make = sb.ensemble(lambda keys, x: of(keys, x.sum(0)), SIZE, in_axes=1)
    new, old = make(keys, x), jax.tree.map(jnp.zeros_like, make(keys, x))
    want = chosen(MASK, new, old)
    assert_same_bits(make.reinit(old, keys, MASK, x), want)
    assert_same_bits(jax.jit(make.reinit)(old, keys, MASK, x), want)
    index = jnp.array([8, 0, 3, 9])
    assert_same_bits(jax.jit(make.reinit)(old, keys, index, x), want)


def test_numpy_arrays_will_do_and_are_left_alone(make, old, new, key):
    given = {**old, "w": np.asarray(old["w"]).copy()}
    assert_same_bits(make.reinit(given, key, MASK), chosen(MASK, new, old))
    assert_same_bits(given["w"], old["w"])


def test_generators_that_draw_for_the_batch_as_a_whole():
    def init(key):
        return normal(key, (3,))

    make, (first, key) = sb.ensemble(init, SIZE), jax.random.split(jax.random.key(1, impl="rbg"))
    old, new = make(first), make(key)
    for index in (MASK, [0, 3, 8]):
        assert_same_bits(make.reinit(old, key, index), chosen(MASK, new, old))


def test_within_scan_vmap_and_before_grad(make, old, new, key):
    plain = sb.ensemble(lambda key: normal(key, (3,)), SIZE)
    start, keys = jnp.zeros((SIZE, 3)), jax.random.split(key, 4)

    def step(params, given):
        key, index = given
        return plain.reinit(params, key, index), None

    indices = jnp.array([[0, 1], [1, 2], [8, 8], [2, 3]])
    out, _ = jax.lax.scan(step, start, (keys, indices))
    want = start
    for key, index in zip(keys, indices, strict=True):
        want = want.at[index].set(plain(key)[index])
    assert_same_bits(out, want)
    masks = jnp.stack([jnp.asarray(MASK)] * 4)
    for given in (indices, masks):
        several = jax.vmap(plain.reinit, in_axes=(None, 0, 0))(start, keys, given)
        for i in range(4):
            assert_same_bits(several[i], plain.reinit(start, keys[i], given[i]))

    def loss(params):
        return (plain.reinit(params, keys[0], MASK) ** 2).sum()

    gradient = jax.grad(loss)(start + 1)
    assert_same_bits(gradient, jnp.where(jnp.asarray(MASK)[:, None], 0.0, 2.0) * (start + 1))


def test_a_key_may_be_used_for_members_again():
    make = sb.ensemble(lambda key: normal(key, (3,)), SIZE)
    old = jnp.zeros((SIZE, 3))
    with jax.debug_key_reuse(True):
        key = jax.random.key(0)
        make.reinit(old, key, [1])
        make.reinit(old, key, MASK)
        jax.jit(make.reinit)(old, key, MASK)


def test_no_second_copy(key):
    """The peak of a program is known where it is compiled whole, with the old given up."""

    def init(key):
        return normal(key, (1 << 10,))

    make, old = sb.ensemble(init, 64), jnp.zeros((64, 1 << 10))
    run = jax.jit(make.reinit, donate_argnums=0)
    used = run.lower(old, key, jnp.arange(2)).compile().memory_analysis()
    assert used.alias_size_in_bytes == old.nbytes
    assert used.temp_size_in_bytes < old.nbytes // 4


REFUSED = {
    "float": (TypeError, "`index` must be an integer, a slice, .*; got 1.5", 1.5),
    "bool": (TypeError, "`index` must be an integer, .*; got True of type bool", True),
    "bool of an array": (ValueError, r"mask of shape \(\) for size=9", jnp.array(True)),
    "string": (TypeError, "got 'all' of type str", "all"),
    "None": (TypeError, "got None of type NoneType", None),
    "floats": (TypeError, r"got an array of dtype float32 and shape \(2,\)", jnp.ones(2)),
    "table": (TypeError, r"got an array of dtype int32 and shape \(1, 2\)", jnp.ones((1, 2), int)),
    "keys": (TypeError, r"got an array of dtype key<fry> and shape \(\)", jax.random.key(0)),
    "ragged": (TypeError, r"got \[\[1\], \[1, 2\]\]", [[1], [1, 2]]),
    "beyond": (IndexError, "`index` is 9, out of range for an ensemble of size=9", 9),
    "before": (IndexError, "`index` contains -10, out of range", [0, -10]),
    "short mask": (ValueError, r"`index` is a mask of shape \(8,\) for size=9", np.ones(8, bool)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_indices_that_are_refused(make, old, key, name):
    kind, message, index = REFUSED[name]
    with pytest.raises(kind, match=message):
        make.reinit(old, key, index)


UNLIKE = {
    "structure": (
        ValueError,
        r"`params` must be a result .*; got the array itself",
        lambda p: p["w"],
    ),
    "shape": (
        ValueError,
        r"`params\['w'\]` must have shape \(9, 7, 2\) and dtype float32; got shape \(8, 7, 2\)",
        lambda p: {**p, "w": p["w"][:8]},
    ),
    "dtype": (
        ValueError,
        r"`params\['zeros'\]` must have .* float32; got .* and dtype float64",
        lambda p: {**p, "zeros": np.zeros((9, 2))},
    ),
    "number": (
        TypeError,
        r"`params\['w'\]` must be an array; got a value of type float",
        lambda p: {**p, "w": 1.0},
    ),
}


@pytest.mark.parametrize("index", [[1], []], ids=["some", "nobody"])
@pytest.mark.parametrize("name", UNLIKE)
def test_params_that_are_refused(make, old, key, name, index):
    kind, message, change = UNLIKE[name]
    with pytest.raises(kind, match=message):
        make.reinit(change(old), key, index)


def test_memory_that_cannot_be_given_up(old, key):
    make = sb.ensemble(init, SIZE, donate=True)
    with pytest.raises(TypeError, match=r"`params\['w'\]` must be a jax.Array, whose memory"):
        make.reinit({**old, "w": np.asarray(old["w"])}, key, 1)
    make.reinit(old, key, 1)
    for again in (make, sb.ensemble(init, SIZE)):
        with pytest.raises(ValueError, match=r"`params\['bits'\]` has been deleted or donated"):
            again.reinit(old, key, 1)


# --- on several devices -----------------------------------------------------------------


def _places(array):
    return [shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards]


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
@pytest.mark.parametrize("spec", [("d",), (None, "d"), ()], ids=["members", "elements", "whole"])
@pytest.mark.parametrize("laid_out", [True, False], ids=["out_shardings", "params"])
def test_what_lies_on_several_devices_stays_there(laid_out, spec, kind, key):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(getattr(jax.sharding.AxisType, kind),))
    place = jax.NamedSharding(mesh, jax.P(*spec))
    options = {"out_shardings": place} if laid_out else {}
    plain = sb.ensemble(lambda key: normal(key, (8,)), 12)
    old, new = plain(jax.random.key(5)), plain(key)
    mask = np.arange(12) % 5 == 0
    want = chosen(mask, new, old)
    for donate in (False, True):
        make = sb.ensemble(plain.init, 12, donate=donate, **options)
        given = jax.device_put(old + 0, place)
        memory = _places(given)
        out = make.reinit(given, key, mask)
        assert_same_bits(np.asarray(out), want)
        assert out.sharding.is_equivalent_to(place, 2)
        assert given.is_deleted() == donate
        assert not donate or _places(out) == memory
    given = jax.device_put(old, place)
    for index in (mask, np.flatnonzero(mask)):
        assert_same_bits(np.asarray(jax.jit(make.reinit)(given, key, index)), want)


def test_padded_members_are_left_alone(key):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.NamedSharding(mesh, jax.P("d"))
    make = sb.ensemble(lambda key: normal(key, (3,)), SIZE, out_shardings=place, pad=True)
    old, new = make(jax.random.key(5)), make(key)
    assert old.shape == (12, 3)
    want = np.where(np.pad(MASK, (0, 3))[:, None], new, old)
    for run in (make.reinit, jax.jit(make.reinit)):
        assert_same_bits(np.asarray(run(old, key, MASK)), want)
    with pytest.raises(IndexError, match="`index` is 9, out of range"):
        make.reinit(old, key, 9)
