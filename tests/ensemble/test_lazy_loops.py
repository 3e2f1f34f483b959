"""Functions over all members of an ensemble that is never stored, in one loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb
from helpers import assert_same_bits, native_problem
from meshes import KINDS, mesh_of
from models import small, sweep
from seedbed._ensemble import loops, mapped

pytestmark = pytest.mark.shared
on_reference = pytest.mark.reference("newest")

SIZE = 24


@pytest.fixture
def make():
    return sb.ensemble(small, SIZE)


class Counted:
    """A function that knows how often it was traced."""

    def __init__(self, fn):
        self.fn = fn
        self.calls = 0

    def __call__(self, *given):
        self.calls += 1
        return self.fn(*given)


@on_reference
@pytest.mark.parametrize("chunk", [None, 1, 5, 23])
def test_what_a_function_gives(make, key, chunk):
    def fn(member):
        key = jax.random.wrap_key_data(
            member["step"][None].astype("uint32") + jnp.arange(2, dtype="uint32")
        )
        return {
            "w": member["w"] * 2,
            "one": 1.0,
            "none": None,
            "key": key,
            "empty": jnp.zeros((0, 2)),
        }

    got = make.lazy(key).map(fn, chunk)
    assert_same_bits(got, jax.vmap(fn)(make(key)))


def test_compiled_once(make, key):
    fn = Counted(lambda member: member["w"].sum())
    ens = make.lazy(key)
    first = ens.map(fn, 5)
    calls = fn.calls
    assert_same_bits(make.lazy(key).map(fn, 5), first)
    other = make.lazy(jax.random.key(1)).map(fn, 5)
    assert fn.calls == calls and not np.array_equal(other, first)
    ens.map(fn, 6)
    assert fn.calls > calls
    folds = Counted(lambda carry, member: carry + member["step"])
    ens.reduce(folds, 0)
    calls = folds.calls
    ens.reduce(folds, 0)
    assert folds.calls == calls


class Unhashable:
    __hash__ = None

    def __init__(self, factor):
        self.factor = factor

    def __eq__(self, other):
        return True

    def __call__(self, member):
        return member["step"] + self.factor


def test_functions_that_are_not_hashable(make, key):
    ens = make.lazy(key)
    for factor in (2, 3):
        assert ens.map(Unhashable(factor))[0] == factor


def test_programs_are_not_kept_for_ever(make, key, monkeypatch):
    monkeypatch.setattr(loops, "KEPT", 2)
    ens = make.lazy(key)
    for factor in range(4):
        assert ens.map(lambda member, factor=factor: member["step"] + factor)[0] == factor
    assert len(make._kept["loops"]) == 2


@on_reference
def test_a_carry_in_the_order_of_members(make, key):
    def fn(carry, member):
        return {"x": carry["x"] * 0.5 + member["b"][0], "n": carry["n"] + 1}

    step, carry = jax.jit(fn), {"x": 0.0, "n": 0}
    ens = make.lazy(key)
    for member in ens:
        carry = step(carry, member)
    for chunk in (None, 1, 7, SIZE):
        assert_same_bits(ens.reduce(fn, {"x": 0.0, "n": 0}, chunk), carry, weak=False)
    assert ens.reduce(lambda carry, member: carry + member["b"].sum(), 0).dtype == np.float32


def test_within_other_programs(make, key):
    whole = make(key)

    def total(scale, key):
        ens = make.lazy(key)
        sums = ens.map(lambda member: (member["b"] * scale).sum(), 7)
        return sums.sum(), ens.reduce(lambda carry, m: carry + scale * m["b"][0], 0.0, 7)

    expected = whole["b"].sum(), whole["b"][:, 0].sum()
    np.testing.assert_allclose(jax.jit(total)(1.0, key), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda s: total(s, key)[0])(1.0), expected[0], rtol=1e-6)
    slope = jax.jit(jax.grad(lambda s, key: total(s, key)[1]))(1.0, key)
    np.testing.assert_allclose(slope, expected[1], rtol=1e-6)
    keys = jax.random.split(key, 3)
    each = jax.vmap(lambda key: make.lazy(key).map(lambda member: member["b"], 5))(keys)
    assert_same_bits(each[1], make(keys[1])["b"], weak=False)
    scaled = sb.ensemble(sweep, SIZE, in_axes=0)
    lengths = jnp.linspace(1, 2, SIZE)
    slopes = jax.grad(lambda x: scaled.lazy(key, x, x).map(jnp.sum, 5).sum())(lengths)
    assert slopes.shape == (SIZE,) and bool((slopes != 0).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", [P("x"), P(("x", "y")), P()], ids=str)
def test_each_device_its_own_members(kind, spec, key, entered):
    mesh = mesh_of(kind, (2, 2), ("x", "y"))
    scale = jnp.linspace(1, 2, SIZE)
    place = NamedSharding(mesh, spec)
    plain = sb.ensemble(sweep, SIZE, in_axes=(0, None))
    whole = plain(key, scale, 1.0)
    with entered(mesh):
        make = sb.ensemble(sweep, SIZE, in_axes=(0, None), out_shardings=place)
        ens = make.lazy(key, scale, 1.0)
        got = ens.map(lambda member: member, 4)
        assert_same_bits(np.asarray(got), np.asarray(whole), weak=False)
        assert got.sharding.is_equivalent_to(place, 2)
        part = ens.map(lambda member: member, members=slice(4, 12))
        assert_same_bits(np.asarray(part), np.asarray(whole[4:12]), weak=False)
        loop = mapped.Loop(jnp.sum, SIZE, 2, None, True)
        program = jax.jit(mapped.mapped(make, loop))
        text = program.lower(key, (scale, 1.0), np.zeros(2, "uint32")).compile().as_text()
    assert not any(word in text for word in ("all-gather", "all-reduce", "collective"))


def test_members_that_do_not_divide(key):
    place = NamedSharding(mesh_of("Auto", (4,)), P("x"))
    with pytest.raises(ValueError, match="`size` is 11 members, which .* that does not divide"):
        sb.ensemble(small, 11, out_shardings=place).lazy(key).map(lambda member: member)
    padded = sb.ensemble(small, 11, out_shardings=place, pad=True)
    got = padded.lazy(key).map(lambda member: member, 2)
    assert_same_bits(got, padded(key), weak=False)
    scale = jnp.arange(11.0)
    padded = sb.ensemble(sweep, 11, in_axes=(0, None), out_shardings=place, pad=True)
    ens = padded.lazy(key, scale, 1.0)
    assert_same_bits(ens.map(lambda member: member), padded(key, scale, 1.0), weak=False)
    part = ens.map(lambda member: member, members=slice(8, 11))
    assert_same_bits(part[:3], ens[8:11][:3], weak=False)


def test_temporaries(key):
    size = 1_000_000
    make = sb.ensemble(small, size)

    def fn(member):
        return jnp.tanh(member["w"].T @ member["w"]).sum()

    chunk = loops.chunk_of(None, make._prepare(make._call(key, ())), size)
    program = loops.compiled(mapped.mapped, make, mapped.Loop(fn, size, chunk, None, True))
    compiled = program.lower(key, (), np.zeros(2, "uint32")).compile()
    # On the reference backend the cipher has temporaries of its own.
    assert 0 < compiled.memory_analysis().temp_size_in_bytes < 1 << (21 if native_problem() else 20)


@pytest.mark.parametrize("call", ["map", "reduce"])
def test_wrong_functions(make, key, call):
    ens = make.lazy(key)
    init = () if call == "map" else (0.0,)
    ask = getattr(ens, call)
    with pytest.raises(TypeError, match=r"`fn` must be a function; got 3 of type int"):
        ask(3, *init)
    with pytest.raises(TypeError, match=r"must return a pytree of arrays .* result\['x'\] is 'no'"):
        ask(lambda *given: {"x": "no"}, *init)

    def fails(*given):
        raise LookupError("the user's")

    with pytest.raises(LookupError, match="the user's"):
        ask(fails, *init)
    for members in (3, [1, 2]):
        with pytest.raises(TypeError, match="`members` must be a slice with a step of 1, or None"):
            ask(fails, *init, members=members)
    for members in (slice(0, 9, 2), slice(3, 3)):
        with pytest.raises(ValueError, match="a step of 1 that holds some of size=24 members"):
            ask(fails, *init, members=members)


def test_carries_that_change(make, key):
    ens = make.lazy(key)
    cases = {
        r"a carry like `init`: init is float32\[\], and `fn` returns float32\[6\]": (
            lambda carry, member: carry + member["b"],
            0.0,
        ),
        r"init\['n'\] is int32\[1\], and `fn` returns float32\[1\]": (
            lambda carry, member: {"n": carry["n"] * 0.5},
            {"n": jnp.zeros(1, "int32")},
        ),
        r"of structure PyTreeDef\(\*\); it returns PyTreeDef\(\(\*, \*\)\)": (
            lambda carry, member: (carry, carry),
            0.0,
        ),
    }
    for message, (fn, init) in cases.items():
        with pytest.raises(TypeError, match=message):
            ens.reduce(fn, init)
    with pytest.raises(TypeError, match=r"`init` must be a pytree of arrays .* init\[0\] is 'x'"):
        ens.reduce(lambda carry, member: carry, ["x"])


def test_results_beyond_memory(key):
    ens = sb.ensemble(small, 2**40).lazy(key)
    with pytest.raises(ValueError, match=r"one array holds fewer than 2\*\*32; map some"):
        ens.map(lambda member: member["step"])
    with pytest.raises(ValueError, match=r"2\*\*31 steps or more; choose a larger `chunk_size`"):
        ens.reduce(lambda carry, member: carry, 0, 1)
    ens = sb.ensemble(small, 2**31).lazy(key)
    with pytest.raises(MemoryError, match="results of `fn` for 2147483648 members are"):
        ens.map(lambda member: jnp.ones(200))
