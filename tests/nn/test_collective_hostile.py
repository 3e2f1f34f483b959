"""Initialisations that do what is unusual: nested reads, stray values, threads, settings."""

import functools
import re
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from modules import (
    Declared,
    assert_no_tracer,
    assert_values,
    call_key,
    normal,
    picture,
    stream_position,
    uniform,
    values,
    vmapped,
)
from seedbed.filters import PathContains
from seedbed.nn._tree import draft

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("seeded")]

N = 3


# --- excluded states, read inside of nested calls ---------------------------------------


class Child(sb.nn.Module):
    """A state, and one that is computed from it."""

    def __init__(self, kind=sb.nn.State):
        self.kind = kind

    def init_state(self):
        self.noise = self.kind(uniform())
        self.v = sb.nn.State(self.noise.value * 2 + uniform(1))


class Parent(sb.nn.Module):
    """Initialises its child itself."""

    def __init__(self, child, size=None):
        self.child, self.size = child, size

    def init_state(self):
        if self.size is None:
            sb.nn.init_all_states(self.child)
        else:
            sb.nn.vmap_init_all_states(self.child, axis_size=self.size)


# Excluded by the outer call only, a state would have a value for each member of the inner one.
@pytest.mark.parametrize(
    "how, inner",
    [("filter", None), ("kind", None), ("kind", 2), ("kind, visited", None), ("kind, visited", 2)],
)
def test_members_read_the_shared_value_of_an_excluded_state_in_a_nested_call(how, inner):
    kind = sb.nn.State if how == "filter" else sb.nn.NonBatchState
    visited = PathContains("child") if how != "kind, visited" else None
    exclude = PathContains("noise") if how == "filter" else None

    def make():
        sb.random.seed(11)
        return Parent(Child(kind), inner)

    net = make()
    sb.nn.vmap_init_all_states(net, axis_size=N, node_to_exclude=visited, state_to_exclude=exclude)
    single = sb.nn.init_all_states(make(), node_to_exclude=visited)
    levels = (N,) if inner is None else (N, inner)
    assert net.child.noise.shape == (6,) and net.child.noise.mapped == ()
    np.testing.assert_array_equal(net.child.noise.value, single.child.noise.value)
    assert net.child.v.shape == (*levels, 6)
    assert tuple(level.size for level in net.child.v.mapped) == levels
    # What is left is the one number that every member added.
    rest = np.asarray(net.child.v.value).reshape(-1, 6) - 2 * np.asarray(net.child.noise.value)
    np.testing.assert_allclose(rest, rest[:, :1] + np.zeros(6), atol=1e-6)
    assert len(np.unique(rest[:, 0])) == len(rest)


def test_an_excluded_state_of_an_inner_call_with_in_states():
    class Inner(sb.nn.Module):
        def __init__(self):
            self.gain = sb.nn.State(jnp.arange(2.0))

        def init_state(self):
            self.z = sb.nn.State(uniform())
            self.v = sb.nn.State(self.gain.value + self.z.value)

    class Outer(sb.nn.Module):
        def __init__(self):
            self.inner = Inner()

        def init_state(self):
            exclude = PathContains("z")
            sb.nn.vmap_init_all_states(
                self.inner, axis_size=2, in_states=self.inner.gain, state_to_exclude=exclude
            )

    net = Outer()
    sb.nn.vmap_init_all_states(net, axis_size=N, node_to_exclude=PathContains("inner"))
    shapes = {name: value.shape for name, value in values(net).items()}
    assert shapes == {"inner.gain": (N, 2), "inner.v": (N, 2, 6), "inner.z": (N, 6)}
    expected = net.inner.z.value[:, None, :] + jnp.arange(2.0)[None, :, None]
    assert_same_bits(net.inner.v.value, expected)


@pytest.mark.parametrize("use", ["dropped", "printed"])
def test_an_excluded_state_read_by_what_is_not_needed(use, capfd):
    class Reads(sb.nn.Module):
        def __init__(self):
            self.gain = sb.nn.State(jnp.arange(float(N)))

        def init_state(self):
            self.z = sb.nn.State(uniform())
            if use == "dropped":
                self.z.value.sum() + self.gain.value  # noqa: B018
            else:
                jax.debug.print("gain {}", self.gain.value)
                jax.debug.print("z {}", self.z.value.shape)
            self.v = sb.nn.State(jnp.ones(2) * self.gain.value)

    net = Reads()
    exclude = PathContains("z")
    sb.nn.vmap_init_all_states(net, axis_size=N, in_states=net.gain, state_to_exclude=exclude)
    jax.effects_barrier()
    assert net.z.shape == (6,) and net.v.shape == (N, 2)
    assert_same_bits(net.v.value, jnp.repeat(jnp.arange(float(N))[:, None], 2, axis=1))
    printed = sorted(capfd.readouterr().out.split("\n"))
    if use == "printed":  # once for every member, and not for the excluded state
        assert [line for line in printed if "gain" in line] == ["gain 0.0", "gain 1.0", "gain 2.0"]


def test_an_excluded_pytree_is_rewritten_and_read_by_a_key_and_a_scan():
    class Deep(sb.nn.Module):
        def __init__(self):
            self.gain = sb.nn.State(jnp.arange(float(N)))

        def init_state(self):
            self.a = sb.nn.State({"x": uniform(), "k": sb.random.next_key()})
            self.a.value = {"x": self.a.value["x"] + 1, "k": self.a.value["k"]}
            self.b = sb.nn.State(jax.random.uniform(self.a.value["k"], (6,)) * self.gain.value)

            def step(carry, _):
                return carry + self.a.value["x"], None

            self.c = sb.nn.State(jax.lax.scan(step, self.gain.value * jnp.ones(6), length=2)[0])

    net = Deep()
    exclude = PathContains("a")
    sb.nn.vmap_init_all_states(net, axis_size=N, in_states=net.gain, state_to_exclude=exclude)
    single = Deep()
    single.gain.value = jnp.float32(1)
    sb.random.seed(11)
    sb.nn.init_all_states(single)
    assert_same_bits(net.a.value, single.a.value)
    gains = np.arange(float(N), dtype=np.float32)[:, None]
    np.testing.assert_allclose(net.b.value, gains * np.asarray(single.b.value), rtol=1e-6)
    np.testing.assert_allclose(net.c.value, gains + 2 * np.asarray(net.a.value["x"]), rtol=1e-6)


# --- values that must not stay behind ---------------------------------------------------


def plain(x):
    return x


@jax.custom_jvp
def ruled(x):
    return x * 2


ruled.defjvp(lambda primals, tangents: (ruled(primals[0]), tangents[0] * 2))


class Cached(sb.nn.Module):
    """Keeps a traced value in a cached property."""

    def __init__(self, function):
        self.function = function

    @functools.cached_property
    def base(self):
        return uniform()

    def init_state(self):
        self.v = sb.nn.State(self.function(self.base))


class Listed(sb.nn.Module):
    """Keeps a traced value in a list, or a list in a dictionary."""

    def __init__(self, function, nested=False):
        self.function = function
        self.kept = {"list": []} if nested else []

    def init_state(self):
        x = self.function(uniform())
        (self.kept["list"] if isinstance(self.kept, dict) else self.kept).append(x)
        self.v = sb.nn.State(x)


# The trace lives on in the rule of a custom_jvp function, so its end tells nothing there.
@pytest.mark.parametrize("function", [plain, jax.nn.relu, ruled], ids=["plain", "relu", "ruled"])
@pytest.mark.parametrize(
    "make",
    [Cached, Listed, functools.partial(Listed, nested=True)],
    ids=["property", "list", "list in dict"],
)
def test_a_traced_value_in_a_cached_property_or_a_list(make, function):
    net = make(function)
    before = picture(net)
    message = r"^a list, dictionary or cached property of a module was given .*float32\[6\]"
    with pytest.raises(TypeError, match=message + r".*, which is traced for all members; put it"):
        sb.nn.vmap_init_all_states(net, axis_size=N)
    assert picture(net) == before
    assert "base" not in vars(net) and getattr(net, "kept", []) in ([], {"list": []})
    sb.nn.init_all_states(net)  # a single model's values are no traced ones
    assert net.v.shape == (6,)


def test_a_thread_started_in_init_state_cannot_write_a_traced_value():
    errors = []

    class Starts(sb.nn.Module):
        def __init__(self):
            self.v = sb.nn.State(jnp.zeros(6))
            self.other = sb.nn.State(jnp.zeros(2))

        def init_state(self):
            value = [uniform()]

            def write():
                self.other.value = jnp.ones(2)
                try:
                    self.v.value = value.pop()
                except ValueError as error:
                    errors.append(str(error))

            thread = threading.Thread(target=write)
            thread.start()
            thread.join()

    net = Starts()
    # The error's traceback holds the thread's frame; the test is about states.
    sb.nn.vmap_init_all_states(net, axis_size=N)
    assert len(errors) == 1
    assert re.match(r"^a value that is traced \(by jit, vmap, grad, a call on all me", errors[0])
    assert_no_tracer(net)
    assert_same_bits(net.v.value, jnp.zeros(6))
    # What the thread may write is no part of the call.
    assert_same_bits(net.other.value, jnp.ones(2))
    assert draft.current() is None


# --- the same numbers every time --------------------------------------------------------


class DeclaresEachTime(sb.nn.Module):
    def init_state(self):
        super().init_state()
        self.w = sb.nn.State(init=normal, shape=(6,))


class DeclaresOnce(sb.nn.Module):
    def init_state(self):
        super().init_state()
        if not hasattr(self, "w"):
            self.w = sb.nn.State(init=normal, shape=(6,))
        self.x = sb.nn.State(uniform())


class MakesChildEachTime(sb.nn.Module):
    def init_state(self):
        self.child = Declared()


class MakesChildOnce(sb.nn.Module):
    def init_state(self):
        if not hasattr(self, "child"):
            self.child = Declared()


class MakesChildrenInContainers(sb.nn.Module):
    def init_state(self):
        self.items = [Declared(2), {"k": Declared(2)}]
        self.w = sb.nn.State(init=normal, shape=(6,))


REPEATED = [
    DeclaresEachTime,
    DeclaresOnce,
    MakesChildEachTime,
    MakesChildOnce,
    MakesChildrenInContainers,
]


@pytest.mark.parametrize("make", REPEATED)
def test_the_same_key_gives_the_same_numbers_at_every_initialisation(make):
    net = make()
    init = sb.nn.init_function(make())
    expected = vmapped(make(), N, call_key())
    for _ in range(3):
        sb.random.seed(11)
        sb.nn.vmap_init_all_states(net, axis_size=N)
        assert_values(net, expected)
    single = init(call_key())
    for _ in range(2):
        assert_same_bits(sb.nn.init_function(net)(call_key()), single, weak=False)
        sb.random.seed(11)
        sb.nn.init_all_states(net)
        assert_values(net, single)


# --- settings of jax --------------------------------------------------------------------


class Jitted(sb.nn.Module):
    """Eager jax functions take their constants to the device as they like; this one does not."""

    def init_state(self):
        self.x = sb.nn.State(_drawn(sb.random.next_key()))


@jax.jit
def _drawn(key):
    return jax.random.uniform(key, (6,)) + 1


GUARDED = {
    "vmap_init_all_states": lambda net: sb.nn.vmap_init_all_states(net, axis_size=N),
    "vmap_init_all_states, one shared": lambda net: sb.nn.vmap_init_all_states(
        net, axis_size=N, state_to_exclude=PathContains("x")
    ),
    "init_all_states": sb.nn.init_all_states,
    "plan_init": lambda net: sb.nn.plan_init(net, axis_size=N),
}


@pytest.mark.parametrize("call", GUARDED)
def test_nothing_is_transferred_by_accident(call):
    net = Jitted()
    with jax.transfer_guard("disallow"):
        GUARDED[call](net)
    assert stream_position()[-1] == (call != "plan_init")


@pytest.mark.parametrize("call", GUARDED)
def test_no_key_is_used_twice(call):
    net = [sb.nn.Linear(6, 2), Jitted(), DeclaresOnce()]
    with jax.debug_key_reuse(True):
        for _ in range(2):
            GUARDED[call](net)
