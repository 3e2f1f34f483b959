"""The adapter of flax nnx: what it refuses, and that a failure leaves the rngs as they were."""

import jax
import jax.numpy as jnp
import pytest

pytest.importorskip("flax.nnx")
from flax import nnx

import seedbed as sb
from helpers import assert_same_bits, split
from nnx_models import WIDTH, Model, three_streams

pytestmark = [pytest.mark.shared, pytest.mark.reference("newest")]


@pytest.fixture
def adapter():
    return sb.adapters.nnx


def test_a_failure_leaves_the_rngs_as_they_were(adapter):
    class Broken(nnx.Module):
        def __init__(self, *, rngs):
            self.rngs = rngs
            self.weight = nnx.Param(rngs.normal((3,)))
            raise RuntimeError("broken")

    rngs = three_streams()
    before = jax.tree.map(jnp.copy, nnx.state(rngs))
    make = adapter.ensemble(Broken, 3, only="params")
    for call in (make, make.plan, lambda rngs: make.member(rngs, 0)):
        with pytest.raises(RuntimeError, match="broken"):
            call(rngs)
        assert_same_bits(nnx.state(rngs), before)
    assert nnx.Linear(WIDTH, WIDTH, rngs=rngs).kernel.shape == (WIDTH, WIDTH)


def test_arguments_are_checked(adapter):
    with pytest.raises(TypeError, match=r"`make` must be an nnx.Module class or a function"):
        adapter.ensemble("Linear", 3)
    with pytest.raises(ValueError, match=r"`size` must be at least 1"):
        adapter.ensemble(nnx.Linear, 0)
    for name in ("only", "shared"):
        with pytest.raises(
            TypeError, match=rf"`{name}` must be a filter of nnx.*got 3 of type int"
        ):
            adapter.ensemble(nnx.Linear, 3, **{name: 3})
    make = adapter.ensemble(nnx.Linear, 3)
    for wrong in ("key", 1.5, None):
        with pytest.raises(TypeError, match="`rngs_or_key` must be an nnx.Rngs, one key"):
            make(wrong, WIDTH, WIDTH)
    with pytest.raises(TypeError, match="the rngs are the first argument: ensemble"):
        adapter.ensemble(Model, 3)(WIDTH, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="`make` must be an nnx.Module class or a function"):
        adapter.ensemble(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), 3)
    with pytest.raises(ValueError, match="`shared` selects none of the model's variables; it has"):
        adapter.ensemble(Model, 3, shared=nnx.PathContains("zz"))(three_streams(), WIDTH)
    with pytest.raises(TypeError, match="`module` must be an nnx.Module; got one of type int"):
        adapter.unstack(3)
    with pytest.raises(ValueError, match=r"stream 'params' of the nnx.Rngs is split already"):
        make(nnx.Rngs(params=1).split(3), WIDTH, WIDTH)
    with pytest.raises(ValueError, match="size=3 keys; got keys of shape"):
        make(split(jax.random.key(0), 4), WIDTH, WIDTH)
    with pytest.raises(ValueError, match=r"`only` selects none of the streams \['params'\]"):
        adapter.ensemble(nnx.Linear, 3, only="dropout")(nnx.Rngs(params=1), WIDTH, WIDTH)
    keys = split(jax.random.key(0), 3)
    with pytest.raises(ValueError, match="stream 'default' holds 3 keys, and `only`"):
        adapter.ensemble(nnx.Linear, 3, only="params")({"default": keys, "params": 1}, 2, 2)
    with pytest.raises(
        ValueError, match=r"one key for all members; streams \['default'\] hold a key"
    ):
        adapter.ensemble(nnx.Linear, 3, shared=nnx.Param)(keys, WIDTH, WIDTH)
    with pytest.raises(ValueError, match="`in_axes` maps over members; they depend on"):
        make = adapter.ensemble(
            lambda s, *, rngs: nnx.Dict(s=nnx.Param(s)), 3, in_axes=0, shared=...
        )
        make(nnx.Rngs(), jnp.arange(3.0))


def test_modules_without_a_member_axis_are_refused(adapter):
    plain = nnx.Linear(2, WIDTH, rngs=nnx.Rngs(0))
    message = r"`module` must have a member axis of one length .*'bias': 8, 'kernel': 2"
    with pytest.raises(ValueError, match=message):
        adapter.forward(plain, jnp.ones(2))
    with pytest.raises(ValueError, match=message):
        adapter.unstack(plain)
    made = adapter.ensemble(Model, 3, shared=nnx.BatchStat)(0, WIDTH)
    with pytest.raises(ValueError, match="that are not `shared`; got the lengths .*'norm.mean': 8"):
        adapter.unstack(made)
    with pytest.raises(ValueError, match="`in_axes` has 1 entries for 2 inputs"):
        adapter.forward(made, jnp.ones((4, WIDTH)), 2.0, in_axes=(0,), shared=nnx.BatchStat)
