"""`seedbed.nn.vmap`: a module or function run over members, against a loop over the members."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from members import N, Scale, close, looped, make, members_of, normal
from seedbed.nn import HiddenState, ParamState, State

pytestmark = [pytest.mark.shared, pytest.mark.reference("oldest")]


@pytest.fixture
def net(key):
    layers = sb.nn.Linear(3, 4), jnp.tanh, sb.nn.Linear(4, 2)
    return make(sb.nn.Sequential(*layers), key)


@pytest.fixture
def scale(key):
    return make(Scale(), key)


# --- against a loop ---------------------------------------------------------------------


def test_a_module_runs_over_its_members(net, xs):
    close(sb.nn.vmap(net)(xs), looped(net, lambda one, i: one(xs[i])))
    close(sb.nn.vmap(net, in_axes=None)(xs[0]), looped(net, lambda one, i: one(xs[0])))
    batch = jnp.arange(24.0).reshape(8, 3) / 10
    close(sb.nn.vmap(net, in_axes=None)(batch), looped(net, lambda one, i: one(batch)))


def test_a_bound_method_runs_over_the_members(scale, xs):
    expected = looped(scale, lambda one, i: one.double(xs[i]))
    assert_same_bits(sb.nn.vmap(scale.double)(xs), expected)
    expected = looped(scale, lambda one, i: one.double(xs[i], times=7))
    assert_same_bits(sb.nn.vmap(scale.double)(xs, times=7), expected)


def test_modules_among_the_arguments_run_over_their_members(scale, net, xs):
    def both(pair, x, *, other):
        first, second = pair["a"], pair["b"][0]
        return second(first(x)) + other.w.value.sum()

    got = sb.nn.vmap(both)({"a": scale, "b": (net,)}, xs, other=scale)
    rows = zip(members_of(scale), members_of(net), strict=True)
    results = [two(one(xs[i])) + one.w.value.sum() for i, (one, two) in enumerate(rows)]
    close(got, jnp.stack(results))


@pytest.mark.parametrize(
    "as_axes", [lambda s: s, lambda s: [s], lambda s: {0: s}, lambda s: {0: [s]}]
)
def test_other_states_run_over_members_by_in_states(as_axes, xs):
    gain = State(jnp.arange(float(N)))
    got = sb.nn.vmap(lambda x: x * gain.value, in_states=as_axes(gain))(xs)
    assert_same_bits(got, xs * jnp.arange(float(N))[:, None])


@pytest.mark.parametrize("axis", [1, -1])
def test_in_states_along_another_axis(axis, xs):
    gain = State(jnp.arange(3.0 * N).reshape(3, N))
    got = sb.nn.vmap(lambda x: x * gain.value, in_states={axis: gain})(xs)
    assert_same_bits(got, xs * gain.value.T)


def test_in_states_join_the_states_of_a_module(scale, xs):
    gain = State(jnp.arange(float(N)))
    got = sb.nn.vmap(lambda net, x: net(x) * gain.value, in_states=gain)(scale, xs)
    assert_same_bits(got, xs * scale.w.value * jnp.arange(float(N))[:, None])


def test_an_unbatched_module_runs_over_a_batch_of_inputs(key):
    net = sb.nn.init_all_states(sb.nn.Linear(3, 2))
    x = jax.random.normal(key, (9, 3))
    close(sb.nn.vmap(net)(x), net(x))
    assert net.members is None
    assert sb.nn.vmap(net, in_axes=None, axis_size=4)(x).shape == (4, 9, 2)


def test_a_module_batched_along_another_axis(key, xs):
    net = Scale()
    make(net, key, out_states={-1: net.w})
    assert net.w.shape == (3, N)
    assert_same_bits(sb.nn.vmap(net)(xs), xs * net.w.value.T)


# --- axes of arguments and results ------------------------------------------------------


@pytest.mark.parametrize(
    ("in_axes", "shapes"),
    [
        (0, [(N, 3), (N, 2)]),
        (-1, [(3, N), (2, N)]),
        ((0, None), [(N, 3), (2,)]),
        ((None, 1), [(3,), (2, N)]),
        ([1, 0], [(3, N), (N, 2)]),
    ],
)
def test_in_axes(scale, in_axes, shapes):
    a, b = (jnp.arange(float(np.prod(shape))).reshape(shape) for shape in shapes)

    def call(net, a, b):
        return net(a), b + net.w.value[0]

    got = sb.nn.vmap(lambda a, b: call(scale, a, b), in_axes=in_axes, in_states=scale.w)(a, b)
    axes = in_axes if isinstance(in_axes, (tuple, list)) else (in_axes,) * 2
    assert_same_bits(got, jax.vmap(lambda w, a, b: (a * w, b + w[0]), (0, *axes))(
        scale.w.value, a, b
    ))  # fmt: skip


def test_in_axes_of_nested_arguments(scale, xs):
    tree = {"x": xs, "y": [xs[0], xs.T]}
    got = sb.nn.vmap(
        lambda t: scale(t["x"]) + t["y"][0] * t["y"][1],
        in_axes=({"x": 0, "y": [None, 1]},),
        in_states=scale.w,
    )(tree)
    np.testing.assert_allclose(got, xs * scale.w.value + xs[:1] * xs, rtol=1e-6)


def test_leaves_that_are_no_arrays_stay_what_they_are(scale, xs):
    def call(net, x, how, function, nothing):
        assert how == "fast" and function is jnp.sin and nothing is None
        return function(net(x))

    got = sb.nn.vmap(call)(scale, xs, "fast", jnp.sin, None)
    np.testing.assert_allclose(got, jnp.sin(xs * scale.w.value), rtol=1e-6)


def test_keyword_arguments_are_not_mapped(scale, xs):
    def call(net, x, *, whole, flag):
        assert whole.shape == (N, 3) and flag is True
        return net(x) + whole.sum()

    got = sb.nn.vmap(call)(scale, xs, whole=xs, flag=True)
    np.testing.assert_allclose(got, xs * scale.w.value + xs.sum(), rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_out_axes(scale, axis):
    def call(x):
        return jnp.outer(x, scale.w.value)

    got = sb.nn.vmap(call, in_axes=None, out_axes=axis, in_states=scale.w)(jnp.arange(4.0))
    expected = jax.vmap(lambda w: jnp.outer(jnp.arange(4.0), w), out_axes=axis)(scale.w.value)
    assert_same_bits(got, expected)


def test_out_axes_of_several_results(scale, xs):
    def call(net, x, y):
        return {"a": net(x), "b": (y * 2, net(x))}

    axes = {"a": -1, "b": (None, 0)}
    got = sb.nn.vmap(call, in_axes=(None, 0, None), out_axes=axes)(scale, xs, 3.0)
    assert got["a"].shape == (3, N) and got["b"][0].shape == () and got["b"][0] == 6
    assert_same_bits(got["a"].T, got["b"][1])


def test_out_axes_none_for_what_differs_is_an_error(scale, xs):
    with pytest.raises(ValueError, match="`out_axes` is None for a result that differs from memb"):
        sb.nn.vmap(scale, out_axes=None)(xs)
    with pytest.raises(ValueError, match="`out_axes` is None for a result that differs from memb"):
        sb.nn.vmap(lambda: sb.random.next_key(), out_axes=None, axis_size=3)()


@pytest.mark.parametrize("axis", [2, -3])
def test_out_axes_outside_of_the_result(scale, xs, axis):
    message = f"`out_axes` puts the members at axis {axis} of a result that has 2 axes with that"
    with pytest.raises(ValueError, match=message):
        sb.nn.vmap(scale, out_axes=axis)(xs)


@pytest.mark.parametrize("axis", [True, 1.0, "0"])
def test_out_axes_that_are_no_axes(scale, xs, axis):
    with pytest.raises(
        TypeError, match=f"`out_axes` must consist of integers and None; got {axis!r}"
    ):
        sb.nn.vmap(scale, out_axes=axis)(xs)


# --- random numbers ---------------------------------------------------------------------


def test_dropout_has_masks_of_each_member_from_its_key(key):
    net = sb.nn.Dropout(0.5)
    x = jnp.ones(64)
    with sb.random.stream(key):
        got = sb.nn.vmap(net, in_axes=None, axis_size=N)(x)
        again = sb.nn.vmap(net, in_axes=None, axis_size=N)(x)
        assert sb.random.get_state().count == 2
    keys = jax.random.split(jax.random.fold_in(key, 0), N)
    masks = [jax.random.bernoulli(jax.random.fold_in(k, 0), 0.5, (64,)) for k in keys]
    assert_same_bits(got, jnp.stack(masks) * jnp.float32(2))
    assert len(np.unique(np.concatenate([got, again]), axis=0)) == 2 * N


def test_a_member_draws_the_same_whatever_the_number_of_members_and_the_way(key):
    def draw(size, **options):
        with sb.random.stream(key):
            return sb.nn.vmap(
                lambda: jax.random.normal(sb.random.next_key(), (16,)), axis_size=size, **options
            )()

    all_at_once = draw(N)
    for options in ({"loop": True}, {"chunk_size": 2}, {"chunk_size": 4}):
        assert_same_bits(draw(N, **options), all_at_once)
    keys = jax.random.split(jax.random.fold_in(key, 0), N)
    rows = [jax.random.normal(jax.random.fold_in(k, 0), (16,)) for k in keys]
    assert_same_bits(all_at_once, jnp.stack(rows))


def test_a_call_that_draws_nothing_needs_no_stream_under_jit(scale, xs):
    definition, values = sb.nn.split(scale)
    run = jax.jit(lambda values, xs: sb.nn.vmap(sb.nn.merge(definition, values))(xs))
    assert_same_bits(run(values, xs), xs * scale.w.value)
    with pytest.raises(RuntimeError, match="stream"):
        jax.jit(lambda x: sb.nn.vmap(sb.nn.Dropout(0.5))(x))(xs)


# --- a few at a time --------------------------------------------------------------------

WAYS = [{"chunk_size": 1}, {"chunk_size": 2}, {"chunk_size": 4}, {"chunk_size": 50}, {"loop": True}]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_chunks_and_loops_are_the_same(net, scale, xs, way):
    assert_same_bits(sb.nn.vmap(scale, **way)(xs), sb.nn.vmap(scale)(xs))
    close(sb.nn.vmap(net, **way)(xs), sb.nn.vmap(net)(xs))
    got = sb.nn.vmap(scale, in_axes=1, out_axes=-1, **way)(xs.T)
    assert_same_bits(got.T, sb.nn.vmap(scale)(xs))


@pytest.mark.parametrize("way", [{"chunk_size": 4}, {"loop": True}], ids=str)
def test_states_are_written_in_chunks_and_loops(key, xs, way):
    cell, other = make(sb.nn.GRUCell(3, 4), key), make(sb.nn.GRUCell(3, 4), key)
    for _ in range(2):
        close(sb.nn.vmap(cell, **way)(xs), sb.nn.vmap(other)(xs))
    close(cell.h.value, other.h.value)
    assert cell.h.members == N


# --- arguments that are refused ---------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"axis_size": 0}, ValueError, "axis_size must be a positive integer, got 0 of type int"),
        ({"axis_size": True}, ValueError, "axis_size must be a positive integer, got True of"),
        ({"axis_size": 2.0}, ValueError, "axis_size must be a positive integer, got 2.0 of"),
        ({"chunk_size": 0}, ValueError, "`chunk_size` must be at least 1"),
        ({"chunk_size": 2.0}, TypeError, "`chunk_size` must be a positive integer"),
        ({"loop": 1}, TypeError, "`loop` must be True or False; got 1 of type int"),
        ({"loop": True, "chunk_size": 2}, ValueError, "`loop` runs one member at a time, and"),
        ({"in_states": 3}, TypeError, "`in_states` must be a State, several (a list, or what"),
        ({"out_states": "w"}, TypeError, "`out_states` must be a State, several"),
        ({"in_states": [State(1), 2]}, TypeError, "got 2 of type int"),
        ({"in_states": {0: 2}}, TypeError, "got 2 of type int"),
    ],
)
def test_options_that_are_refused_at_once(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        sb.nn.vmap(lambda x: x, **options)


@pytest.mark.parametrize("fn", [None, 3, "net", [sb.nn.Linear(1, 1)]])
def test_what_is_not_callable_is_refused(fn):
    with pytest.raises(TypeError, match="`fn_or_module` must be a function or a module with __ca"):
        sb.nn.vmap(fn)


def test_a_state_twice_is_refused():
    state = State(jnp.ones(3))
    with pytest.raises(ValueError, match=r"`in_states` has State\(.*\) twice"):
        sb.nn.vmap(lambda: 1, in_states={0: state, 1: [state]})


@pytest.mark.parametrize(
    ("in_axes", "message"),
    [
        (2, "`in_axes` maps axis 2 of args[0], which has shape (6, 3)"),
        (("x",), "`in_axes` must consist of integers and None; got 'x' of type str for args[0]"),
        (True, "`in_axes` must consist of integers and None; got True of type bool"),
        ((0, 0), "`in_axes` has 2 entries for 1 positional arguments; give one entry for each"),
        (({"a": 0},), "`in_axes` must be None, an integer, or a tuple whose structure is a prefix"),
    ],
)
def test_in_axes_that_do_not_fit(scale, xs, in_axes, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        sb.nn.vmap(scale, in_axes=in_axes)(xs)


def test_numbers_of_members_that_disagree(scale, net, xs, key):
    for run, message in [
        (lambda: sb.nn.vmap(scale)(xs[:4]), "the state 'w' has 6, args[0] has 4"),
        (lambda: sb.nn.vmap(scale, axis_size=5)(xs), "axis_size has 5, the state 'w' has 6"),
        (
            lambda: sb.nn.vmap(lambda a, b: a)(net, make(Scale(), key, 4)),
            "the state '0.layers.0.bias' has 6, the state '1.w' has 4",
        ),
        (
            lambda: sb.nn.vmap(scale, in_states=State(jnp.ones(4)))(xs),
            "State(shape=(4,), dtype=float32) has 4",
        ),
    ]:
        with pytest.raises(ValueError, match="vmap needs one number of members") as caught:
            run()
        assert message in str(caught.value)
    with pytest.raises(ValueError, match="vmap finds no number of members: no state and no argum"):
        sb.nn.vmap(lambda: 1)()


def test_in_states_that_cannot_be_mapped():
    declared = ParamState(init=normal, shape=(3,))
    with pytest.raises(ValueError, match="`in_states` has the state .*, which has no value yet"):
        sb.nn.vmap(lambda: 1, in_states=declared, axis_size=3)()
    assert not declared.initialized
    for value, axis in [(jnp.ones(()), 0), (jnp.ones(3), 1), (jnp.ones(3), -2)]:
        with pytest.raises(
            ValueError, match=f"`in_states` maps axis {axis} of the state .*, which"
        ):
            sb.nn.vmap(lambda: 1, in_states={axis: State(value)})()
    for value in (None, {}):
        with pytest.raises(ValueError, match="vmap finds no number of members"):
            sb.nn.vmap(lambda: 1, in_states=State(value))()
        assert sb.nn.vmap(lambda: 1, in_states=State(value), axis_size=2)().shape == (2,)
    uneven = State((jnp.ones(3), jnp.ones(4)))
    with pytest.raises(ValueError, match="`in_states` maps axis 0 .* and so 4 members, and axis_s"):
        sb.nn.vmap(lambda: 1, in_states=uneven)()


def test_results_that_are_no_arrays_are_refused(scale, xs):
    with pytest.raises(TypeError, match="must return arrays, numbers, modules and states; got 'a'"):
        sb.nn.vmap(lambda net, x: "a")(scale, xs)


def test_the_result_has_the_name_of_the_function():
    def forward(net, x):
        """Runs."""
        return net(x)

    run = sb.nn.vmap(forward)
    assert run.__name__ == "forward" and run.__doc__ == "Runs."
    assert callable(sb.nn.vmap(functools.partial(forward))) and callable(sb.nn.vmap(Scale()))
    assert isinstance(HiddenState(1), State)
