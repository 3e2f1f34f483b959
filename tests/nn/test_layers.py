"""The layers: documented shapes and starting values, and numbers against numpy in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from seedbed.nn import HiddenState, ParamState

pytestmark = pytest.mark.end("newest")


def float64(net):
    return {path[-1]: np.asarray(state.value, np.float64) for path, state in net.states().items()}


def drawn(net, key, *args, **kwargs):
    with sb.random.stream(key):
        return sb.nn.init_all_states(net, *args, **kwargs)


# --- Linear -----------------------------------------------------------------------------


def test_linear_is_declared_and_then_drawn():
    net = sb.nn.Linear(10, 20)
    assert net.weight.shape == (20, 10) and net.bias.shape == (20,)
    assert not net.weight.initialized and not net.bias.initialized
    assert type(net.weight) is type(net.bias) is ParamState
    sb.nn.vmap_init_all_states(net, axis_size=8)
    assert net.weight.shape == (8, 20, 10) and net.bias.shape == (8, 20)


def test_linear_against_numpy(key):
    net = drawn(sb.nn.Linear(10, 20), key)
    net.bias.value = jnp.arange(20.0)
    at = float64(net)
    for shape in [(10,), (4, 10), (2, 3, 10), (0, 10)]:
        x = jax.random.normal(key, shape)
        expected = np.asarray(x, np.float64) @ at["weight"].T + at["bias"]
        y = net(x)
        assert y.shape == expected.shape and y.dtype == jnp.float32
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_the_weight_of_linear_has_variance_one_over_fan_in(key):
    net = drawn(sb.nn.Linear(400, 300), key)
    weight = np.asarray(net.weight.value, np.float64)
    # 120,000 elements: four standard errors of the variance of a truncated normal.
    assert abs(weight.var() * 400 - 1) < 4 * math.sqrt(2 / weight.size)
    assert abs(weight.mean()) * 20 < 4 / math.sqrt(weight.size)
    bound = 2 / 0.87962566103423978 / 20
    assert np.abs(weight).max() <= bound * (1 + 1e-6)
    assert not net.bias.value.any()


def test_linear_without_bias_and_of_other_dtypes(key):
    net = drawn(sb.nn.Linear(3, 2, bias=False, dtype=jnp.bfloat16), key)
    assert net.bias is None and list(net.states()) == [("weight",)]
    assert net.weight.dtype == jnp.bfloat16
    assert net(jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16
    net = sb.nn.Linear(3, 2, dtype=jnp.float16)
    assert net.weight.dtype == net.bias.dtype == jnp.float16


@pytest.mark.parametrize("sizes", [(-1, 2), (2, -1), (2.0, 2), ("2", 2), (True, 2), (2, None)])
def test_linear_refuses_sizes(sizes):
    with pytest.raises(TypeError, match="`shape` of ParamState must be a tuple of integers"):
        sb.nn.Linear(*sizes)


# --- Sequential -------------------------------------------------------------------------


def test_sequential_is_one_after_the_other(key):
    net = drawn(sb.nn.Sequential(sb.nn.Linear(3, 4), jnp.tanh, sb.nn.Linear(4, 2)), key)
    first, _, last = net.layers
    x = jax.random.normal(key, (5, 3))
    assert_same_bits(net(x), last(jnp.tanh(first(x))))
    assert list(net.states()) == [
        ("layers", 0, "bias"),
        ("layers", 0, "weight"),
        ("layers", 2, "bias"),
        ("layers", 2, "weight"),
    ]
    x = jnp.ones(3)
    assert sb.nn.Sequential()(x) is x


@pytest.mark.parametrize("layer", [None, 3, "relu", [sb.nn.Linear(1, 1)]])
def test_sequential_takes_callables_only(layer):
    with pytest.raises(TypeError, match="`layers` must be modules or functions; got"):
        sb.nn.Sequential(jnp.tanh, layer)


# --- Dropout ----------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_scales_the_rest(key, rate):
    x = jnp.full((100, 1000), 3.0)
    with sb.random.stream(key):
        y = np.asarray(sb.nn.Dropout(rate)(x), np.float64)
    dropped = y == 0
    np.testing.assert_allclose(y[~dropped], 3 / (1 - rate), rtol=1e-6)
    error = math.sqrt(rate * (1 - rate) / y.size)
    assert abs(dropped.mean() - rate) < 4 * error
    # Elements are dropped one by one, not by row or column.
    assert dropped.mean(axis=0).std() < 2 * math.sqrt(rate * (1 - rate) / 100)
    assert dropped.mean(axis=1).std() < 2 * math.sqrt(rate * (1 - rate) / 1000)


def test_dropout_takes_one_key_and_the_same_key_gives_the_same_mask(key):
    layer, x = sb.nn.Dropout(0.5), jnp.ones(64)
    with sb.random.stream(key):
        first, second = layer(x), layer(x)
        assert sb.random.get_state().count == 2
    with sb.random.stream(key):
        assert_same_bits(layer(x), first)
    assert not np.array_equal(first, second)
    keep = jax.random.bernoulli(jax.random.fold_in(key, 0), 0.5, (64,))
    np.testing.assert_array_equal(first, np.where(keep, 2, 0))


def test_dropout_that_does_nothing_takes_no_key(key):
    x = jnp.arange(4.0)
    with sb.random.stream(key):
        assert sb.nn.Dropout(0.5)(x, train=False) is x
        assert sb.nn.Dropout(0)(x) is x
        assert sb.random.get_state().count == 0


def test_dropout_keeps_the_dtype_and_passes_gradients(key):
    layer = sb.nn.Dropout(0.5)

    def run(x):
        with sb.random.stream(key):
            return layer(x)

    assert run(jnp.ones(4, jnp.bfloat16)).dtype == jnp.bfloat16
    y = run(jnp.ones(64))
    assert_same_bits(jax.grad(lambda x: run(x).sum())(jnp.ones(64)), y)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_dropout_refuses_rates(rate):
    with pytest.raises(ValueError, match="`rate` must be at least 0 and below 1; got"):
        sb.nn.Dropout(rate)


# --- GRUCell ----------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(at, x, h):
    """One step of equations (5) to (8) of Cho et al. (2014), the biases on the side of x."""
    n = h.shape[-1]
    (xr, xz, xn), (hr, hz, hn) = (
        [rows @ weight[i * n : (i + 1) * n].T for i in range(3)]
        for rows, weight in ((x, at["w_in"]), (h, at["w_hidden"]))
    )
    br, bz, bn = at["bias"].reshape(3, n)
    reset, update = sigmoid(xr + hr + br), sigmoid(xz + hz + bz)
    return update * h + (1 - update) * np.tanh(xn + bn + reset * hn)


@pytest.mark.parametrize("batch", [None, 1, 5])
def test_a_gru_against_numpy(key, batch):
    cell = drawn(sb.nn.GRUCell(3, 4), key, batch_size=batch)
    lead = () if batch is None else (batch,)
    cell.bias.value = jax.random.normal(key, (12,))
    cell.h.value = jax.random.normal(jax.random.key(1), (*lead, 4))
    at = float64(cell)
    h = at["h"]
    for step in range(6):
        x = jax.random.normal(jax.random.key(step), (*lead, 3))
        h = gru(at, np.asarray(x, np.float64), h)
        y = cell(x)
        assert y is cell.h.value and y.shape == (*lead, 4) and y.dtype == jnp.float32
        np.testing.assert_allclose(y, h, rtol=1e-5, atol=1e-6)


def test_the_states_of_a_gru(key):
    cell = sb.nn.GRUCell(3, 4)
    assert {path: state.shape for path, state in cell.states().items()} == {
        ("bias",): (12,),
        ("w_hidden",): (12, 4),
        ("w_in",): (12, 3),
    }
    drawn(cell, key, batch_size=7)
    assert type(cell.h) is HiddenState and cell.h.shape == (7, 4) and not cell.h.value.any()
    w = np.asarray(cell.w_hidden.value, np.float64)
    np.testing.assert_allclose(w.T @ w, np.eye(4), atol=1e-5)
    cell(jnp.ones((7, 3)))
    assert cell.h.value.all()
    sb.nn.reset_all_states(cell)
    assert cell.h.shape == (7, 4) and not cell.h.value.any()
    sb.nn.vmap_init_all_states(cell, axis_size=2)
    assert cell.h.shape == (2, 4) and cell.w_in.shape == (2, 12, 3)


def test_a_gru_keeps_its_state_where_the_update_gate_is_open(key):
    cell = drawn(sb.nn.GRUCell(3, 4), key)
    cell.bias.value = jnp.concatenate([jnp.zeros(4), jnp.full(4, 100.0), jnp.zeros(4)])
    cell.h.value = jnp.arange(4.0) / 4
    np.testing.assert_array_equal(cell(jnp.ones(3)), np.arange(4.0) / 4)


# --- LIF --------------------------------------------------------------------------------


def test_a_lif_against_numpy(key):
    net = drawn(sb.nn.LIF(50, tau=8.0, gain=1.7, dt=0.5), key)
    assert type(net.v) is HiddenState and net.v.shape == (50,)
    v = np.asarray(net.v.value, np.float64)
    decay = math.exp(-0.5 / 8.0)
    currents = jax.random.uniform(key, (40, 50), minval=0.0, maxval=2.0)
    fired = 0
    for current in currents:
        v = decay * v + (1 - decay) * 1.7 * np.asarray(current, np.float64)
        expected = v >= 1
        assert np.abs(v - 1).min() > 1e-5, "too close to the threshold to compare"
        spikes = net(current)
        assert spikes.dtype == bool and spikes.shape == (50,)
        np.testing.assert_array_equal(spikes, expected)
        v = np.where(expected, 0, v)
        np.testing.assert_allclose(net.v.value, v, rtol=1e-5, atol=1e-6)
        fired += expected.sum()
    assert fired > 20


def test_a_constant_current_makes_the_known_rate():
    net = sb.nn.init_all_states(sb.nn.LIF(1, tau=10.0, dt=0.01))
    definition, _ = sb.nn.split(net)

    def step(v, _):
        one = sb.nn.merge(definition, {"v": v})
        spikes = one(1.5)
        return one.v.value, spikes

    _, spikes = jax.lax.scan(step, jnp.zeros(1), None, length=8000)
    (times,) = np.nonzero(np.asarray(spikes)[:, 0])
    # tau * log(RI / (RI - 1)), in steps of 0.01 ms
    assert abs(np.diff(times).mean() - 1000 * math.log(3)) < 2


def test_initial_potentials_are_uniform(key):
    net = drawn(sb.nn.LIF(20_000), key)
    v = np.asarray(net.v.value, np.float64)
    assert v.min() >= 0 and v.max() < 1
    assert abs(v.mean() - 0.5) < 4 * math.sqrt(1 / 12 / v.size)
    histogram, _ = np.histogram(v, bins=20, range=(0, 1))
    assert np.abs(histogram - 1000).max() < 5 * math.sqrt(950)


def test_a_reset_draws_potentials_anew(key):
    with sb.random.stream(key):
        net = sb.nn.vmap_init_all_states(sb.nn.LIF(8), axis_size=3)
        state, before = net.v, net.v.value
        sb.nn.vmap_reset_all_states(net, axis_size=3)
    assert net.v is state and net.v.shape == (3, 8)
    assert not np.isin(net.v.value, before).any()


def test_the_gain_may_be_a_state(key):
    gain = sb.nn.State(0.0)
    net = drawn(sb.nn.LIF(4, gain=gain, dt=1.0), key)
    before = net.v.value
    net(100.0)
    np.testing.assert_allclose(net.v.value, before * math.exp(-0.1), rtol=1e-6)
    gain.value = 50.0
    assert net(100.0).all() and not net.v.value.any()
