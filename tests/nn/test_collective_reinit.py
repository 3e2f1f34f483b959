"""`vmap_reinit_members`: some members of a module tree initialised again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from modules import Declared, Group, Node, Noise, Tree, picture, stream_position, values

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("in_use")]

SIZE = 5
KEY = jax.random.key(77)
nn = sb.nn


def held(net):
    return {path: jax.tree.map(np.array, value) for path, value in values(net).items()}


def fresh(make, **options):
    """What all members would be, with the stream at ``KEY``."""
    with sb.random.stream(KEY):
        return held(nn.vmap_init_all_states(make(), axis_size=SIZE, **options))


def check(net, before, after, members, shared=()):
    assert set(before) == set(held(net))
    for path, value in held(net).items():
        want = np.array(before[path])
        if path not in shared:
            want[members] = after[path][members]
        assert_same_bits(value, want)


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("index", [2, -1, [1, 4], slice(1, 4), slice(None), []], ids=str)
def test_the_chosen_are_initialised_and_the_others_are_not(index, donate):
    net = nn.vmap_init_all_states(Tree(), axis_size=SIZE)
    before, states, members = held(net), net.states(), np.zeros(SIZE, bool)
    members[np.asarray(index, int) if isinstance(index, list) else index] = True
    for chosen in (index, members, jnp.asarray(members)):
        with sb.random.stream(KEY):
            assert nn.vmap_reinit_members(net, chosen, donate=donate) is net
        check(net, before, fresh(Tree), members)
    assert [*map(id, net.states().values())] == [*map(id, states.values())]
    assert net.members == SIZE


def test_in_the_memory_that_is_there():
    net = nn.vmap_init_all_states(Declared(), axis_size=SIZE)
    old = [net.w.value, net.b.value]
    memory = [value.unsafe_buffer_pointer() for value in old]
    nn.vmap_reinit_members(net, [0, 3], donate=True)
    new = [net.w.value, net.b.value]
    assert [value.unsafe_buffer_pointer() for value in new] == memory
    assert all(value.is_deleted() for value in old)
    # What another state holds, too, is not given up.
    net = nn.vmap_init_all_states(Declared(), axis_size=SIZE)
    other = net.other = sb.nn.State(net.w.value)
    before = np.array(net.w.value)
    nn.vmap_reinit_members(net, [0, 3], node_to_exclude=None, donate=True)
    assert_same_bits(other.value, before)


def test_one_key_for_a_call():
    net = nn.vmap_init_all_states(Declared(), axis_size=SIZE)
    sb.random.seed(5)
    sb.random.next_key()
    after = stream_position()
    sb.random.seed(5)
    for index in ([1], []):
        sb.random.seed(5)
        nn.vmap_reinit_members(net, index)
        assert stream_position() == after


def test_what_is_excluded_or_shared_stays():
    def make():
        return Node(a=Declared(), b=Noise(), c=Noise(kind=nn.NonBatchState), d=Noise(7))

    excluded = {"state_to_exclude": sb.filters.PathContains("d")}
    net = nn.vmap_init_all_states(make(), axis_size=SIZE, **excluded)
    before, after = held(net), fresh(make, **excluded)
    tags, members = net.a.w.tags, [0, 2]
    shared = [path for path, value in before.items() if np.shape(value)[0] != SIZE]
    assert len(shared) == 2
    with sb.random.stream(KEY):  # what all share need not be named again
        nn.vmap_reinit_members(net, members)
    check(net, before, after, members, shared)
    assert net.a.w.tags == tags and net.d.x.members is None and net.d.x.shape == (7,)
    before = held(net)
    with sb.random.stream(KEY):
        nn.vmap_reinit_members(
            net, [1], node_to_exclude=sb.filters.PathContains("b"), state_to_exclude=nn.ParamState
        )
    check(net, before, after, [1], before)


def test_members_read_their_own_and_stay_where_they_are():
    class Cell(nn.Module):
        def __init__(self):
            self.gain = nn.State(jnp.arange(1.0, SIZE + 1))
            self.v = nn.HiddenState(jnp.zeros(3))

        def init_state(self, scale=1.0):
            noise = jax.random.normal(sb.random.next_key(), (7,))
            self.v.value = scale * self.gain.value * noise

    def run(cell, *call, **options):
        with sb.random.stream(KEY):
            call[0](cell, *call[1:], 3.0, in_states=cell.gain, **options)
        return np.asarray(cell.v.value)

    first = Cell()
    whole = run(first, nn.vmap_init_all_states, axis_size=SIZE, out_states={1: first.v})
    assert whole.shape == (7, SIZE)
    again = Cell()
    nn.vmap_init_all_states(again, axis_size=SIZE, in_states=again.gain, out_states={1: again.v})
    before = np.array(again.v.value)
    with sb.random.stream(KEY):
        nn.vmap_reinit_members(again, [1, 4], 3.0)  # the gains hold members by now
    before[:, [1, 4]] = whole[:, [1, 4]]
    assert_same_bits(np.asarray(again.v.value), before)
    assert again.v.members == SIZE


def test_within_a_trace():
    definition, start = nn.split(nn.vmap_init_all_states(Tree(), axis_size=SIZE))

    @jax.jit
    def renewed(params, key, index):
        net = nn.merge(definition, params)
        with sb.random.stream(key):
            nn.vmap_reinit_members(net, index)
        return nn.split(net)[1]

    want = {}
    with sb.random.stream(KEY):
        net = nn.merge(definition, start)
        nn.vmap_reinit_members(net, [0, 3])
        want = nn.split(net)[1]
    mask = np.isin(np.arange(SIZE), [0, 3])
    for index in (np.array([3, 0]), np.array([0, 3, SIZE]), mask):
        assert_same_bits(renewed(start, KEY, index), want)


def test_within_another_call():
    class Outer(nn.Module):
        def __init__(self):
            self.inner = nn.vmap_init_all_states(Noise(), axis_size=SIZE)

        def renew(self, index):
            nn.vmap_reinit_members(self.inner, index)

    net = Outer()
    before, position = held(net), stream_position()
    nn.call_all_fns(net, "renew", (jnp.array([1]),), node_to_exclude=Noise)
    changed = (np.asarray(net.inner.x.value) != before["inner.x"]).any(1)
    assert changed.tolist() == [False, True, False, False, False]
    assert stream_position() != position


REFUSED = {
    "no members": (ValueError, "`target` must hold one number of members", Declared, {"index": 0}),
    "index": (IndexError, "`index` is 5, out of range", None, {"index": 5}),
    "mask": (ValueError, r"mask of shape \(2,\) for size=5", None, {"index": [True, False]}),
    "type": (TypeError, "`index` must be an integer, a slice", None, {"index": "x"}),
    "donate": (TypeError, "`donate` must be True or False", None, {"index": 0, "donate": 1}),
    "filter": (TypeError, "Invalid collection filter", None, {"index": 0, "state_to_exclude": 3}),
    "keyword": (TypeError, "did you mean 'in_states'", None, {"index": 0, "in_state": 1}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    kind, message, make, given = REFUSED[name]
    net = make() if make else nn.vmap_init_all_states(Declared(), axis_size=SIZE)
    before = picture(net)
    with pytest.raises(kind, match=message):
        nn.vmap_reinit_members(net, given.pop("index"), **given)
    assert picture(net) == before


def test_states_that_do_not_fit_leave_all_as_it_was():
    net = nn.vmap_init_all_states(Group(Declared(), Noise(8)), axis_size=SIZE)
    for change, message in (
        (lambda: setattr(net.items[1], "n", 7), r"holds float32 of shape \(5, 8\), and init_state"),
        (lambda: setattr(net.items[1], "name", "y"), "the state 'items.1.y', which has no value"),
    ):
        change()
        before = picture(net)
        for index in ([1], []):
            with pytest.raises(ValueError, match=message):
                nn.vmap_reinit_members(net, index)
            assert picture(net) == before
    with pytest.raises(TypeError, match=r"`target` must be a seedbed.nn.Module"):
        nn.vmap_reinit_members(3, 0)


def test_an_init_state_that_raises_leaves_all_as_it_was():
    net = nn.vmap_init_all_states(Group(Noise(), Noise(2)), axis_size=SIZE)
    before = picture(net)
    with pytest.raises(TypeError, match="integer scalar"):
        nn.vmap_reinit_members(net, [1], "no number")
    assert picture(net) == before


@pytest.mark.parametrize("donate", [False, True])
def test_states_on_several_devices_stay_there(donate):
    mesh = jax.make_mesh((5,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.NamedSharding(mesh, jax.P("d"))
    net = nn.vmap_init_all_states(Declared(), axis_size=SIZE, out_shardings=place)
    before = held(net)
    with sb.random.stream(KEY):
        nn.vmap_reinit_members(net, [4, 0], donate=donate)
    check(net, before, fresh(Declared), [0, 4])
    assert net.w.value.sharding.is_equivalent_to(place, 2)
