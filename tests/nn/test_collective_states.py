"""Values of states in collective calls: kinds of values, initialising anew, plan, assignment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import BF16, F16, F32, as_words, assert_same_bits, native_problem, take
from modules import (
    Declared,
    Group,
    Holds,
    Noise,
    Tree,
    assert_no_tracer,
    call_key,
    picture,
    stream_position,
    values,
    vmapped,
)
from seedbed.filters import PathContains

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("seeded")]


# --- what a state may hold --------------------------------------------------------------


def key_of_node():
    return sb.random.next_key()


VALUES = {
    "none": lambda: None,
    "int": lambda: 3,
    "float": lambda: 2.5,
    "bool": lambda: True,
    "complex": lambda: 1 + 2j,
    "numpy scalar": lambda: np.float32(2),
    "numpy float64": lambda: np.ones(2),
    "numpy int": lambda: np.arange(2),
    "numpy bool": lambda: np.array([True, False]),
    "array": lambda: jnp.arange(2.0),
    "scalar array": lambda: jnp.float32(1),
    "zero size": lambda: jnp.zeros((0, 4)),
    "zero size random": lambda: jax.random.normal(key_of_node(), (0, 4)),
    "empty": lambda: jnp.array([]),
    "dict": lambda: {"a": jnp.ones(2), "b": [1, (None, 2.0)]},
    "empty dict": lambda: {},
    "key": key_of_node,
    "keys": lambda: {"k": jax.random.split(key_of_node(), 2)},
    "legacy key": lambda: jax.random.key_data(key_of_node()),
    "bfloat16": lambda: jax.random.normal(key_of_node(), (6,), jnp.bfloat16),
    "float16": lambda: jax.random.uniform(key_of_node(), (6,), jnp.float16),
    "integers": lambda: jax.random.randint(key_of_node(), (6,), 0, 9),
    "bits": lambda: jax.random.bits(key_of_node(), (6,), "uint8"),
    "coin": lambda: jax.random.bernoulli(key_of_node(), 0.5, (6,)),
    "random scalar": lambda: jax.random.uniform(key_of_node()),
    "permutation": lambda: jax.random.permutation(key_of_node(), 6),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_of_all_kinds(name):
    net = sb.nn.vmap_init_all_states(Holds(VALUES[name]), axis_size=3)
    expected = vmapped(Holds(VALUES[name]), 3, call_key())["s"]
    assert_same_bits(net.s.value, expected, weak=False)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(net.s.value))
    assert net.s.members == 3 and net.members == 3
    # A single model holds what init_state made.
    single = sb.nn.init_all_states(net)
    assert single.s is net.s and net.s.members is None


def test_dtypes_of_values():
    made = {name: Holds(VALUES[name]) for name in ("bfloat16", "float16", "numpy float64", "float")}
    sb.nn.vmap_init_all_states(made, axis_size=3)
    assert [net.s.dtype for net in made.values()] == [BF16, F16, F32, F32]
    assert made["float"].s.shape == (3,)


@pytest.mark.parametrize(
    "value", ["text", b"text", object(), {"a": "text"}, np.array(["a"]), {1, 2}], ids=repr
)
def test_values_that_cannot_be_stacked(value):
    net = Holds(lambda: value)
    before = picture(net)
    with pytest.raises(TypeError, match="^the state 's' was given .* members are stacked, so "):
        sb.nn.vmap_init_all_states(net, axis_size=2)
    assert picture(net) == before


def test_quantities_keep_their_unit():
    units = pytest.importorskip("brainunit")
    net = Holds(lambda: jax.random.normal(sb.random.next_key(), (6,)) * units.mV)
    sb.nn.vmap_init_all_states(net, axis_size=3)
    assert isinstance(net.s.value, units.Quantity) and net.s.value.unit == units.mV
    plain = Holds(lambda: jax.random.normal(sb.random.next_key(), (6,)))
    sb.random.seed(11)
    sb.nn.vmap_init_all_states(plain, axis_size=3)
    assert net.s.shape == (3, 6)
    assert_same_bits(net.s.value.mantissa, plain.s.value)


def test_numpy_s_random_numbers_are_the_same_for_all_members():
    # They are drawn once, when init_state is traced.
    generator = np.random.default_rng(0)
    net = Holds(lambda: generator.normal(size=4))
    sb.nn.vmap_init_all_states(net, axis_size=3)
    expected = np.random.default_rng(0).normal(size=4).astype(np.float32)
    assert_same_bits(net.s.value, jnp.broadcast_to(expected, (3, 4)))


# --- initialising anew ------------------------------------------------------------------


class Makes(sb.nn.Module):
    """States made in init_state: in an attribute, a list, a dictionary and a module made there."""

    def __init__(self):
        self.kept = sb.nn.State(jnp.zeros(2))

    def init_state(self):
        self.a = sb.nn.HiddenState(jax.random.uniform(sb.random.next_key(), (2,)))
        self.many = [sb.nn.State(1.0), {"k": (sb.nn.State(jnp.ones(1)),)}]
        self.child = Declared(2)


@pytest.mark.parametrize("make", [Tree, Makes, Declared, lambda: sb.nn.GRUCell(6, 2)])
def test_initialising_anew_keeps_the_state_objects(make):
    net = sb.nn.vmap_init_all_states(make(), axis_size=3)
    objects = {path: id(state) for path, state in net.states().items()}
    held = net.states()  # so that no identity is used twice
    for number, size in enumerate((5, None, 3), 1):
        if size is None:
            sb.nn.init_all_states(net)
            init = sb.nn.init_function(make())
            expected = jax.jit(init)(call_key(number=number))
            # The last bit may differ from that of eager jax.
            either = jax.tree.map(jnp.asarray, init(call_key(number=number)))
        else:
            sb.nn.vmap_init_all_states(net, axis_size=size)
            expected = either = vmapped(make(), size, call_key(number=number))
        assert {path: id(state) for path, state in net.states().items()} == objects
        got = {name: values(net)[name] for name in expected}
        got = jax.tree.map(jnp.asarray, got)
        assert_same_bits(got, expected, either=either, weak=False)
        assert net.members == size
    assert len(held) == len(objects)
    assert_no_tracer(net)


def test_a_state_of_another_class_takes_the_place():
    net = Noise(kind=sb.nn.HiddenState)
    sb.nn.vmap_init_all_states(net, axis_size=3)
    old = net.x
    net.kind = sb.nn.ParamState
    sb.nn.vmap_init_all_states(net, axis_size=2)
    assert type(net.x) is sb.nn.ParamState and net.x is not old
    assert net.x.shape == (2, 6) and old.shape == (3, 6)


def test_a_module_of_another_size_is_refused_in_a_call_that_reads():
    net = sb.nn.vmap_init_all_states(sb.nn.GRUCell(6, 2), axis_size=3)
    before = picture(net)
    message = r"^the state 'h' holds 3 members, and axis_size is 4; the two must agree where it is "
    with pytest.raises(ValueError, match=message):
        sb.nn.vmap_reset_all_states(net, axis_size=4)
    assert picture(net) == before


def test_a_method_called_for_all_members_reads_each_members_own_value():
    shapes = []

    class Reads(Noise):
        def double(self):
            shapes.append(self.x.value.shape)
            self.y = sb.nn.State(self.x.value * 2)

    net = sb.nn.vmap_init_all_states(Reads(3), axis_size=4)
    sb.nn.vmap_call_all_fns(net, "double", axis_size=4)
    assert shapes == [(3,)] and net.y.shape == (4, 3)
    assert_same_bits(net.y.value, net.x.value * 2)
    assert len(np.unique(net.y.value, axis=0)) == 4


@pytest.mark.parametrize("way", ["value", "declared"])
def test_a_state_made_only_where_it_is_missing_has_members_too(way):
    class Guarded(sb.nn.Module):
        def init_state(self):
            if not hasattr(self, "h"):
                if way == "declared":
                    self.h = sb.nn.HiddenState(init=jax.random.uniform, shape=(3,))
                    return
                self.h = sb.nn.HiddenState(jnp.zeros(3))
            if way == "value":
                self.h.value = jax.random.uniform(sb.random.next_key(), (3,))

    net = Guarded()
    for size in (2, 5):
        sb.nn.vmap_init_all_states(net, axis_size=size)
        assert net.h.shape == (size, 3) and net.members == size
        assert len(np.unique(net.h.value, axis=0)) == size


# --- one by one: plan, assignment -------------------------------------------------------


def test_the_plan_lists_every_state_with_its_draw():
    net = Tree()
    before = picture(net)
    plan = sb.nn.plan_init(net, axis_size=8)
    assert picture(net) == before
    names = [output.path for output in plan.outputs]
    assert sorted(names) == sorted(sb.nn.init_function(net)(jax.random.key(0)))
    text = plan.explain()
    for name in names:
        line = next(line for line in text.splitlines() if line.split()[:1] == [name])
        draw = {"b": "constant", "own": "uniform"}.get(name.split(".")[-1], "normal")
        assert ("reference" if native_problem() else draw) in line, line
    shared = sb.nn.plan_init(net, axis_size=8, state_to_exclude=PathContains("x"))
    assert [o.path for o in shared.outputs] == [name for name in names if "x" not in name]


def test_assigning_values():
    net = sb.nn.vmap_init_all_states(Group(Declared(2), Noise(2)), axis_size=3)
    ones = jnp.ones((3, 2))
    unexpected, missing = sb.nn.assign_state_values(net, {"items.0.w": ones, "no.such": 1})
    assert unexpected == ["no.such"] and missing == ["items.0.b", "items.1.x"]
    assert_same_bits(net.items[0].w.value, ones)
    given = {("items", 1, "x"): ones, ("items", 9): ones}
    unexpected, missing = sb.nn.assign_state_values(net, given, {("items", 1, "x"): ones * 2})
    assert unexpected == [("items", 9)]
    assert missing == [("items", 0, "b"), ("items", 0, "w")]
    assert_same_bits(net.items[1].x.value, ones * 2)
    assert net.members == 3 and stream_position()[-1] == 1


def test_an_assignment_that_fails_changes_nothing():
    net = sb.nn.vmap_init_all_states(Group(Declared(2), Noise(2)), axis_size=3)
    before = picture(net)
    ones = jnp.ones((3, 2))
    with pytest.raises(ValueError, match=r"^`state_by_abs_path` has for 'items.1.x' a value of sh"):
        sb.nn.assign_state_values(net, {"items.0.w": ones, "items.1.x": ones[0]})
    with pytest.raises(TypeError, match="^`state_by_abs_path` must be mappings from paths to val"):
        sb.nn.assign_state_values(net, [("items.0.w", ones)])
    with pytest.raises(TypeError, match="^`target` must be a seedbed.nn.Module"):
        sb.nn.assign_state_values(None, {})
    assert picture(net) == before


def test_members_have_bits_of_their_own():
    net = sb.nn.vmap_init_all_states(Group(*(Noise(6) for _ in range(8))), axis_size=64)
    words = np.concatenate([as_words(value).ravel() for value in values(net).values()])
    assert len(np.unique(words)) > 0.99 * words.size
    assert_same_bits(take(values(net), 0)["items.0.x"], net.items[0].x.value[0])


def test_a_state_of_somebody_else_is_not_given_members():
    other = sb.nn.State(jnp.zeros(3))

    class Intruder(sb.nn.Module):
        def init_state(self):
            other.value = jax.random.normal(sb.random.next_key(), (3,))

    net = Intruder()
    with pytest.raises(ValueError, match="is not part of `target`, was there before, and is"):
        sb.nn.vmap_init_all_states(net, axis_size=2)
    assert other.shape == (3,) and other.members is None
    sb.nn.vmap_init_all_states(net, axis_size=2, out_states=other)
    assert other.shape == (2, 3) and other.members == 2


def test_a_node_that_keeps_a_state_of_other_members_is_refused():
    class Guarded(sb.nn.Module):
        def init_state(self):
            if not hasattr(self, "h"):
                self.h = sb.nn.HiddenState(jax.random.uniform(sb.random.next_key(), (3,)))

    net = Group(Guarded(), Noise(3))
    sb.nn.vmap_init_all_states(net, axis_size=2)
    before = picture(net)
    message = r"^the state 'items.0.h' holds 2 members, and init_state, called for axis_size 5, doe"
    with pytest.raises(ValueError, match=message):
        sb.nn.vmap_init_all_states(net, axis_size=5)
    assert picture(net) == before
    sb.nn.vmap_init_all_states(net, axis_size=5, node_to_exclude=Guarded)  # left alone on purpose
    assert net.items[0].h.shape == (2, 3) and net.items[1].x.shape == (5, 3)


@pytest.mark.parametrize("size", [None, 2])
def test_a_tag_that_init_state_sets_stays_when_it_runs_again(size):
    class Tagged(sb.nn.Module):
        def init_state(self):
            self.h = sb.nn.HiddenState(jnp.zeros(3))
            self.h.tag = "mine"

    net = Tagged()
    for _ in range(2):
        if size is None:
            sb.nn.init_all_states(net)
        else:
            sb.nn.vmap_init_all_states(net, axis_size=size)
        assert net.h.tags == {"mine"}
