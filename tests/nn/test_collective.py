"""Collective calls: the documented examples, whose numbers they give, and arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, run_python, take
from modules import (
    Declared,
    Group,
    Log,
    Noise,
    Tree,
    assert_no_tracer,
    assert_values,
    call_key,
    mlp,
    node_key,
    normal,
    picture,
    stream_position,
    values,
    vmapped,
)

pytestmark = [
    pytest.mark.shared,
    pytest.mark.reference("oldest"),
    pytest.mark.usefixtures("seeded"),
]


# --- documented examples ----------------------------------------------------------------


def test_the_documented_example():
    net = sb.nn.Linear(10, 20)
    assert net.weight.shape == (20, 10)
    assert not net.weight.initialized and not net.bias.initialized
    assert sb.nn.vmap_init_all_states(net, axis_size=8) is net
    assert net.weight.shape == (8, 20, 10)
    assert net.bias.shape == (8, 20)
    assert net.weight.value.shape == (8, 20, 10) and net.members == net.weight.members == 8


def test_a_linear_layer_is_really_batched():
    net = sb.nn.vmap_init_all_states(sb.nn.Linear(10, 20), axis_size=8)
    rows = np.asarray(net.weight.value)
    assert len({row.tobytes() for row in rows}) == 8
    assert_values(net, vmapped(sb.nn.Linear(10, 20), 8, call_key()))


def test_the_first_key_of_the_stream_is_the_call_s_and_one_is_taken():
    net = sb.nn.vmap_init_all_states(sb.nn.Linear(6, 3), axis_size=5)
    assert sb.random.get_state().count == 1
    assert_values(net, vmapped(net, 5, call_key(number=0)))
    sb.nn.vmap_init_all_states(net, axis_size=5)
    assert_values(net, vmapped(net, 5, call_key(number=1)))
    assert sb.random.get_state().count == 2


def test_an_open_stream_is_used():
    key = jax.random.key(3)
    with sb.random.stream(key):
        net = sb.nn.vmap_init_all_states(sb.nn.Linear(6, 3), axis_size=5)
    assert_values(net, vmapped(net, 5, jax.random.fold_in(key, 0)))
    assert sb.random.get_state().count == 0


def test_keys_are_derived_from_paths_as_documented():
    net = sb.nn.vmap_init_all_states(Tree(), axis_size=3)

    def member(key):
        made = {"own": jax.random.uniform(node_key(key), (2,))}
        for path in [("layers", 0), ("table", "a"), ("table", 3), ("layers", 1, "inner")]:
            shape = (net.nodes()[path].n,)
            made[".".join(map(str, path)) + ".x"] = jax.random.normal(node_key(key, *path), shape)
        # `b` comes before `w` and takes the node's first key.
        made["first.w"] = normal(node_key(key, "first", draw=1), (2,))
        return made

    expected = jax.jit(jax.vmap(member))(jax.random.split(call_key(), 3))
    assert_same_bits({name: values(net)[name] for name in expected}, expected)


@pytest.mark.parametrize("make", [lambda: sb.nn.Linear(7, 5), Tree, mlp, Declared, Noise])
def test_every_module_equals_jax_vmap_of_its_initialisation(make):
    net = sb.nn.vmap_init_all_states(make(), axis_size=6)
    expected = vmapped(make(), 6, call_key())
    assert list(values(net)) == list(expected) or sorted(values(net)) == sorted(expected)
    assert_values(net, expected)
    assert_no_tracer(net)


def test_an_ensemble_of_an_initialisation_gives_single_members():
    make = sb.ensemble(sb.nn.init_function(mlp()), 9)
    net = sb.nn.vmap_init_all_states(mlp(), axis_size=9)
    assert_values(net, make(call_key()))
    assert_same_bits(make.member(call_key(), 4), take(values(net), 4), weak=False)
    parts = list(make.stream(call_key(), chunk_size=4))
    assert_same_bits(parts[2], take(values(net), slice(8, 9)), weak=False)


def test_an_initialisation_as_a_function_changes_nothing():
    net = Tree()
    before = picture(net)
    init = sb.nn.init_function(net)
    first, again = init(jax.random.key(0)), init(jax.random.key(0))
    assert picture(net) == before
    assert_same_bits(first, again)
    assert sorted(first) == sorted(values(sb.nn.init_all_states(Tree())))


# --- what a member depends on -----------------------------------------------------------


def test_a_member_is_independent_of_the_number_of_members():
    few = sb.nn.vmap_init_all_states(mlp(), axis_size=3)
    sb.random.seed(11)
    many = sb.nn.vmap_init_all_states(mlp(), axis_size=20)
    assert_same_bits(values(few), take(values(many), slice(3)))


def test_a_member_equals_the_single_model_of_its_key():
    net = sb.nn.vmap_init_all_states(Tree(), axis_size=4)
    init = jax.jit(sb.nn.init_function(Tree()))
    for i, key in enumerate(jax.random.split(call_key(), 4)):
        assert_same_bits(take(values(net), i), init(key), weak=False)


def test_the_single_model_has_the_key_itself():
    net = sb.nn.init_all_states(mlp())
    assert_values(net, sb.nn.init_function(mlp())(call_key()))
    assert net.members is None and sb.random.get_state().count == 1


def test_a_member_is_independent_of_excluded_nodes():
    every = sb.nn.vmap_init_all_states(Tree(), axis_size=3)
    sb.random.seed(11)
    skip = sb.filters.PathContains("table")
    some = sb.nn.vmap_init_all_states(Tree(), axis_size=3, node_to_exclude=skip)
    left = {name: value for name, value in values(every).items() if "table" not in name}
    assert_same_bits(values(some), left)


def test_a_member_is_independent_of_layers_that_are_added():
    small = sb.nn.vmap_init_all_states(mlp((8, 6, 2)), axis_size=3)
    sb.random.seed(11)
    net = mlp((8, 6, 2, 7))
    net.aaa = sb.nn.Linear(2, 2)
    large = sb.nn.vmap_init_all_states(net, axis_size=3)
    kept = {name: value for name, value in values(large).items() if name in values(small)}
    assert_same_bits(values(small), kept)


def test_an_excluded_state_leaves_the_others_as_they_are():
    every = sb.nn.vmap_init_all_states(Declared(), axis_size=3)
    sb.random.seed(11)
    shared = sb.filters.PathContains("b")
    some = sb.nn.vmap_init_all_states(Declared(), axis_size=3, state_to_exclude=shared)
    assert_same_bits(some.w.value, every.w.value)


def test_the_same_numbers_in_another_process():
    out = run_python(
        """
        import jax, numpy as np, seedbed as sb
        sb.random.seed(11)
        net = sb.nn.vmap_init_all_states(sb.nn.Linear(8, 2), axis_size=2)
        print(np.asarray(net.weight.value).tobytes().hex())
        """,
        PYTHONHASHSEED="77",
    )
    net = sb.nn.vmap_init_all_states(sb.nn.Linear(8, 2), axis_size=2)
    assert out.strip() == np.asarray(net.weight.value).tobytes().hex()


# --- arguments --------------------------------------------------------------------------


class Takes(sb.nn.Module):
    def __init__(self):
        self.seen = []

    def take(self, *args, **kwargs):
        self.got = (args, kwargs)


WRAPPED = [[1, 2], {"a": 1}, "text", 5, None, np.arange(3), jnp.arange(3)]


@pytest.mark.parametrize("given", WRAPPED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("collective", [sb.nn.call_all_fns, sb.nn.vmap_call_all_fns])
def test_args_that_are_no_tuple_are_one_argument(collective, given):
    size = {"axis_size": 2} if collective is sb.nn.vmap_call_all_fns else {}
    net = collective(Takes(), "take", given, **size)
    (got,), kwargs = net.got
    assert got is given and kwargs == {}


@pytest.mark.parametrize("collective", [sb.nn.call_all_fns, sb.nn.vmap_call_all_fns])
def test_args_that_are_a_tuple_are_several(collective):
    size = {"axis_size": 2} if collective is sb.nn.vmap_call_all_fns else {}
    net = collective(Takes(), "take", (1, "b"), {"c": None}, **size)
    assert net.got == ((1, "b"), {"c": None})
    assert collective(Takes(), "take", **size).got == ((), {})


def test_arguments_of_every_init_state():
    net = sb.nn.vmap_init_all_states(Group(Noise(), Noise(2)), 3.0, axis_size=4)
    assert_values(net, vmapped(net, 4, call_key(), 3.0))
    again = sb.nn.init_all_states(Noise(), scale=3.0)
    assert_values(again, sb.nn.init_function(again, scale=3.0)(call_key(number=1)))


def test_arguments_of_reset():
    net = sb.nn.vmap_init_all_states(sb.nn.GRUCell(3, 2), 4, axis_size=5)
    assert net.h.shape == (5, 4, 2)
    net.h.value = jnp.ones((5, 4, 2))
    sb.nn.vmap_reset_all_states(net, batch_size=4, axis_size=5)
    assert_same_bits(net.h.value, jnp.zeros((5, 4, 2)))


# --- how often it runs -------------------------------------------------------------------


def test_init_state_runs_once_per_call():
    log = []
    net = Log("root", log, a=Log("a", log))
    for n in range(1, 4):
        sb.nn.vmap_init_all_states(net, axis_size=3)
        assert log == ["a", "root"] * n


def test_a_call_that_writes_nothing():
    net = sb.nn.vmap_call_all_fns(Takes(), "take", axis_size=3)
    assert net.members is None
    assert stream_position()[-1] == 1
