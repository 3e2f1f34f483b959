"""A few layers: enough to show the API and to test it. For real networks bring your framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .. import random
from ._tree import HiddenState, Module, ParamState

# Variance 1 / fan-in over (out, in).
_lecun = jax.nn.initializers.variance_scaling(
    1.0, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2
)


def _like(bias: Any, x: Any) -> Any:
    # Written out, for jax_numpy_rank_promotion="raise".
    return jnp.broadcast_to(bias, jnp.shape(x))


class Linear(Module):
    """``x @ weight.T + bias``, from the last axis of ``x``.

    Args:
        in_size, out_size: lengths of the last axis before and after.
        bias: whether to add a bias.
        dtype: of the parameters.

    States: ``weight`` of shape ``(out_size, in_size)``, truncated normal of variance
    ``1 / in_size``; ``bias`` of shape ``(out_size,)``, zeros.

    Example:
        >>> import jax.numpy as jnp, seedbed as sb
        >>> net = sb.nn.init_all_states(sb.nn.Linear(10, 20))
        >>> net(jnp.ones((4, 10))).shape
        (4, 20)
    """

    def __init__(self, in_size: int, out_size: int, *, bias: bool = True, dtype: Any = None):
        self.weight = ParamState(init=_lecun, shape=(out_size, in_size), dtype=dtype)
        self.bias = None
        if bias:
            zeros = jax.nn.initializers.zeros
            self.bias = ParamState(init=zeros, shape=(out_size,), dtype=dtype)

    def __call__(self, x: Any) -> Any:
        y = x @ self.weight.value.T
        return y if self.bias is None else y + _like(self.bias.value, y)


class Sequential(Module):
    """Layers and functions, one after the other; ``train`` goes to those that are `Dropout`.

    Example:
        >>> import jax, seedbed as sb
        >>> net = sb.nn.Sequential(sb.nn.Linear(3, 5), jax.nn.relu, sb.nn.Linear(5, 2))
        >>> sorted(net.states())[0]
        ('layers', 0, 'bias')
    """

    def __init__(self, *layers: Callable[..., Any]) -> None:
        for layer in layers:
            if not callable(layer):
                raise TypeError(
                    f"`layers` must be modules or functions; got {layer!r} of type "
                    f"{type(layer).__name__}"
                )
        self.layers = layers

    def __call__(self, x: Any, train: bool = True) -> Any:
        for layer in self.layers:
            x = layer(x, train=train) if isinstance(layer, (Dropout, Sequential)) else layer(x)
        return x


class Dropout(Module):
    """Sets elements to zero with probability ``rate``, and scales the others by ``1/(1-rate)``.

    Args:
        rate: at least 0 and below 1.

    The mask is drawn with the next key of the ambient random stream; with ``train=False``
    nothing happens.
    """

    def __init__(self, rate: float) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be at least 0 and below 1; got {rate!r}")
        self.rate = rate

    def __call__(self, x: Any, train: bool = True) -> Any:
        if not train or self.rate == 0:
            return x
        keep = jax.random.bernoulli(random.next_key(), 1 - self.rate, jnp.shape(x))
        return jnp.where(keep, x / (1 - self.rate), 0)


class GRUCell(Module):
    """A gated recurrent unit (Cho et al. 2014, https://arxiv.org/abs/1406.1078).

    Args:
        in_size, hidden_size: lengths of the last axis of the input and of the hidden state.

    States: ``w_in`` of shape ``(3 * hidden_size, in_size)`` and ``w_hidden`` of shape
    ``(3 * hidden_size, hidden_size)``, reset, update and candidate below each other; ``bias`` of
    shape ``(3 * hidden_size,)``; ``h``, the hidden state, of zeros of shape
    ``(batch_size, hidden_size)``, or ``(hidden_size,)`` without ``batch_size``, which
    ``init_state`` takes.
    """

    def __init__(self, in_size: int, hidden_size: int) -> None:
        self.hidden_size = hidden_size
        orthogonal = jax.nn.initializers.orthogonal()
        zeros = jax.nn.initializers.zeros
        self.w_in = ParamState(init=_lecun, shape=(3 * hidden_size, in_size))
        self.w_hidden = ParamState(init=orthogonal, shape=(3 * hidden_size, hidden_size))
        self.bias = ParamState(init=zeros, shape=(3 * hidden_size,))

    def init_state(self, batch_size: int | None = None) -> None:
        super().init_state()
        batch = () if batch_size is None else (batch_size,)
        self.h = HiddenState(jnp.zeros((*batch, self.hidden_size), self.w_in.dtype))

    def reset_state(self, batch_size: int | None = None) -> None:
        del batch_size
        self.h.value = jnp.zeros_like(self.h.value)

    def __call__(self, x: Any) -> Any:
        h = self.h.value
        from_input = x @ self.w_in.value.T
        from_input = jnp.split(from_input + _like(self.bias.value, from_input), 3, axis=-1)
        from_hidden = jnp.split(h @ self.w_hidden.value.T, 3, axis=-1)
        reset = jax.nn.sigmoid(from_input[0] + from_hidden[0])
        update = jax.nn.sigmoid(from_input[1] + from_hidden[1])
        candidate = jnp.tanh(from_input[2] + reset * from_hidden[2])
        self.h.value = (1 - update) * candidate + update * h
        return self.h.value


class LIF(Module):
    """A population of leaky integrate-and-fire neurons.

    ``tau dV/dt = -V + gain * I``, by the exponential Euler method; a neuron whose potential
    passes the threshold 1 spikes and is set back to 0.

    Args:
        size: number of neurons.
        tau: membrane time constant, in ms; a State when each member is to have its own.
        gain: factor of the input; a State when each member is to have its own.
        dt: time step, in ms.

    States: ``v``, membrane potentials of shape ``(size,)`` in units of the threshold, uniform in
    [0, 1) at first; ``init_state`` and ``reset_state`` draw them.
    """

    def __init__(self, size: int, *, tau: Any = 10.0, gain: Any = 1.0, dt: float = 0.1) -> None:
        self.size = size
        self.tau = tau
        self.gain = gain
        self.dt = dt

    def init_state(self) -> None:
        self.v = HiddenState(jax.random.uniform(random.next_key(), (self.size,)))

    def reset_state(self) -> None:
        self.v.value = jax.random.uniform(random.next_key(), (self.size,))

    def __call__(self, current: Any) -> Any:
        """One step: input currents of shape ``(size,)`` in, spikes (bool) of that shape out."""
        tau, gain = (getattr(one, "value", one) for one in (self.tau, self.gain))
        decay = jnp.exp(-self.dt / tau)
        v = decay * self.v.value + (1 - decay) * gain * current
        spikes = v >= 1
        self.v.value = jnp.where(spikes, 0, v)
        return spikes
