"""brainstate's modules in seedbed's functions: brainstate's values, stream, objects and hooks."""

import jax.numpy as jnp
import pytest

import seedbed as sb
from brainstate_modules import (
    Cell,
    N,
    Tree,
    adapter,
    arrays,
    assert_equal,
    both,
    bs,
    described,
    u,
    values,
)
from helpers import assert_same_bits

pytestmark = [
    pytest.mark.shared,
    pytest.mark.reference("newest"),
    pytest.mark.usefixtures("as_users_have_it"),
]


def test_the_values_stream_tags_and_units_are_those_of_brainstate():
    streams = []

    def call(functions, tree):
        functions.vmap_init_all_states(tree, axis_size=N, state_tag="member", scale=2.0)
        streams.append(bs.random.DEFAULT.value)
        bs.random.DEFAULT.split_key()  # it works as ever
        streams.append(bs.random.DEFAULT.value)

    own, ours = both(call)
    assert_equal(own, ours)
    assert_same_bits(streams[2:], streams[:2])
    assert ours.cells[0].v.value.unit == u.mV
    assert ours.cells[0].h.tag == {"slow", "member"}
    assert ours.cells[0].shared.value.shape == (2,) and ours.gru.h.value.shape == (N, 8)
    assert ours.shared is ours.cells[0]
    assert_same_bits(ours.cells[0].steps, own.cells[0].steps)
    assert_same_bits(ours.cells[0].either[0], own.cells[0].either[0])
    assert "split_key" not in vars(bs.random.DEFAULT)


def test_the_plan(native):
    tree = Tree()
    before = vars(tree.cells[0]).copy()
    stream = bs.random.DEFAULT.value
    plan = sb.nn.plan_init(tree, axis_size=N)
    assert {output.path for output in plan.native} == {
        "cells.0.w['a']",
        "cells.0.v",
        "cells.1.b.w['a']",
        "cells.1.b.v",
        "gru.h",
    }
    assert vars(tree.cells[0]) == before
    assert_same_bits(bs.random.DEFAULT.value, stream)


def test_states_that_were_there_are_the_same_objects():
    tree = Tree()
    weights = [tree.cells[0].weight, *tree.gru.states().values()]
    kept = [state.value for state in weights]
    sb.nn.vmap_init_all_states(tree, axis_size=N)
    assert tree.cells[0].weight is weights[0]
    for state, value in zip(weights, kept, strict=True):
        assert state.value is value


def test_call_reset_and_exclude():
    def call(functions, tree):
        functions.vmap_init_all_states(tree, axis_size=N, node_to_exclude=bs.nn.GRUCell)
        functions.vmap_call_all_fns(
            tree, "init_state", axis_size=2, state_tag="again", node_to_exclude=bs.nn.GRUCell
        )
        functions.vmap_reset_all_states(tree, axis_size=2, node_to_exclude=bs.nn.GRUCell)

    own, ours = both(call)
    assert_equal(own, ours)
    assert ours.cells[0].h.value.shape == (8,)  # as brainstate has it


def test_single_models():
    def call(functions, tree):
        functions.init_all_states(tree, scale=3.0)
        functions.call_all_fns(tree, "reset_state")
        functions.reset_all_states(tree)

    own, ours = both(call)
    assert_equal(own, ours)


def test_excluded_states():
    def call(functions, tree):
        exclude = bs.util.filter.OfType(bs.ShortTermState)
        functions.vmap_init_all_states(tree, axis_size=N, state_to_exclude=exclude)

    own, ours = both(call, Cell)
    assert described(ours) == described(own)
    assert_same_bits((ours.h.value, ours.w.value), (own.h.value, own.w.value))
    assert ours.h.value.shape == (8,)
    by_type = sb.nn.vmap_init_all_states(Cell(), axis_size=N, state_to_exclude=bs.ParamState)
    assert by_type.h.value.shape == (N, 8)  # brainstate's own function fails on a type


def test_containers_of_modules():
    def call(functions, cells):
        functions.vmap_init_all_states(cells, axis_size=N)

    own, ours = both(call, lambda: [Cell(), Cell(6)])
    for one, two in zip(own, ours, strict=True):
        assert_equal(one, two)
    nested = {"a": [Cell(), "text"], "b": ({"c": Cell(6)},)}  # text is passed over
    sb.nn.vmap_init_all_states(nested, axis_size=N)
    assert nested["a"][0].h.value.shape == (N, 8) and nested["b"][0]["c"].h.value.shape == (N, 6)
    with pytest.raises(TypeError, match=r"modules of one kind, .*\['Cell', 'Linear'\]"):
        sb.nn.vmap_init_all_states([Cell(), sb.nn.Linear(2, 2)], axis_size=N)


def test_several_random_streams():
    class Noisy(bs.nn.Module):
        def __init__(self):
            super().__init__()
            self.rng = bs.random.RandomState(3)

        def init_state(self):
            self.x = bs.HiddenState(self.rng.uniform(size=8))
            self.y = bs.HiddenState(bs.random.uniform(size=8))
            self.z = bs.HiddenState(self.rng.randint(0, 9, size=8))

    own, ours = both(lambda functions, net: functions.vmap_init_all_states(net, axis_size=N), Noisy)
    assert_equal(own, ours)


def test_nothing_random():
    class Constant(bs.nn.Module):
        def init_state(self):
            self.x = bs.HiddenState(jnp.arange(3.0))

    stream = bs.random.DEFAULT.value
    net = sb.nn.vmap_init_all_states(Constant(), axis_size=2)
    assert_same_bits(net.x.value, jnp.stack([jnp.arange(3.0)] * 2))
    assert_same_bits(bs.random.DEFAULT.value, stream)


def test_a_module_that_the_first_run_left_in_a_list(native):
    built, masks = [], {}

    def build():
        built.append(bs.nn.init_all_states(Cell()))
        if "mask" not in masks:
            masks["mask"] = jnp.arange(3.0)
            masks["drawn"] = bs.random.uniform(size=2)

    make = adapter.vmap_new_states(build, axis_size=N)
    assert len(adapter.plan_of(make).native) == 2
    assert not built and not masks
    make()
    assert built[1].h.value.shape == (N, 8)
    with pytest.raises(Exception, match="created inside a traced function"):
        built[0].h.value  # noqa: B018
    assert_same_bits(built[0].steps, jnp.zeros(2))
    assert_same_bits(masks["mask"], jnp.arange(3.0))
    drawn = masks["drawn"]
    built.clear()
    masks.clear()
    bs.random.seed(7)
    bs.transform.vmap_new_states(build, axis_size=N)()
    assert_same_bits(drawn, masks["drawn"])


def test_hooks_fire_as_often_as_in_brainstate():
    counts = []

    def call(functions, cell):
        seen = []
        handles = [
            bs.register_state_hook(kind, lambda context, kind=kind: seen.append(kind))
            for kind in ("init", "restore", "write_after")
        ]
        try:
            functions.vmap_init_all_states(cell, axis_size=N)
        finally:
            for handle in handles:
                bs.unregister_state_hook(handle)
        counts.append({kind: seen.count(kind) for kind in ("init", "restore", "write_after")})

    both(call, Cell)
    assert counts[0] == counts[1] and counts[0]["init"] > 0


def test_under_brainstate_jit():
    def run(functions):
        def traced():
            cell = Cell()
            functions.vmap_init_all_states(cell, axis_size=N)
            return values(cell), bs.random.uniform(size=2)

        bs.random.seed(7)
        return bs.transform.jit(traced)(), bs.random.DEFAULT.value

    assert_same_bits(run(sb.nn), run(bs.nn))


def test_nested():
    def run(functions):
        cells = []

        def inner():
            cells.append(Cell())
            functions.vmap_init_all_states(cells[-1], axis_size=2)

        bs.random.seed(7)
        make = bs.transform if functions is bs.nn else adapter
        make.vmap_new_states(inner, axis_size=N)()
        if make is adapter:
            plan = adapter.plan_of(adapter.vmap_new_states(inner, axis_size=N))
            assert {(2, 2, 8), (2, 8)} <= {output.shape for output in plan.outputs}
        return cells[-1]

    own, ours = run(bs.nn), run(sb.nn)
    assert_equal(own, ours)
    assert ours.w.value["a"].shape == (N, 2, 2, 8)


def test_new_states_of_a_function_with_arguments():
    def run(make):
        kept = []

        def build(x, scale):
            kept[:] = [bs.HiddenState(x + bs.random.uniform(size=8) * scale)]
            return {"sum": x.sum(), "scale": scale}

        bs.random.seed(7)
        x = jnp.arange(24.0).reshape(8, N)
        out = make(build, in_axes=(1, None), out_axes={"sum": 0, "scale": None})(x, 2.0)
        return out, kept[0].value, bs.random.DEFAULT.value

    got, want = run(adapter.vmap_new_states), run(bs.transform.vmap_new_states)
    assert_same_bits(arrays(got), arrays(want), weak=False)


def test_new_states_in_a_method_of_seedbed_nn():
    class Trainer:
        def build(self):
            self.net = bs.nn.Linear(2, 8)

    trainer, holder = Trainer(), {"net": Cell()}
    adapter.vmap_new_states(trainer.build, axis_size=N)()
    assert trainer.net.weight.value["weight"].shape == (N, 2, 8)

    def build():
        holder["net"].init_state()

    sb.nn.vmap_new_states(build, axis_size=N)()
    assert holder["net"].h.value.shape == (N, 8)


def test_what_a_script_keeps_in_globals():
    cell, built = Cell(), []
    names = {"cell": cell, "built": built, "make": Cell}
    exec(
        "def start():\n"
        "    cell.init_state()\n"
        "    built.append(make())\n"
        "def breaks():\n"
        "    cell.init_state()\n"
        "    built.append(cell)\n"
        "    cell.missing()\n",
        names,
    )
    with pytest.raises(AttributeError, match="missing"):
        adapter.vmap_new_states(names["breaks"], axis_size=N)()
    assert not built and not hasattr(cell, "steps")
    assert adapter.plan_of(adapter.vmap_new_states(names["start"], axis_size=N)).outputs
    sb.nn.vmap_new_states(names["start"], axis_size=N)()
    assert cell.h.value.shape == (N, 8) and len(built) == 2
    assert_same_bits(cell.steps, jnp.zeros(2))
