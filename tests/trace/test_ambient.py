"""Random numbers of the process that a traced function draws: they are noticed, with the line."""

import functools
import inspect
import random
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.random import normal

import seedbed as sb
from seedbed._trace import ambient

pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def not_warned_yet(monkeypatch):
    monkeypatch.setattr(ambient, "_seen", {})


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line and "def " not in line)


def by_name(key):
    return jax.random.normal(key) + np.random.normal()


def imported(key):
    return jax.random.normal(key) + normal()


def helped(key):
    return by_name(key)


def local(key, count):
    import random as other

    return jax.random.normal(key) * sum(other.random() for _ in range(count))


class Made:
    def __call__(self, key):
        return self._make(key)

    def _make(self, key):
        return jax.random.normal(key) * random.gauss(0, 1)


@pytest.mark.parametrize(
    ("init", "function", "text", "name"),
    [
        (by_name, by_name, "np.random", "numpy.random.normal"),
        (imported, imported, "normal()", "numpy.random.normal"),
        (helped, by_name, "np.random", "numpy.random.normal"),
        (functools.partial(local, count=2), local, "other.random", "random.random"),
        (Made(), Made._make, "random.gauss", "random.gauss"),
    ],
)
def test_the_line_is_named(init, function, text, name, key):
    make = sb.ensemble(init, 3)
    with pytest.warns(sb.GlobalRandomWarning, match="equal in every member, and frozen") as seen:
        make(key)
    (warning,) = seen
    line = line_of(function, text)
    assert (warning.filename, warning.lineno) == (__file__, line)
    assert f"{name} (line {line} of {__file__})" in str(warning.message)


def test_of_modules(seeded):
    class Node(sb.nn.Module):
        def __init__(self):
            self.w = sb.nn.ParamState(jnp.zeros(3))

        def init_state(self):
            self.w.value = jnp.asarray(np.random.normal(size=3))

    node = Node()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(sb.GlobalRandomWarning, match=r"numpy\.random\.normal \(line "):
            sb.nn.vmap_init_all_states(node, axis_size=2)
    assert node.w.shape == (3,)  # an error leaves all as it was
    sb.nn.init_all_states(node)  # a single model draws when it is asked to


def test_once_for_each_place(key):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        sb.ensemble(by_name, 2)(key)
        sb.ensemble(by_name, 3)(key)
        sb.ensemble(imported, 3)(key)
    assert len(seen) == 2


def test_what_cannot_be_found_is_said_of_the_function(key, monkeypatch):
    def hidden(key):
        return jax.random.normal(key) * getattr(np.random, "".join(["ra", "nd"]))()

    # Libraries that other tests use leave threads behind.
    active = threading.active_count
    before = active() - 1
    monkeypatch.setattr(threading, "active_count", lambda: active() - before)
    with pytest.warns(sb.GlobalRandomWarning, match="numpy.random, somewhere in what it calls"):
        sb.ensemble(hidden, 2)(key)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        sb.ensemble(hidden, 2)(key)  # another thread may have drawn
    finally:
        done.set()
        thread.join()


def test_generators_of_ones_own_and_draws_outside_are_fine(key):
    own = np.random.default_rng(3)
    np.random.normal(), random.random()
    sb.ensemble(lambda key: jax.random.normal(key) * own.normal(), 2)(key)
    state = np.random.get_state()
    sb.ensemble(lambda key: jax.random.normal(key), 2)(key)
    assert state[2] == np.random.get_state()[2]
