"""What the tests of running over members share: a module, and a loop over the members."""

import jax
import jax.numpy as jnp
import numpy as np

import seedbed as sb
from seedbed.nn import Module, ParamState, State
from seedbed.nn._tree.walk import dotted

N = 6
normal = jax.nn.initializers.normal(1.0)


def make(net, key, size=N, **options):
    with sb.random.stream(key):
        return sb.nn.vmap_init_all_states(net, axis_size=size, **options)


def members_of(net):
    """Every member as a single module, by merging its slice of the values."""
    definition, values = sb.nn.split(net)
    states = {dotted(path): state for path, state in net.states().items()}
    for state in definition.skeleton.states().values():
        state._content = state._content._replace(mapped=state.mapped[1:])
    for i in range(net.members):
        part = {
            name: jnp.take(value, i, states[name].mapped[0].axis) if states[name].members else value
            for name, value in values.items()
        }
        yield sb.nn.merge(definition, part)


def looped(net, call):
    """``call(member, i)`` of every member, stacked."""
    results = [call(member, i) for i, member in enumerate(members_of(net))]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


def close(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, two in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert one.shape == two.shape
        np.testing.assert_allclose(one, two, rtol=2e-5, atol=1e-6)


class Scale(Module):
    """Elementwise only, so that any way to run it has the same bits."""

    def __init__(self, n=3):
        self.w = ParamState(init=normal, shape=(n,))
        self.count = State(jnp.int32(0))

    def __call__(self, x):
        return x * self.w.value

    def double(self, x, *, times=2):
        return x * self.w.value * times


class Counter(Module):
    """A value per member, and a count that all members share."""

    def __init__(self):
        self.w = ParamState(init=normal, shape=(3,))
        self.count = State(jnp.int32(0))
        self.total = State(jnp.zeros(3))

    def __call__(self, x):
        self.count.value = self.count.value + 1
        return x * self.w.value

    def add(self, x):
        self.total.value = self.total.value + x * self.w.value

    def tell(self, x):
        self.count.value = x


def snapshot(net):
    return {
        path: (state.value, state.mapped, state.tags)
        for path, state in net.states().items()
        if state.initialized
    }


def assert_unchanged(net, before):
    after = snapshot(net)
    assert after.keys() == before.keys()
    for path, (value, mapped, tags) in before.items():
        now = after[path]
        assert now[0] is value and now[1:] == (mapped, tags), path
