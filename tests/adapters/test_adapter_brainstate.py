"""brainstate's modules in seedbed's functions: brainstate's values, stream, objects and hooks."""

import functools

import jax
import jax.numpy as jnp
import pytest

import seedbed as sb
from helpers import assert_same_bits

pytestmark = [pytest.mark.shared, pytest.mark.reference("newest")]

bs = pytest.importorskip("brainstate")
braintools = pytest.importorskip("braintools")
u = pytest.importorskip("brainunit")
adapter = sb.adapters.brainstate

N = 3


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        bs.random.seed(7)
        yield


class Cell(bs.nn.Module):
    """States of many kinds, made by ``init_state``."""

    def __init__(self, width=8):
        super().__init__()
        self.width = width
        self.weight = bs.ParamState(jnp.ones(2))  # there before

    def init_state(self, scale=1.0):
        self.w = bs.ParamState({"a": bs.random.uniform(size=(2, self.width)) * scale, "b": 1.0})
        self.v = bs.HiddenState(bs.random.uniform(-70.0, -50.0, size=self.width) * u.mV, name="V")
        self.h = bs.ShortTermState(jnp.zeros(self.width), tag="slow")
        self.shared = bs._state.NonBatchState(jnp.arange(2.0))
        self.steps = jnp.zeros(2)  # an attribute that is no state
        self.either = (jnp.ones(2), 3)

    def reset_state(self):
        self.h.value = jnp.ones(self.width)


class Tree(bs.nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = [Cell(), {"b": Cell(6)}]
        self.shared = self.cells[0]
        self.gru = bs.nn.GRUCell(2, 8, state_init=braintools.init.Uniform(-0.1, 0.1))


def values(module):
    return {path: arrays(state.value) for path, state in module.states().items()}


def arrays(tree):
    return jax.tree.map(jnp.asarray, tree)


def described(module):
    return {
        path: (type(state), state.name, state.tag, state.stack_level)
        for path, state in module.states().items()
    }


def both(call, make=Tree):
    """The module after brainstate's own call and after seedbed's, from the same stream."""
    made = []
    for functions in (bs.nn, sb.nn):
        bs.random.seed(7)
        made.append(make())
        call(functions, made[-1])
    return made


def assert_equal(one, two):
    assert_same_bits(values(two), values(one))
    assert described(two) == described(one)


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


# --- failures ----------------------------------------------------------------------------


class Breaks(Cell):
    error = RuntimeError("broken")

    def init_state(self, **kwargs):
        super().init_state()
        raise self.error

    reset_state = init_state


def state_of(cells):
    return [
        ({name: value for name, value in vars(cell).items()}, values(cell), described(cell))
        for cell in cells
    ]


@pytest.mark.parametrize("size", [None, N])
@pytest.mark.parametrize("name", ["init", "reset"])
def test_an_exception_in_the_third_node_changes_nothing(size, name):
    cells = [Cell(), Cell(), Breaks()]
    sb.nn.vmap_init_all_states(cells[:2], axis_size=2)
    before, stream = state_of(cells), bs.random.DEFAULT.value
    prefix, options = ("vmap_", {"axis_size": size}) if size else ("", {})
    with pytest.raises(RuntimeError, match="broken"):
        getattr(sb.nn, f"{prefix}{name}_all_states")(cells, **options)
    assert [entry[0] for entry in state_of(cells)] == [entry[0] for entry in before]
    assert state_of(cells)[0][2] == before[0][2]
    assert_same_bits([entry[1] for entry in state_of(cells)], [entry[1] for entry in before])
    assert bs.random.DEFAULT.value is stream


def test_an_interrupt_changes_nothing():
    cell = Breaks()
    cell.error = KeyboardInterrupt()
    before, stream = vars(cell).copy(), bs.random.DEFAULT.value
    with pytest.raises(KeyboardInterrupt):
        sb.nn.vmap_init_all_states(cell, axis_size=N)
    assert vars(cell) == before and bs.random.DEFAULT.value is stream


@pytest.mark.parametrize("size", [2**40, 2**46])
def test_a_size_that_no_machine_holds(size):
    cell = Cell()
    before, stream = vars(cell).copy(), bs.random.DEFAULT.value
    with pytest.raises(MemoryError, match=f"`axis_size` is too large.* {size} members"):
        sb.nn.vmap_init_all_states(cell, axis_size=size)
    assert vars(cell) == before and bs.random.DEFAULT.value is stream
    sb.nn.vmap_init_all_states(cell, axis_size=2)


@pytest.mark.parametrize("size", [None, 0, -1, True, 2.0, "3"])
def test_a_bad_axis_size(size):
    cell = Cell()
    before = vars(cell).copy()
    for call in (
        sb.nn.vmap_init_all_states,
        sb.nn.vmap_reset_all_states,
        functools.partial(sb.nn.vmap_call_all_fns, fn_name="init_state"),
    ):
        with pytest.raises(ValueError, match="axis_size"):
            call(cell, axis_size=size)
    assert vars(cell) == before


def test_arguments_that_brainstate_refuses():
    cell = Cell()
    with pytest.raises(ValueError, match="in_states"):
        sb.nn.vmap_init_all_states(cell, axis_size=N, in_states=cell.states())
    with pytest.raises(TypeError, match="`donate` works on modules of seedbed.nn; got one of brai"):
        sb.nn.vmap_init_all_states(cell, axis_size=N, donate=True)
    with pytest.raises(AttributeError, match="does not have method 'missing'"):
        sb.nn.vmap_call_all_fns(cell, "missing", axis_size=N)
    with pytest.raises(ValueError, match="makes no states for several members"):
        adapter.plan_of(lambda: None)


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


# --- ensembles ---------------------------------------------------------------------------


def test_an_ensemble_has_what_vmap_new_states_makes():
    kept = []
    bs.random.seed(5)
    build = bs.transform.vmap_new_states(lambda n: kept.append(bs.nn.Linear(2, n)), in_axes=None,
                                         axis_size=N)  # fmt: skip
    build(8)
    stream = bs.random.DEFAULT.value
    ensemble = adapter.ensemble(lambda n: bs.nn.Linear(2, n), N)
    nets = ensemble(5, 8)
    assert_same_bits(bs.random.DEFAULT.value, stream)  # not touched
    either = bs.transform.jit(lambda: values(ensemble(5, 8)))()
    assert_same_bits(values(nets), values(kept[-1]), either=either)
    keys = jax.random.split(jax.random.key(5), N + 1)[1:]
    assert_same_bits(values(ensemble(keys, 8)), values(nets))
    assert_same_bits(values(ensemble(jax.random.key(5), n=8)), values(nets))
    some = ensemble.members(5, [2, 0], 8)
    assert_same_bits(values(some), jax.tree.map(lambda leaf: leaf[jnp.array([2, 0])], values(nets)))
    assert_same_bits(
        values(ensemble.member(5, -1, 8)), jax.tree.map(lambda leaf: leaf[-1], values(nets))
    )
    assert repr(ensemble).endswith(f"<lambda>, {N})")


@pytest.mark.parametrize("impl", ["rbg", "threefry2x32"])
def test_members_of_keys_that_draw_for_the_whole(impl):
    def make():
        return bs.nn.init_all_states(Cell())

    def of(whole, index):
        return {
            path: value if path == ("shared",) else jax.tree.map(lambda leaf: leaf[index], value)
            for path, value in whole.items()
        }

    ensemble, key = adapter.ensemble(make, N), jax.random.key(5, impl=impl)
    for keys in (key, jax.random.split(key, N)):
        whole = values(ensemble(keys))
        for i in (1, -1):
            assert_same_bits(values(ensemble.member(keys, i)), of(whole, i))
        some = ensemble.members(keys, [2, 0])
        assert_same_bits(values(some), of(whole, jnp.array([2, 0])))


def test_unstack_forward_and_reset():
    def make():
        return bs.nn.init_all_states(Cell())

    nets = adapter.ensemble(make, N)(0)
    nets.update = lambda x: None
    members = adapter.unstack(nets)
    assert_same_bits([one.h.value for one in members], list(nets.h.value))
    assert_same_bits(members[1].shared.value, nets.shared.value)
    members[0].h.value = jnp.ones(8)
    assert float(nets.h.value.sum()) == 0.0
    hidden = nets.h
    adapter.reset_members(nets)
    assert nets.h is hidden
    assert_same_bits(nets.h.value, jnp.ones((N, 8)))


def test_forward_maps_what_it_is_told_to():
    linear = adapter.ensemble(lambda: bs.nn.Linear(2, 8), N)(0)
    x = jax.random.uniform(jax.random.key(0), (N, 5, 2))
    assert adapter.forward(linear, x).shape == (N, N, 5, 8)
    assert adapter.forward(linear, x, in_axes=0).shape == (N, 5, 8)
    run = bs.transform.jit(lambda x: adapter.forward(linear, x, in_axes=0))
    assert jnp.allclose(run(x), adapter.forward(linear, x, in_axes=0))
    gru = bs.nn.GRUCell(2, 8)
    sb.nn.vmap_init_all_states(gru, axis_size=N)
    out = adapter.forward(gru, jnp.ones(2), states=bs.HiddenState)
    assert out.shape == gru.h.value.shape == (N, 8)


def test_errors_of_ensembles():
    with pytest.raises(TypeError, match="`make` must be a function that returns a brainstate"):
        adapter.ensemble(3, N)
    with pytest.raises(TypeError, match="`make` must return a brainstate module; .* returned 3"):
        adapter.ensemble(lambda: 3, N)(0)
    with pytest.raises(ValueError, match="array of size=3 keys"):
        adapter.ensemble(Cell, N)(jax.random.split(jax.random.key(0), 2))
    with pytest.raises(IndexError, match="out of range"):
        adapter.ensemble(Cell, N).member(0, N)
    with pytest.raises(TypeError, match="`module` must be a brainstate module; got 3"):
        adapter.unstack(3)
    gru = bs.nn.GRUCell(2, 8)
    sb.nn.vmap_init_all_states(gru, axis_size=N)
    with pytest.raises(ValueError, match=r"one number of members; found .*3 in 'h'.*`states=`"):
        adapter.unstack(gru)
    with pytest.raises(ValueError, match="the state 'w' is a number .* `states=`"):
        adapter.unstack(bs.nn.init_all_states(Cell()), states=bs.ParamState)
