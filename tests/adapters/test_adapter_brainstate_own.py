"""Calls that brainstate runs itself, and brainstate's own names while they are patched."""

import jax
import jax.numpy as jnp
import pytest

from brainstate_modules import Breaks, Cell, N, adapter, assert_equal, both, bs, u, values
from helpers import assert_same_bits

pytestmark = [
    pytest.mark.shared,
    pytest.mark.reference("newest"),
    pytest.mark.usefixtures("as_users_have_it"),
]

# --- what brainstate has to run ----------------------------------------------------------


def reason(fun, **options):
    with pytest.raises(ValueError, match="brainstate's own function runs this call: ") as raised:
        adapter.plan_of(adapter.vmap_new_states(fun, axis_size=N, **options))
    return str(raised.value).split("call: ")[1]


def test_calls_that_brainstate_runs_itself():
    cell = Cell()
    assert "named axis" in reason(cell.init_state, axis_name="members")

    def prints():
        jax.debug.print("here")
        cell.init_state()

    assert "side effects" in reason(prints)

    def branches():
        cell.init_state()
        if cell.steps.sum() == 0:  # not random, so brainstate knows it
            cell.more = bs.HiddenState(jnp.ones(2))

    assert "raises TracerBoolConversionError" in reason(branches)

    def lazily():
        if not hasattr(cell, "once"):
            cell.once = bs.HiddenState(bs.random.uniform(size=2))

    assert "other states when it runs a second time" in reason(lazily)
    assert not hasattr(cell, "once") and not hasattr(cell, "w")
    kept = []

    class Elsewhere:
        constant = None

    def keeps():
        kept.append(bs.HiddenState(bs.random.uniform(size=2)))
        Elsewhere.constant = jnp.ones(2)

    adapter.vmap_new_states(keeps, axis_size=N)()
    assert_same_bits(Elsewhere.constant, jnp.ones(2))  # brainstate's own run


def test_what_brainstate_runs_itself_has_its_values():
    def call(functions, cell):
        def lazily():
            if not hasattr(cell, "once"):
                cell.once = bs.HiddenState(bs.random.uniform(size=2))
            cell.init_state()

        run = bs.transform if functions is bs.nn else adapter
        run.vmap_new_states(lazily, axis_size=N)()

    own, ours = both(call, Cell)
    assert_equal(own, ours)
    assert ours.once.value.shape == (2,)  # as brainstate has it


def test_text_of_an_array_is_that_of_its_value():
    """As brainpy does it: the same synapse is made once, by a name with its parameters."""

    class Named(bs.nn.Module):
        def __init__(self):
            super().__init__()
            self.made = {}
            for tau in (5, 10):
                self.made.setdefault(str(tau * u.ms), bs.HiddenState(bs.random.normal(size=8)))

    def call(functions, holder):
        make = bs.transform if functions is bs.nn else adapter
        make.vmap_new_states(lambda: holder.append(Named()), axis_size=N)()

    shows = jax.core.Tracer.__repr__
    own, ours = both(call, list)
    assert list(ours[-1].made) == list(own[-1].made) and len(ours[-1].made) == 2
    assert_equal(own[-1], ours[-1])
    assert jax.core.Tracer.__repr__ is shows
    assert "makes text of an array" in reason(Named)
    adds = adapter.vmap_new_states(lambda: 5 * u.ms + 1.0 * u.ms, out_axes=None, axis_size=N)
    assert adapter.plan_of(adds) is not None  # an error message of saiunit's is no such text


# --- patched -----------------------------------------------------------------------------


def counted(monkeypatch):
    calls = []
    run = adapter.MappedCall.run

    def counting(self, *args):
        calls.append(self)
        return run(self, *args)

    monkeypatch.setattr(adapter.MappedCall, "run", counting)
    return calls


def test_patched(monkeypatch):
    calls = counted(monkeypatch)
    imported = bs.nn.vmap_init_all_states
    own = Cell()
    imported(own, axis_size=N)
    cells = [Cell() for _ in range(4)]
    bs.random.seed(7)
    with adapter.patched():
        imported(cells[0], axis_size=N)
        with adapter.patched():
            bs.nn.vmap_call_all_fns(cells[1], "init_state", axis_size=N)
        bs.transform.vmap_new_states(cells[2].init_state, axis_size=N)()
    assert len(calls) == 3
    imported(cells[3], axis_size=N)
    assert len(calls) == 3
    assert_same_bits(values(cells[0]), values(own))
    with pytest.raises(RuntimeError, match="broken"), adapter.patched():
        imported(Breaks(), axis_size=N)
    assert len(calls) == 4
    imported(cells[3], axis_size=N)
    assert len(calls) == 4
