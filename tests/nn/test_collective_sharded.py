"""States created laid out over devices: `vmap_init_all_states(..., out_shardings=)`."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb
from meshes import KINDS, assert_lie, assert_same, mesh_of, whole
from seedbed import filters

pytestmark = pytest.mark.shared

SIZE = 8
WEIGHTS = filters.PathContains("weight")


def net():
    return sb.nn.Sequential(sb.nn.Linear(8, 16), sb.nn.Linear(16, 32))


def in_mesh(kind="Explicit"):
    return mesh_of(kind, (4, 2), ("a", "b"))


def initialised(target=None, **options):
    target = net() if target is None else target
    with sb.random.stream(jax.random.key(4)):
        return sb.nn.vmap_init_all_states(target, axis_size=SIZE, **options)


def values(target):
    return {path: state.value for path, state in target.states().items()}


@pytest.fixture(scope="module")
def alone():
    return whole(values(initialised()))


@pytest.mark.parametrize("kind", KINDS)
def test_all_states(kind, alone):
    mesh = in_mesh(kind)
    for spec in (P("a"), P(("b", "a")), P()):
        target = net()
        for _ in range(2):  # new, and again where there are values
            got = values(initialised(target, out_shardings=NamedSharding(mesh, spec)))
            assert_same(whole(got), alone)
            assert_lie(got, mesh, spec)
    with jax.set_mesh(mesh):
        got = values(initialised(out_shardings=P("a")))
    assert_same(whole(got), alone)
    assert_lie(got, mesh, P("a"))


@pytest.mark.parametrize("kind", KINDS)
def test_states_by_filter(kind, alone):
    mesh = in_mesh(kind)
    given = {
        filters.All(WEIGHTS, filters.PathContains(0)): NamedSharding(mesh, P("a", None, "b")),
        WEIGHTS: NamedSharding(mesh, P("b", "a")),
        sb.nn.HiddenState: None,
    }
    got = values(initialised(out_shardings=given))
    assert_same(whole(got), alone)
    where = {(0, "weight"): P("a", None, "b"), (1, "weight"): P("b", "a")}
    for path, value in got.items():
        assert_lie(value, mesh, where.get(path[-2:], P()))


def test_within_jit(alone):
    mesh = in_mesh()
    place = NamedSharding(mesh, P("a"))
    graph, states = sb.nn.split(net())

    @jax.jit
    def made(key, states):
        target = sb.nn.merge(graph, states)
        with sb.random.stream(key):
            sb.nn.vmap_init_all_states(target, axis_size=SIZE, out_shardings=place)
        return values(target)

    got = made(jax.random.key(4), states)
    assert_same(whole(got), alone)
    assert_lie(got, mesh, P("a"))


def test_donation_takes_the_memory_of_what_lies_alike(alone):
    place = NamedSharding(in_mesh(), P("a"))
    target = initialised(out_shardings=place)
    old = list(values(target).values())
    initialised(target, out_shardings=place, donate=True)
    assert_same(whole(values(target)), alone)
    assert all(array.is_deleted() for array in old)


@pytest.mark.parametrize("kind", KINDS)
def test_members_along_another_axis(kind, alone):
    mesh = in_mesh(kind)
    target = net()
    (path, weight), *_ = [(p, s) for p, s in target.states().items() if p[-1] == "weight"]
    given = {WEIGHTS: NamedSharding(mesh, P("b", "a"))}
    got = values(initialised(target, out_states={1: [weight]}, out_shardings=given))
    assert_lie(got[path], mesh, P("b", "a"))
    assert_same(whole(jnp.moveaxis(got[path], 1, 0)), alone[path])


@pytest.mark.parametrize("kind", KINDS)
def test_what_members_share_is_whole(kind):
    mesh = in_mesh(kind)
    options = {"state_to_exclude": filters.PathContains(0)}
    got = values(initialised(out_shardings=NamedSharding(mesh, P("a")), **options))
    assert_same(whole(got), whole(values(initialised(**options))))
    for path, value in got.items():
        assert_lie(value, mesh, P() if 0 in path else P("a"))


class Scaled(sb.nn.Module):
    """Draws on a scale of each member's own."""

    def __init__(self):
        super().__init__()
        self.scale = sb.nn.State(jnp.ones(()))
        self.weight = sb.nn.State(jnp.zeros(8))

    def init_state(self):
        drawn = jax.random.uniform(sb.random.next_key(), (8,))
        self.weight.value = drawn * self.scale.value


@pytest.mark.parametrize("kind", KINDS)
def test_per_member_inputs_that_lie_on_the_mesh(kind):
    mesh = in_mesh(kind)
    place = NamedSharding(mesh, P("a"))
    scales = jnp.arange(float(SIZE))
    results = []
    for given, options in ((scales, {}), (jax.device_put(scales, place), {"out_shardings": place})):
        target = Scaled()
        target.scale.value = given
        initialised(target, in_states=[target.scale], **options)
        results.append(target.weight.value)
    assert_same(whole(results[1]), whole(results[0]))
    assert_lie(results[1], mesh, P("a"))


# --- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (lambda mesh: [3], TypeError, "must consist of NamedShardings"),
        (lambda mesh: mesh, TypeError, "must consist of NamedShardings"),
        (lambda mesh: {"a": 3}, TypeError, "must consist of NamedShardings"),
        (lambda mesh: {3: P()}, TypeError, "Invalid collection filter"),
        (lambda mesh: [P(), P()], TypeError, "or a mapping from filters of states"),
        (lambda mesh: P("a"), ValueError, "no mesh is set"),
        (lambda mesh: {WEIGHTS: None}, ValueError, "consists of None alone"),
        (
            lambda mesh: NamedSharding(mesh, P(None, "a", None, "b")),
            ValueError,
            r"for the leaf layers.0.bias of shape \(8, 16\), on a mesh of \(a: 4, b: 2\)",
        ),
        (
            lambda mesh: {WEIGHTS: NamedSharding(mesh, P(None, None, ("a", "b")))},
            ValueError,
            "dimension 2 of length 12 does not divide into 8",
        ),
    ],
)
def test_what_does_not_fit_changes_nothing(given, error, says):
    target = sb.nn.Sequential(sb.nn.Linear(8, 16), sb.nn.Linear(12, 16))
    sb.nn.init_all_states(target)
    before = values(target)
    with sb.random.stream(jax.random.key(0)):
        with pytest.raises(error, match=says):
            options = {"axis_size": SIZE, "out_shardings": given(in_mesh())}
            sb.nn.vmap_init_all_states(target, **options)
        left = sb.random.next_key()
    assert_same(values(target), before)
    with sb.random.stream(jax.random.key(0)):
        assert_same(left, sb.random.next_key())


def test_numbers_of_members_that_do_not_divide():
    place = NamedSharding(in_mesh(), P("a"))
    with pytest.raises(ValueError, match="`axis_size` is 6 members, which `out_shardings` splits"):
        sb.nn.vmap_init_all_states(net(), axis_size=6, out_shardings=place)


def test_calls_within_calls():
    place = NamedSharding(in_mesh(), P("a"))

    class Outer(sb.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def init_state(self):
            sb.nn.vmap_init_all_states(self.inner, axis_size=2, out_shardings=place)

    with pytest.raises(ValueError, match="a call that is not inside of another"):
        sb.nn.vmap_init_all_states(Outer(), axis_size=SIZE)
