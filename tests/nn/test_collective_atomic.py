"""Collective calls whose methods raise or do what they must not: nothing has changed."""

import contextlib
import re

import jax
import jax.numpy as jnp
import pytest

import seedbed as sb
from helpers import assert_same_bits
from modules import (
    Declared,
    Group,
    Noise,
    Tree,
    assert_no_tracer,
    assert_values,
    call_key,
    mlp,
    picture,
    stream_position,
    values,
    vmapped,
)

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("in_use")]


@pytest.fixture
def net():
    """A module that holds three members."""
    return sb.nn.vmap_init_all_states(Group(Declared(), Noise(), {"c": Noise(2)}), axis_size=3)


# --- exceptions of the methods ----------------------------------------------------------


class Busy(sb.nn.Module):
    """Does all that an init_state may do, and then raises if it is its turn."""

    def __init__(self, number):
        self.number, self.values, self.table = number, [1, [2]], {"k": {"l": 3}}
        self.old = sb.nn.State(jnp.arange(2.0), tag="old")
        self.gone = "here"

    def init_state(self, turn, error):
        key = sb.random.next_key()
        self.made = sb.nn.HiddenState(jax.random.normal(key, (2,)))
        self.old.value = self.old.value + 1
        self.old.tag = "new"
        self.flag = self.number
        self.child = Declared()
        self.values.append(self.number)
        self.values[1].clear()
        self.table["k"]["m"] = self.made
        self.table["x"] = Declared(2)
        del self.gone
        if self.number == turn:
            raise error("on purpose")


def busy():
    net = Busy(3)
    net.a, net.b = Busy(0), [Busy(1), {"c": Busy(2)}]
    return net


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("how", ["single", "members"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_in_any_node_changes_nothing(how, turn, error):
    net = busy()
    before = picture(net)
    with pytest.raises(error, match="^on purpose"):
        if how == "single":
            sb.nn.init_all_states(net, turn, error)
        else:
            sb.nn.vmap_init_all_states(net, turn, error, axis_size=3)
    assert picture(net) == before
    assert_no_tracer(net)


@pytest.mark.parametrize("turn", range(4))
def test_an_exception_when_there_were_members_already(turn):
    net = sb.nn.vmap_init_all_states(busy(), None, None, axis_size=3)
    for node in net.nodes(Busy).values():
        node.gone = "again"
    before = picture(net)
    with pytest.raises(KeyError, match="on purpose"):
        sb.nn.vmap_init_all_states(net, turn, KeyError, axis_size=3)
    assert picture(net) == before
    # `old` is read, and cannot be with another number of members.
    with pytest.raises(
        ValueError, match=r"^the state 'a\.old' holds 3 members, and axis_size is 2"
    ):
        sb.nn.vmap_init_all_states(net, turn, KeyError, axis_size=2)
    assert picture(net) == before
    message = r"^the state 'a\.old' holds 3 members, and is read while a single model is initial"
    with pytest.raises(ValueError, match=message):
        sb.nn.init_all_states(net, turn, KeyError)
    assert picture(net) == before


def test_what_a_call_that_succeeds_has_changed():
    net = sb.nn.vmap_init_all_states(busy(), None, None, axis_size=3)
    assert net.made.shape == (3, 2) and net.flag == 3 and not hasattr(net, "gone")
    assert net.values == [1, [], 3] and net.table["k"]["m"] is net.made
    assert net.child.w.shape == (3, 6) and net.table["x"].w.shape == (3, 2)
    assert_no_tracer(net)


def test_after_an_exception_the_next_call_gives_what_it_would_have_given():
    net = mlp()
    with pytest.raises(ValueError):
        sb.nn.vmap_init_all_states([net, busy()], 0, ValueError, axis_size=3)
    sb.nn.vmap_init_all_states(net, axis_size=3)
    assert_values(net, vmapped(net, 3, call_key(number=1)))


# --- the random stream --------------------------------------------------------------------


class Seeds(sb.nn.Module):
    """Moves streams in ``init_state``, as ``move`` says, and draws."""

    def __init__(self, move, fails):
        self.move, self.fails = move, fails
        self.draws = sb.nn.ParamState(init=jax.nn.initializers.normal(), shape=(6,))

    def init_state(self):
        super().init_state()
        self.move()
        if self.fails:
            raise RuntimeError("on purpose")

    reset_state = init_state


def _seed():
    sb.random.seed(99)


def _opened(stream):
    def move():
        with stream:
            sb.random.set_state(sb.random.StreamState(*sb.random.get_state()[:2], 40))
            sb.random.seed(98)

    return move


def _taken(stream):
    def move():
        with stream:
            sb.random.next_key()
        jax.random.split(stream.next_key())

    return move


ALL_CALLS = {
    "init": sb.nn.init_all_states,
    "reset": sb.nn.reset_all_states,
    "vmap_init": lambda net: sb.nn.vmap_init_all_states(net, axis_size=2),
    "vmap_reset": lambda net: sb.nn.vmap_reset_all_states(net, axis_size=2),
    "vmap": lambda net: sb.nn.vmap(lambda net: net.init_state(), axis_size=2, out_states=net.draws)(
        net
    ),
    "new_states": lambda net: sb.nn.vmap_new_states(
        net.init_state, axis_size=2, out_states=net.draws
    )(),
}


def _stream_of(call):
    """One that the call may move: all but the single calls trace, where ours is refused."""
    return sb.random.stream(jax.random.key(5)), call in ("init", "reset")


@pytest.mark.parametrize("call", ALL_CALLS)
@pytest.mark.parametrize("make", [lambda stream: _seed, _opened, _taken])
def test_a_stream_that_a_failing_call_moved(call, make):
    stream, single = _stream_of(call)
    stream.next_key()
    if make is _taken and not single:
        make = lambda stream: _seed  # noqa: E731
    net = Seeds(make(stream), True)
    before = picture(net), stream.count, stream.key
    with pytest.raises(RuntimeError, match="^on purpose"):
        ALL_CALLS[call](net)
    assert (picture(net), stream.count, stream.key) == before
    assert jnp.array_equal(stream.next_key(), jax.random.fold_in(jax.random.key(5), 1))


def test_the_ambient_stream_that_a_failing_call_moved():
    with sb.random.stream(jax.random.key(5)) as stream:
        sb.random.next_key()
        for move in (_taken(stream), _opened(stream)):
            with pytest.raises(RuntimeError, match="^on purpose"):
                sb.nn.init_all_states(Seeds(move, True))
            assert stream.count == 1 and stream._at.in_use()[1] == []


@pytest.mark.parametrize("call", ALL_CALLS)
def test_a_seed_takes_effect_when_the_call_has_succeeded(call):
    net, seen = Seeds(_seed, False), []
    net.move = lambda: (_seed(), seen.append(int(sb.random._process.stream.count)))
    ALL_CALLS[call](net)
    assert seen == [2]  # the stream of before, of which the call has a key
    assert stream_position() == (0, 99, "threefry2x32", 0)
    expected = Seeds(lambda: None, False)
    sb.random.seed(11)
    sb.random.next_key()
    ALL_CALLS[call](expected)  # the seed changes no number of the call itself
    assert_same_bits(net.draws.value, expected.draws.value)


def test_the_last_seed_of_nested_calls_wins_and_a_failed_one_is_forgotten():
    def nested(fails):
        inner = Seeds(lambda: sb.random.seed(7), fails)

        def move():
            sb.random.seed(6)
            with contextlib.suppress(RuntimeError):
                sb.nn.init_all_states(inner)
            assert stream_position_of_process() == (0, 11)

        sb.random.seed(11)
        sb.nn.init_all_states(Seeds(move, False))
        return stream_position_of_process()

    assert nested(False) == (0, 7) and nested(True) == (0, 6)


def stream_position_of_process():
    key = sb.random._process.stream.key
    return tuple(map(int, jax.random.key_data(key)))


def test_a_nested_call_that_fails_gives_its_key_back_to_its_node():
    class Tries(sb.nn.Module):
        def __init__(self, inner):
            self.inner = inner

        def init_state(self):
            if self.inner() is not None:
                with contextlib.suppress(RuntimeError):
                    sb.nn.init_all_states(self.inner())
            self.x = sb.nn.State(jax.random.normal(sb.random.next_key(), (6,)))

    made = []
    for inner in (None, Seeds(_seed, True)):
        net = Tries(lambda inner=inner: inner)  # not in the tree, whose nodes are called anyway
        sb.random.seed(11)
        sb.nn.vmap_init_all_states(net, axis_size=2)
        made.append(net.x.value)
    assert_same_bits(made[1], made[0])


@pytest.mark.parametrize("plan", [False, True])
def test_functions_that_change_nothing_seed_nothing(plan):
    net = Seeds(_seed, False)
    before = picture(net)
    if plan:
        sb.nn.plan_init(net, axis_size=2)
    else:
        sb.nn.init_function(net)(jax.random.key(0))
    assert picture(net) == before


# --- values that no call may leave behind -----------------------------------------------


def test_a_string_as_a_state_s_value():
    class Named(sb.nn.Module):
        def init_state(self):
            self.s = sb.nn.State({"a": 1.0, "b": ["text"]})

    net = Named()
    before = picture(net)
    message = re.escape("the state 's' was given 'text' of type str at value['b'][0]; ")
    with pytest.raises(TypeError, match=message):
        sb.nn.vmap_init_all_states(net, axis_size=2)
    assert picture(net) == before


def _attribute(net, value):
    net.cache = value


def _item(net, value):
    net.values.append(value)


def _nested(net, value):
    net.table["k"]["l"] = (value,)


def _new_list(net, value):
    net.fresh = [{"deep": value}]


@pytest.mark.parametrize("put", [_attribute, _item, _nested, _new_list])
def test_a_traced_value_outside_of_a_state(put):
    class Leaks(Busy):
        def init_state(self, turn, error):
            put(self, jax.random.normal(sb.random.next_key(), (2,)))

    net = Leaks(0)
    before = picture(net)
    message = "traced for all members; put it into a State|stored a traced value outside itself"
    with pytest.raises(TypeError, match=message):
        sb.nn.vmap_init_all_states(net, None, None, axis_size=2)
    assert picture(net) == before


def test_a_python_branch_on_a_random_value():
    class Branches(sb.nn.Module):
        def init_state(self):
            if jax.random.normal(sb.random.next_key(), ()) > 0:
                self.s = sb.nn.State(1.0)

    net = Branches()
    before = picture(net)
    with pytest.raises(jax.errors.ConcretizationTypeError):
        sb.nn.vmap_init_all_states(net, axis_size=2)
    assert picture(net) == before


def test_a_dictionary_key_without_an_encoding():
    net = Group({2.5: Noise()})
    before = picture(net)
    with pytest.raises(TypeError, match=r"the dictionary key 2\.5 of type float is on the path"):
        sb.nn.vmap_init_all_states(net, axis_size=2)
    assert picture(net) == before


def test_two_paths_with_the_same_dotted_name():
    net = Group()
    net.items = {"a.b": Declared(), "a": {"b": Declared()}}
    with pytest.raises(ValueError, match=r"are both written 'items\.a\.b\.b'; rename"):
        sb.nn.init_function(net)(jax.random.key(0))


def test_a_module_made_outside_of_the_traced_function(net):
    before = picture(net)

    @jax.jit
    def inside(key):
        with sb.random.stream(key):
            sb.nn.vmap_init_all_states(net, axis_size=3)
        return 1

    with pytest.raises(ValueError, match="was made outside of the function that jax is tracing"):
        inside(jax.random.key(0))
    assert picture(net) == before
    assert_no_tracer(net)
    assert_same_bits(values(net), values(net))


def test_no_stream_inside_of_the_traced_function():
    before = stream_position()

    @jax.jit
    def inside():
        return values(sb.nn.vmap_init_all_states(Tree(), axis_size=2))

    with pytest.raises(RuntimeError, match=r"open `with seedbed\.random\.stream\(key\):`"):
        inside()
    assert stream_position() == before
