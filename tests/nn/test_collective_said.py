"""What calls on module trees say of filters that match nothing, and of other frameworks' models."""

import jax.numpy as jnp
import pytest

import seedbed as sb
from seedbed import filters

pytestmark = pytest.mark.shared


def net():
    return sb.nn.Sequential(sb.nn.Linear(2, 3), sb.nn.Linear(3, 1))


@pytest.mark.parametrize("name", ["state_to_exclude", "node_to_exclude"])
def test_a_name_that_is_no_tag(seeded, name):
    made = net()
    with pytest.warns(UserWarning, match=f"`{name}`='weights' matches nothing") as seen:
        sb.nn.vmap_init_all_states(made, axis_size=2, **{name: "weights"})
    (warning,) = seen
    assert warning.filename == __file__
    said = str(warning.message)
    assert "a string is a tag, and nothing has the tag 'weights'" in said
    if name == "state_to_exclude":
        assert "what is called like that: filters.PathContains('weight')" in said
    assert made.layers[0].weight.shape == (2, 3, 2)


def test_filters_that_match_or_are_meant_to_match_nothing(seeded):
    for given in (None, False, [], filters.Nothing(), sb.nn.BatchState, ["bias", ...]):
        sb.nn.vmap_init_all_states(net(), axis_size=2, state_to_exclude=given)
    sb.nn.vmap_init_all_states(net(), axis_size=2, node_to_exclude=sb.nn.Linear)


def test_a_path_that_is_not_there(seeded):
    with pytest.warns(UserWarning, match=r"no path contains 'bais' \(what is .*'bias'\)"):
        sb.nn.vmap_init_all_states(
            net(), axis_size=2, state_to_exclude=filters.PathContains("bais")
        )


def test_of_states_that_a_function_makes(seeded):
    @sb.nn.vmap_new_states(axis_size=3, state_to_exclude="frozen")
    def build():
        return sb.nn.ParamState(jnp.zeros(2)).value

    with pytest.warns(UserWarning, match="nothing has the tag 'frozen'"):
        build()


def _nnx():
    nnx = pytest.importorskip("flax.nnx")
    return nnx.Linear(2, 3, rngs=nnx.Rngs(0))


def _linen():
    return pytest.importorskip("flax.linen").Dense(3)


def _equinox():
    eqx = pytest.importorskip("equinox")
    return eqx.nn.Linear(2, 3, key=sb.random.next_key())


def _haiku():
    return pytest.importorskip("haiku").transform(lambda x: x)


MODELS = {"equinox": _equinox, "haiku": _haiku, "linen": _linen, "nnx": _nnx}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_other_frameworks_are_sent_to_their_adapter(seeded, name):
    model = MODELS[name]()
    for target in (model, [model]):
        with pytest.raises(TypeError, match=f"with seedbed.adapters.{name}.ensemble"):
            sb.nn.vmap_init_all_states(target, axis_size=3)
