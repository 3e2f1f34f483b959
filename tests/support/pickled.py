"""Ensembles of every kind that another process can be sent, and what they make as plain arrays."""

import functools
import importlib
import io
import marshal
import pickle
import types

import brainstate
import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

import seedbed as sb


class ByValue(pickle.Pickler):
    """As cloudpickle, for processes without the script: what it is made of instead of names."""

    def reducer_override(self, value):
        if isinstance(value, types.ModuleType):
            return importlib.import_module, (value.__name__,)
        if isinstance(value, types.MethodType):
            return bound, (value.__func__, value.__self__)
        if getattr(value, "__module__", None) != "__main__":
            return NotImplemented
        if isinstance(value, types.FunctionType):
            names = [name for name in value.__code__.co_names if name in value.__globals__]
            used = {name: value.__globals__[name] for name in names}
            return rebuilt, (marshal.dumps(value.__code__), used)
        if isinstance(value, type):
            public = {name: part for name, part in vars(value).items() if name[0] != "_"}
            return type, (value.__name__, value.__bases__, public)
        if isinstance(value, type(jitted)):
            return jax.jit, (value.__wrapped__,)
        return NotImplemented


def rebuilt(code, used):
    return types.FunctionType(marshal.loads(code), {**used, "__name__": "__main__"})


def bound(function, value):
    return types.MethodType(function, value)


def by_value(value):
    file = io.BytesIO()
    ByValue(file).dump(value)
    return file.getvalue()


X = np.ones((2, 3), np.float32)
SCALES = np.linspace(0.5, 2.0, 4, dtype=np.float32)
KEY = jax.random.key(20)


def small(key, scale=1.0):
    w, b = jax.random.split(key)
    return {"w": scale * jax.random.normal(w, (7, 2)), "b": jax.nn.relu(jax.random.normal(b, (6,)))}


@jax.jit
def jitted(key):
    return jax.random.uniform(key, (5,)), key


class Trainer:
    """It has an ensemble of a method of its own, and so holds what it is part of."""

    def __init__(self, n):
        self.n = n
        self.make = sb.ensemble(self.init, 4)

    def init(self, key):
        return jax.random.normal(key, (self.n,))


class Net(linen.Module):
    @linen.compact
    def __call__(self, x):
        named = linen.with_partitioning(linen.initializers.lecun_normal(), ("in", "out"))
        self.variable("stats", "count", lambda: 0)
        return linen.Sequential([linen.Dense(4, kernel_init=named), linen.relu])(x)


class Stacked(nnx.Module):
    def __init__(self, scale, rngs):
        self.layer = nnx.Linear(2, 3, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.scale = nnx.Param(scale * rngs.params.normal((2,)))


class Scaled(eqx.Module):
    linear: eqx.nn.Linear
    scale: jax.Array

    def __init__(self, scale, *, key):
        one, two = jax.random.split(key)
        self.linear = eqx.nn.Linear(2, 3, key=one)
        self.scale = scale * jax.random.normal(two, (3,))


class Cell(brainstate.nn.Module):
    def __init__(self, n=3):
        super().__init__()
        self.layer = brainstate.nn.Linear(2, n)
        self.noise = brainstate.ParamState(brainstate.random.rand(n))


def affine(x):
    hk.set_state("count", 0)
    return hk.Linear(4)(x)


def stateless(x):
    return hk.Linear(4)(x)


def coder():
    linear = hk.Linear(3)

    def encode(x):
        return linear(x)

    return encode, (encode, linear)


def scale_of(model):
    return model.scale


linen_dense = functools.partial(sb.adapters.linen.ensemble, linen.Dense(4), 4)
multi, multi_stateful = hk.multi_transform(coder), hk.multi_transform_with_state(coder)
initializer = functools.partial(jax.nn.initializers.he_normal(), shape=(3, 4))

# Name: (what makes the ensemble, the arguments of its call).
CASES = {
    "plain": (lambda: sb.ensemble(small, 4), (KEY,)),
    "plain mapped": (lambda: sb.ensemble(small, 4, in_axes=0), (KEY, SCALES)),
    "plain jitted": (lambda: sb.ensemble(jitted, 4), (KEY,)),
    "plain initializer": (lambda: sb.ensemble(initializer, 4), (KEY,)),
    "plain bfloat16": (
        lambda: sb.ensemble(
            functools.partial(jax.nn.initializers.normal(2.0, jnp.bfloat16), shape=(3,)), 4
        ),
        (KEY,),
    ),
    "plain module": (lambda: sb.ensemble(sb.nn.init_function(sb.nn.Linear(3, 2)), 4), (KEY,)),
    "plain method": (lambda: Trainer(3).make, (KEY,)),
    "linen": (lambda: linen_dense(), (KEY, X)),
    "linen shared": (lambda: sb.adapters.linen.ensemble(Net(), 4, shared="stats"), (KEY, X)),
    "nnx": (lambda: sb.adapters.nnx.ensemble(nnx.Linear, 4), (0, 2, 3)),
    "nnx options": (
        lambda: sb.adapters.nnx.ensemble(
            Stacked, 4, in_axes=0, only="params", shared=nnx.BatchStat
        ),
        (0, SCALES),
    ),
    "equinox": (lambda: sb.adapters.equinox.ensemble(eqx.nn.MLP, 4), (KEY, 2, 1, 8, 1)),
    "equinox options": (
        lambda: sb.adapters.equinox.ensemble(Scaled, 4, in_axes=None, shared=scale_of),
        (KEY, 2.0),
    ),
    "equinox mapped": (lambda: sb.adapters.equinox.ensemble(Scaled, 4, in_axes=0), (KEY, SCALES)),
    "haiku": (lambda: sb.adapters.haiku.ensemble(hk.transform(stateless), 4), (KEY, X)),
    "haiku shared": (
        lambda: sb.adapters.haiku.ensemble(hk.transform_with_state(affine), 4, shared="state"),
        (KEY, X),
    ),
    "haiku without rng": (
        lambda: sb.adapters.haiku.ensemble(hk.without_apply_rng(hk.transform(stateless)), 4),
        (KEY, X),
    ),
    "haiku multi": (lambda: sb.adapters.haiku.ensemble(multi, 4), (KEY, X)),
    "haiku multi stateful": (lambda: sb.adapters.haiku.ensemble(multi_stateful, 4), (KEY, X)),
    "brainstate": (lambda: sb.adapters.brainstate.ensemble(Cell, 4), (0,)),
    "brainstate argument": (lambda: sb.adapters.brainstate.ensemble(Cell, 4), (0, 5)),
}


def arrays(model):
    """The arrays of a result, in order."""
    if isinstance(model, nnx.Module):
        model = nnx.to_pure_dict(nnx.state(model))
    if isinstance(model, brainstate.nn.Module):
        model = [state.value for state in brainstate.graph.states(model).values()]
    return [leaf for leaf in jax.tree.leaves(model) if isinstance(leaf, (jax.Array, np.ndarray))]
