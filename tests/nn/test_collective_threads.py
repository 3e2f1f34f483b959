"""Collective calls from several threads, on large trees, and how often they compile."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, native_problem, programs
from modules import (
    Declared,
    Group,
    Log,
    Noise,
    assert_no_tracer,
    assert_values,
    call_key,
    picture,
    values,
    vmapped,
)
from seedbed.filters import PathContains

pytestmark = [pytest.mark.end("newest"), pytest.mark.usefixtures("seeded")]

THREADS, ROUNDS = 8, 200


# --- threads ----------------------------------------------------------------------------


def together(*functions):
    """Runs the functions in a thread each, from one moment on; raises the first error."""
    start = threading.Barrier(len(functions))
    errors = []

    def run(function):
        start.wait()
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Pair(sb.nn.Module):
    """Two states that always hold the same numbers, one declared and one made in init_state."""

    def __init__(self):
        self.b = sb.nn.State(jnp.zeros((2, 4)))

    def init_state(self):
        draw = jax.random.uniform(sb.random.next_key(), (4,))
        self.a = sb.nn.State(draw)
        self.b = sb.nn.State(draw)
        self.mark = "set"


def test_threads_with_modules_of_their_own():
    sb.nn.vmap_init_all_states(Pair(), axis_size=2)  # compiled beforehand
    rows = [[] for _ in range(THREADS)]

    def work(found):
        net = Pair()
        for _ in range(ROUNDS):
            sb.nn.vmap_init_all_states(net, axis_size=2)
            assert_no_tracer(net)
            found.append(np.asarray(net.a.value).tobytes())

    together(*(lambda found=found: work(found) for found in rows))
    every = [row for found in rows for row in found]
    assert len(set(every)) == THREADS * ROUNDS
    assert sb.random.get_state().count == 1 + THREADS * ROUNDS
    # Which thread had which key is open; that every key was used once is not.
    init = sb.nn.init_function(Pair())

    def call(number):
        key = jax.random.fold_in(jax.random.key(11), number)
        return jax.vmap(init)(jax.random.split(key, 2))["a"]

    alone = jax.jit(jax.vmap(call))(jnp.arange(1, 1 + THREADS * ROUNDS))
    assert {row.tobytes() for row in np.asarray(alone)} == set(every)


def test_threads_with_one_module_and_a_reader():
    net = sb.nn.vmap_init_all_states(Pair(), axis_size=2)
    objects = net.a, net.b
    seen = []
    done = threading.Event()

    def write():
        for _ in range(ROUNDS // 4):
            sb.nn.vmap_init_all_states(net, axis_size=2)

    def read():
        while not done.is_set():
            _, one = sb.nn.split(net)
            assert not any(isinstance(value, jax.core.Tracer) for value in one.values())
            a, b = np.asarray(one["a"]), np.asarray(one["b"])
            assert a.shape == (2, 4) and np.array_equal(a, b)
            seen.append(a.tobytes())

    def writers():
        try:
            together(*[write] * (THREADS - 1))
        finally:
            done.set()

    together(writers, read)
    assert len(set(seen)) > 3
    assert (net.a, net.b) == objects
    assert_same_bits(net.a.value, net.b.value)


def test_another_thread_sees_nothing_of_a_call_that_runs():
    inside, go_on = threading.Event(), threading.Event()

    class Waits(sb.nn.Module):
        def __init__(self):
            self.w = sb.nn.State(jnp.zeros(2))

        def init_state(self):
            self.w.value = jax.random.uniform(sb.random.next_key(), (2,))
            self.made = sb.nn.State(1.0)
            self.flag = True
            inside.set()
            assert go_on.wait(60)

    net = Waits()
    before = picture(net)
    seen = []

    def look():
        assert inside.wait(60)
        try:
            seen.append(picture(net)[:3] == before[:3])
            seen.append(hasattr(net, "made") or hasattr(net, "flag"))
            assert_same_bits(net.w.value, jnp.zeros(2))
        finally:
            go_on.set()

    together(lambda: sb.nn.vmap_init_all_states(net, axis_size=3), look)
    assert seen == [True, False] and net.w.shape == (3, 2) and net.flag


def test_failures_in_some_threads_do_not_touch_the_others():
    class Fails(Pair):
        def init_state(self):
            super().init_state()
            raise KeyError("on purpose")

    sb.nn.vmap_init_all_states(Pair(), axis_size=2)
    rows = []

    def good():
        net = Pair()
        for _ in range(20):
            rows.append(np.asarray(sb.nn.vmap_init_all_states(net, axis_size=2).a.value).tobytes())

    def bad():
        net = Fails()
        attributes = dict(vars(net))
        for _ in range(20):
            with pytest.raises(KeyError):
                sb.nn.vmap_init_all_states(net, axis_size=2)
            assert vars(net) == attributes

    together(good, bad, good, bad)
    assert len(set(rows)) == 40


# --- large trees ------------------------------------------------------------------------


def test_a_module_of_2000_nodes():
    log = []
    net = Group(*(Group(*(Log((i, j), log) for j in range(40))) for i in range(50)))
    sb.nn.vmap_init_all_states(net, axis_size=2)
    assert log == [(i, j) for i in range(50) for j in range(40)]
    assert len(net.nodes()) == 2051


def test_many_nodes_with_states():
    # The reference backend compiles every draw by itself.
    count = 10 if native_problem() else 500
    net = Group(*(Noise(1) for _ in range(count)))
    exclude = PathContains(count - 1)
    sb.nn.vmap_init_all_states(net, axis_size=3, node_to_exclude=exclude)
    assert not hasattr(net.items[-1], "x") and net.members == 3
    every = np.stack([node.x.value for node in net.items[:-1]])
    assert len(np.unique(every)) > 0.99 * every.size
    few = Group(*(Noise(1) for _ in range(3)))
    assert_values(few_members(few, 3), vmapped(few, 3, call_key()))
    for number, node in enumerate(few.items):
        assert_same_bits(node.x.value, net.items[number].x.value)


def few_members(net, size):
    sb.random.seed(11)
    return sb.nn.vmap_init_all_states(net, axis_size=size)


@pytest.mark.parametrize("depth", [2000])
def test_depth(depth):
    log = []
    net = leaf = Log(0, log)
    for number in range(1, depth):
        net = Log(number, log, child=net)
    leaf.declared = Declared(2)
    sb.nn.vmap_init_all_states(net, axis_size=2)
    assert log == list(range(depth))
    assert leaf.declared.w.shape == (2, 2) and net.members == 2
    before = picture(net)
    with pytest.raises(ValueError):
        sb.nn.vmap_init_all_states(net, axis_size=0)
    assert picture(net) == before
    sb.nn.call_all_fns(net, "note", node_to_exclude=Declared)
    sb.nn.init_all_states(net)
    assert len(log) == 3 * depth and net.members is None


def test_depth_of_lists():
    inner = Noise(2)
    nested = inner
    for _ in range(2000):
        nested = [nested]
    net = Group(nested)
    sb.nn.vmap_init_all_states(net, axis_size=3)
    assert inner.x.shape == (3, 2)


# --- compiling --------------------------------------------------------------------------


class Compiles:
    """Counts the programs that jax compiles."""

    def __init__(self):
        self.count = 0

    def __call__(self, event, duration, **kwargs):
        del duration, kwargs
        self.count += event == "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiles():
    counter = Compiles()
    jax.monitoring.register_event_duration_secs_listener(counter)
    yield counter
    jax.monitoring.unregister_event_duration_listener(counter)


class Orthogonal(sb.nn.Module):
    def __init__(self):
        init = jax.nn.initializers.orthogonal()
        self.w = sb.nn.ParamState(init=init, shape=(7, 7))
        self.u = sb.nn.ParamState(init=jax.nn.initializers.uniform(), shape=(2,))


@pytest.mark.parametrize(
    "make",
    [
        lambda: sb.nn.Linear(7, 2),
        Orthogonal,
        lambda: sb.nn.GRUCell(2, 2),
        lambda: Group(Noise(2), {"k": Declared(2)}),
        lambda: sb.nn.LIF(6),
    ],
    ids=["Linear", "Orthogonal", "GRUCell", "Group", "LIF"],
)
def test_a_second_call_of_the_same_structure_compiles_nothing(make, compiles):
    net = make()
    sb.nn.vmap_init_all_states(net, axis_size=3)
    jax.block_until_ready(values(net))
    first = compiles.count
    built = programs()
    sb.nn.vmap_init_all_states(net, axis_size=3)  # the same object
    sb.nn.vmap_init_all_states(make(), axis_size=3)  # another one of the same structure
    assert compiles.count == first
    assert programs() == built
    sb.nn.vmap_init_all_states(net, axis_size=4)
    assert compiles.count > first
    again = compiles.count
    sb.nn.vmap_init_all_states(net, axis_size=3)
    sb.nn.vmap_init_all_states(net, axis_size=4)
    assert compiles.count == again


def test_other_calls_compile_once(compiles):
    net = sb.nn.vmap_init_all_states(sb.nn.LIF(6), axis_size=3)
    scaled = Noise(2)
    exclude = PathContains("w")

    def calls():
        sb.nn.vmap_reset_all_states(net, axis_size=3)
        sb.nn.vmap_init_all_states(scaled, 2.0, axis_size=3)
        sb.nn.vmap_init_all_states(Declared(2), axis_size=3, state_to_exclude=exclude)
        sb.nn.vmap_new_states(lambda: Noise(2).init_state(), axis_size=3)()

    calls()
    first = compiles.count
    calls()
    assert compiles.count == first


def test_init_state_is_traced_once_per_call_and_arguments_matter():
    log = []

    class Counts(Noise):
        def init_state(self, scale):
            log.append(scale)
            super().init_state(scale)

    net = Counts(2)
    sb.nn.vmap_init_all_states(net, 1.0, axis_size=3)
    one = net.x.value
    sb.random.seed(11)
    sb.nn.vmap_init_all_states(net, 2.0, axis_size=3)
    assert log == [1.0, 2.0]
    assert_same_bits(net.x.value, one * 2)
