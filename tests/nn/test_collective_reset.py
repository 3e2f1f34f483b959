"""`reset_all_states` and `vmap_reset_all_states`: states keep their members."""

import jax
import jax.numpy as jnp
import pytest

import seedbed as sb
from helpers import assert_same_bits
from modules import Declared, call_key, node_key, picture, values

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("seeded")]


def test_reset_keeps_the_member_axis():
    net = sb.nn.vmap_init_all_states(sb.nn.LIF(6), axis_size=3)
    v = net.v
    sb.nn.vmap_reset_all_states(net, axis_size=3)
    assert net.v is v and v.members == 3 and v.shape == (3, 6)

    def member(key):
        return jax.random.uniform(node_key(key), (6,))

    assert_same_bits(v.value, jax.vmap(member)(jax.random.split(call_key(number=1), 3)))


def test_a_recurrent_cell_keeps_its_members_when_reset():
    net = sb.nn.vmap_init_all_states(sb.nn.GRUCell(6, 2), axis_size=4)
    net.h.value = jnp.ones((4, 2))
    sb.nn.vmap_reset_all_states(net, axis_size=4)
    assert net.h.shape == (4, 2) and net.h.members == net.members == 4
    assert_same_bits(net.h.value, jnp.zeros((4, 2)))


def test_reset_of_all_members_as_a_single_model():
    net = sb.nn.vmap_init_all_states(sb.nn.GRUCell(6, 2), axis_size=3)
    net.h.value = jnp.ones((3, 2))
    sb.nn.reset_all_states(net)
    assert net.h.members == 3
    assert_same_bits(net.h.value, jnp.zeros((3, 2)))


def test_a_reset_that_would_lose_the_member_axis():
    net = sb.nn.vmap_init_all_states(sb.nn.LIF(6), axis_size=3)
    before = picture(net)
    message = r"holds 3 members along axis 0; the new value has shape \(6,\)"
    with pytest.raises(ValueError, match=message):
        sb.nn.reset_all_states(net)
    assert picture(net) == before


def test_reset_of_a_single_model():
    net = sb.nn.init_all_states(sb.nn.LIF(6))
    sb.nn.reset_all_states(net)
    assert_same_bits(net.v.value, jax.random.uniform(node_key(call_key(number=1)), (6,)))


def test_a_module_without_reset_state_of_its_own():
    net = sb.nn.vmap_init_all_states(Declared(), axis_size=3)
    expected = values(net)
    sb.nn.vmap_reset_all_states(net, axis_size=3)
    assert_same_bits(values(net), expected)
