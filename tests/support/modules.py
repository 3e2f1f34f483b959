"""Modules for the tests of `sb.nn`, their oracles, and pictures of all that must not change."""

from __future__ import annotations

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

import seedbed as sb
from helpers import as_words, assert_same_bits
from seedbed.nn._tree import walk

normal = jax.nn.initializers.normal()


# XLA's own float32 normals differ by some ulp with the layout where the last axis is 3, 4 or 5
# long; everything here has another length, so that equality by bits is what is promised.


class Noise(sb.nn.Module):
    """One random state, made in `init_state`."""

    def __init__(self, n=6, name="x", kind=sb.nn.State):
        self.n, self.name, self.kind = n, name, kind

    def init_state(self, scale=1.0):
        value = scale * jax.random.normal(sb.random.next_key(), (self.n,))
        setattr(self, self.name, self.kind(value))


class Declared(sb.nn.Module):
    """A random and a constant state, both declared."""

    def __init__(self, n=6):
        self.w = sb.nn.ParamState(init=normal, shape=(n,), tag="trained")
        self.b = sb.nn.ParamState(init=jax.nn.initializers.zeros, shape=(n,))


class Node(sb.nn.Module):
    """What it is given, as attributes."""

    def __init__(self, **attributes):
        for name, value in attributes.items():
            setattr(self, name, value)


class Group(sb.nn.Module):
    """Children in a list."""

    def __init__(self, *children):
        self.items = list(children)


class Tree(sb.nn.Module):
    """Modules in attributes, lists, tuples and dictionaries, nested."""

    def __init__(self):
        self.first = Declared(2)
        self.layers = [Noise(2), {"inner": Noise(7), "more": (Noise(1), Declared(1))}]
        self.table = {"a": Noise(8), 3: Noise(2)}
        self.count = 7

    def init_state(self):
        self.own = sb.nn.ParamState(jax.random.uniform(sb.random.next_key(), (2,)))


class Log(sb.nn.Module):
    """Appends its name to a list, shared by all nodes, at every call."""

    def __init__(self, name, log, **children):
        self.name = name
        # In a function, so that the list is none of the module's own.
        self.say = lambda: log.append(name)
        for key, child in children.items():
            setattr(self, key, child)

    def init_state(self):
        self.say()

    def note(self, *args, **kwargs):
        self.say()


def mlp(sizes=(8, 6, 2)):
    """Linear layers with a function between them."""
    layers = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [sb.nn.Linear(n_in, n_out), jax.nn.relu]
    return sb.nn.Sequential(*layers[:-1])


def uniform(n=6):
    """What a node draws with its next key."""
    return jax.random.uniform(sb.random.next_key(), (n,))


class Holds(sb.nn.Module):
    """One state, of whatever a function makes."""

    def __init__(self, make):
        self.make = make

    def init_state(self):
        self.s = sb.nn.State(self.make())


# --- oracles ----------------------------------------------------------------------------

_compiled: dict = {}


def compiled_once(function, *args):
    """``jax.jit(function)(*args)``; tests that ask for the same program share its compilation."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args)):
        return jax.jit(function)(*args)
    lowered = jax.jit(function).lower(*args)
    # The text has all constants, but not where in the tree the results belong.
    program = lowered.as_text(), lowered.out_tree
    if program not in _compiled:
        _compiled[program] = lowered.compile()
    return _compiled[program](*args)


def values(target) -> dict:
    """Values of all states by dotted path."""
    states = walk.walk(target).states
    return {walk.dotted(path): state.value for path, state in states.items()}


def vmapped(net, size: int, key, *args, **kwargs) -> dict:
    """What a call on all members must write: jax's own vmap of the module's initialisation."""
    init = sb.nn.init_function(net, *args, **kwargs)
    return compiled_once(jax.vmap(init), jax.random.split(key, size))


def call_key(seed=11, number=0):
    """The key that the call of that number takes from the stream of `seed`."""
    return jax.random.fold_in(jax.random.key(seed), number)


def node_key(member_key, *path, draw: int = 0):
    """The key of one draw of a node, from the documented derivation; strings and ints only."""
    data = b""
    for element in path:
        text = str(element).encode()
        kind = b"s" if isinstance(element, str) else b"i"
        data += kind + len(text).to_bytes(8, "big") + text
    digest = hashlib.blake2b(data, digest_size=8).digest()
    for word in (digest[:4], digest[4:]):
        member_key = jax.random.fold_in(member_key, np.uint32(int.from_bytes(word, "big")))
    return jax.random.fold_in(member_key, draw)


def assert_values(target, expected: dict) -> None:
    """Every state equal to its oracle, by bits."""
    got = {name: jax.tree.map(jnp.asarray, value) for name, value in values(target).items()}
    assert_same_bits(got, expected, weak=False)


# --- nothing changed --------------------------------------------------------------------


def stream_position() -> tuple:
    data, impl, count = sb.random.get_state()
    return (*map(int, np.ravel(data)), impl, count)


def _bits(leaf):
    array = jnp.asarray(leaf) if not hasattr(leaf, "dtype") else leaf
    return type(leaf), str(array.dtype), array.shape, as_words(array).tobytes()


def _content(state):
    content = state._content
    leaves, tree = jax.tree.flatten(content.value)
    if not state.initialized:
        leaves = []
    return (
        id(state),
        type(state),
        [_bits(leaf) for leaf in leaves],
        str(tree),
        content.mapped,
        content.tags,
        content.declared,
    )


def _items(holder):
    items = vars(holder) if isinstance(holder, sb.nn.Module) else holder
    items = items.items() if isinstance(items, dict) else enumerate(items)
    return [(key, id(value)) for key, value in items]


def picture(target) -> tuple:
    """All that a call that fails must leave alone: objects, values, tags, attributes, stream."""
    tree = walk.walk([target])
    return (
        {path: _content(state) for path, state in tree.states.items()},
        {path: (id(node), _items(node)) for path, node in tree.nodes.items()},
        [(id(container), _items(container)) for container in tree.containers[1:]],
        stream_position(),
    )


def assert_no_tracer(target) -> None:
    for path, state in walk.walk(target).states.items():
        for leaf in jax.tree.leaves(state._content.value):
            assert not isinstance(leaf, jax.core.Tracer), path
