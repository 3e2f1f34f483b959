"""What the matcher recognises: each form as a native draw with the right key path."""

import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import key_paths, plan_of, sources
from models import MODELS, RANDOM_LEAVES
from seedbed._jax import ask_xla

pytestmark = pytest.mark.shared

uniform, normal, bits = jax.random.uniform, jax.random.normal, jax.random.bits
I = jax.nn.initializers  # noqa: E741 - the name the field uses


def only(plan):
    """The single draw of a plan that consists of it."""
    (output,), (draw,) = plan.outputs, plan.draws
    assert plan.native == (output,) and not plan.steps
    return draw


DRAWS = {
    "bits8": (lambda key: bits(key, (6,), jnp.uint8), "bits8"),
    "bits16": (lambda key: bits(key, (6,), jnp.uint16), "bits16"),
    "bits32": (lambda key: bits(key, (6,)), "bits32"),
    "uniform": (lambda key: uniform(key, (6,)), "uniform [0, 1)"),
    "uniform range": (
        lambda key: uniform(key, (6,), minval=-0.5, maxval=2.0),
        "uniform [-0.5, 2)",
    ),
    "uniform scaled": (lambda key: 0.25 * uniform(key, (6,)), "uniform [0, 1) * 0.25"),
    "uniform shifted": (lambda key: uniform(key, (6,)) - 0.5, "uniform [0, 1) + -0.5"),
    "normal": (lambda key: normal(key, (6,)), "normal"),
    "normal scaled": (lambda key: 0.02 * normal(key, (6,)), "normal * 0.02"),
    "normal divided": (lambda key: normal(key, (6,)) / 4.0, "normal * 0.25"),
    "normal affine": (lambda key: 0.02 * normal(key, (6,)) + 1.5, "normal * 0.02 + 1.5"),
    "initializer": (lambda key: I.normal(0.02)(key, (6, 7)), "normal * 0.02"),
    "truncated": (
        lambda key: jax.random.truncated_normal(key, -2.0, 2.0, (6,)),
        "truncated_normal [-2, 2]",
    ),
    "lecun": (lambda key: I.lecun_normal()(key, (4, 7)), "truncated_normal [-2, 2] * 0.568424"),
    "glorot": (lambda key: I.glorot_uniform()(key, (3, 3)), "uniform [-1, 1)"),
    "bernoulli": (lambda key: jax.random.bernoulli(key, 0.25, (6,)), "bernoulli p=0.25"),
    "randint": (lambda key: jax.random.randint(key, (6,), -3, 9), "randint [-3, 9)"),
    "randint8": (
        lambda key: jax.random.randint(key, (6,), -3, 9, jnp.int8),
        "randint [-3, 9)",
    ),
    "bfloat16": (lambda key: normal(key, (6,), jnp.bfloat16), "table of 256 values"),
    "float16": (lambda key: uniform(key, (6,), jnp.float16), "table of 1024 values"),
    "narrow initializer": (
        lambda key: I.he_normal(dtype=jnp.bfloat16)(key, (6, 7)),
        "table of 256 values",
    ),
    "reshaped": (lambda key: normal(key, (6, 4)).reshape(3, 1, 8), "normal"),
    "squeezed": (lambda key: normal(key, (1, 6))[0], "normal"),
    "widened": (lambda key: normal(key, (6,))[None, :, None], "normal"),
    "stopped": (lambda key: jax.lax.stop_gradient(normal(key, (6,))), "normal"),
    "jitted": (lambda key: jax.jit(jax.jit(lambda key: normal(key, (6,))))(key), "normal"),
    "rematerialised": (jax.checkpoint(lambda key: normal(key, (6,))), "normal"),
    "key": (lambda key: jax.random.fold_in(key, 1), "key"),
}


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey], ids=["typed", "legacy"])
@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_recognised(name, make):
    init, text = DRAWS[name]
    plan = plan_of(init, make(0))
    assert list(sources(plan).values()) == [text]
    draw = only(plan)
    (output,) = plan.outputs
    assert draw.shape == (output.shape if name != "key" else (2,))


def test_draws_are_recognised_with_x64():
    with jax.enable_x64(True):
        for init, text in [
            (lambda key: bits(key, (6,), jnp.uint64), "bits64"),
            (lambda key: uniform(key, (6,), minval=-1.0), "uniform [-1, 1)"),
            (lambda key: jax.random.bernoulli(key, 0.25, (6,)), "bernoulli p=0.25"),
            (lambda key: jax.random.randint(key, (6,), -3, 9), "randint [-3, 9)"),
            (lambda key: normal(key, (6,)) * 0.5 + 1.5, "normal * 0.5 + 1.5"),
            # XLA rounds all of these alike, also where it unrolls the innermost loop.
            (lambda key: normal(key, (6, 3)), "normal"),
            (lambda key: I.lecun_normal()(key, (4, 7)), "truncated_normal [-2, 2] * 0.568424"),
        ]:
            assert list(sources(plan_of(init)).values()) == [text]


KEYS = {
    "itself": (lambda key: key, "key"),
    "split": (lambda key: jax.random.split(key)[1], "key/1"),
    "negative index": (lambda key: jax.random.split(key, 5)[-2], "key/3"),
    "unpacked": (lambda key: [*jax.random.split(key, 3)][2], "key/2"),
    "chain": (lambda key: jax.random.split(jax.random.split(key)[0])[1], "key/0/1"),
    "fold": (lambda key: jax.random.fold_in(key, 7), "key/7"),
    "folds": (
        lambda key: jax.random.fold_in(jax.random.fold_in(key, 7), 2**32 - 1),
        "key/7/4294967295",
    ),
    "shaped split": (lambda key: jax.random.split(key, (2, 3))[1, 2], "key/5"),
    "reshaped": (lambda key: jax.random.split(key, 6).reshape(2, 3, *key.shape)[1, 0], "key/3"),
    "sliced": (lambda key: jax.random.split(key, 6)[1:6:2][1], "key/3"),
    "flipped": (lambda key: jnp.flip(jax.random.split(key, 6), 0)[1], "key/4"),
    "index array": (lambda key: jax.random.split(key, 6)[jnp.array([4, 2])][1], "key/2"),
    "dynamic index": (lambda key: jax.random.split(key, 6)[jnp.asarray(4)], "key/4"),
    "rewrapped": (
        lambda key: jax.random.wrap_key_data(
            jax.random.key_data(jax.random.wrap_key_data(key) if key.shape else key)
        ),
        "key",
    ),
    "clone": (lambda key: jax.random.clone(key), "key"),
}


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey], ids=["typed", "legacy"])
@pytest.mark.parametrize("name", KEYS)
def test_key_paths(name, make):
    reach, path = KEYS[name]
    plan = plan_of(lambda key: bits(reach(key), (6,)), make(0))
    assert only(plan).key.batch == ()
    assert list(key_paths(plan).values()) == [path]


STACKS = {
    "vmap": (lambda draw, key: jax.vmap(draw)(jax.random.split(key, 3)), "key/i", (3,)),
    "nested vmap": (
        lambda draw, key: jax.vmap(jax.vmap(draw))(jax.random.split(key, (2, 3))),
        "key/3*i+j",
        (2, 3),
    ),
    "split in vmap": (
        lambda draw, key: jax.vmap(lambda key: draw(jax.random.split(key)[1]))(
            jax.random.split(key, 3)
        ),
        "key/i/1",
        (3,),
    ),
    "vmap in vmap": (
        lambda draw, key: jax.vmap(lambda key: jax.vmap(draw)(jax.random.split(key, 2)))(
            jax.random.split(key, 3)
        ),
        "key/i/j",
        (3, 2),
    ),
    "part of a stack": (
        lambda draw, key: jax.vmap(draw)(jax.random.split(key, 7)[1:7:2]),
        "key/1+2*i",
        (3,),
    ),
    "numbered": (
        lambda draw, key: jax.vmap(lambda i: draw(jax.random.fold_in(key, i)))(
            jnp.arange(3) * 10 + 5
        ),
        "key/5+10*i",
        (3,),
    ),
    "numbered twice": (
        lambda draw, key: jax.vmap(
            lambda i: jax.vmap(lambda j: draw(jax.random.fold_in(jax.random.fold_in(key, i), j)))(
                jnp.arange(2)
            )
        )(jnp.arange(3)),
        "key/i/j",
        (3, 2),
    ),
}


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey], ids=["typed", "legacy"])
@pytest.mark.parametrize("name", STACKS)
def test_stacked_keys(name, make):
    stack, path, batch = STACKS[name]
    plan = plan_of(lambda key: stack(lambda key: normal(key, (6,)), key), make(0))
    draw = only(plan)
    assert (str(draw.key), draw.key.batch, draw.inner) == (path, batch, 6)
    assert plan.outputs[0].shape == (*batch, 6)


@pytest.mark.parametrize("model", MODELS)
def test_every_random_leaf_of_a_model_is_native(model):
    if model != "none":
        pytest.importorskip(model)
    plan = plan_of(MODELS[model])
    assert len(plan.draws) == len(plan.native) == RANDOM_LEAVES[model]
    assert not plan.steps
    others = [output.why for output in plan.outputs if output not in plan.native]
    assert set(others) <= {"native: constant"}


def test_the_table_of_a_model():
    pytest.importorskip("equinox")
    plan = plan_of(MODELS["equinox"])
    assert plan.explain() == textwrap.dedent(
        """\
        output             draw                           shape     dtype    key path  made by
        -----------------  -----------------------------  --------  -------  --------  -------
        .layers[0].weight  uniform [-0.408248, 0.408248)  (16, 6)   float32  key/0/0   native
        .layers[0].bias    uniform [-0.408248, 0.408248)  (16,)     float32  key/0/1   native
        .layers[1].weight  uniform [-0.25, 0.25)          (16, 16)  float32  key/1/0   native
        .layers[1].bias    uniform [-0.25, 0.25)          (16,)     float32  key/1/1   native
        .layers[2].weight  uniform [-0.25, 0.25)          (2, 16)   float32  key/2/0   native
        .layers[2].bias    uniform [-0.25, 0.25)          (2,)      float32  key/2/1   native

        6 draws in one custom call; 6 of 6 outputs written by it, 0 equations left to XLA; \
1,672 bytes a member"""
    )


RESIDUAL = {
    # name: init, the draws that feed it, the equation that makes the result
    "transposed": (lambda key: normal(key, (6, 7)).T, ["normal"], "transpose"),
    "cast": (lambda key: normal(key, (6,)).astype(jnp.bfloat16), 1, "convert_element_type"),
    "orthogonal": (lambda key: I.orthogonal()(key, (6, 6)), ["normal"], "mul"),
    "rayleigh": (lambda key: jax.random.rayleigh(key, 1.0, (60,)), ["uniform [0, 1)"], "mul"),
    "short": (lambda key: jax.random.rayleigh(key, 1.0, (6,)), ["bits32", "constant"], "mul"),
    "summed": (lambda key: normal(key, (6,)).sum(), 1, "reduce_sum"),
    "joined": (
        lambda key: jnp.concatenate([bits(key, (2,)), bits(jax.random.fold_in(key, 1), (3,))]),
        ["bits32", "bits32"],
        "concatenate",
    ),
}


@pytest.mark.parametrize("name", RESIDUAL)
def test_what_follows_a_draw_stays_in_xla(name):
    init, draws, equation = RESIDUAL[name]
    plan = plan_of(init)
    (output,) = plan.outputs
    assert output.why.startswith(f"XLA: {equation} of draw 0") and plan.steps
    assert not plan.native
    if isinstance(draws, list):
        assert sorted({str(draw).split(" *")[0] for draw in plan.draws}) == sorted(set(draws))
    else:
        assert len(plan.draws) == draws


UNKNOWN = {
    "loop": lambda key: jax.lax.scan(
        lambda seed, _: (bits(jax.random.fold_in(key, seed)), seed), bits(key), None, length=2
    )[1],
    "branch": lambda key: jax.lax.cond(bits(key) > 5, lambda: bits(key), lambda: bits(key) + 1),
    "while": lambda key: jax.lax.while_loop(
        lambda carry: carry[1] > 2**30, lambda carry: (carry[0], bits(carry[0])), (key, bits(key))
    )[1],
    "shuffle": lambda key: jax.random.permutation(key, 6),
    "gamma": lambda key: jax.random.gamma(key, 2.0, (2,)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_control_flow_stays_in_xla(name):
    plan = plan_of(UNKNOWN[name])
    assert not plan.native and plan.steps
    assert plan.outputs[0].why.startswith("XLA: ")


def test_traced_parameters_leave_the_draw_native(key):
    plan = plan_of(lambda key, scale: scale * normal(key, (6,)), key, 0.5)
    assert [draw.kind.name for draw in plan.draws] == ["NORMAL"]
    assert plan.outputs[0].why == "XLA: mul of draw 0"
    plan = plan_of(lambda key, high: uniform(key, (60,), maxval=high), key, 0.5)
    assert [draw.kind.name for draw in plan.draws] == ["BITS"] or str(plan.draws[0]).startswith(
        "uniform"
    )
    plan = plan_of(lambda key, i: bits(jax.random.fold_in(key, i)), key, 3)
    assert "reference: " in plan.outputs[0].why and "not recognised" in plan.outputs[0].why


def test_random_functions_of_other_key_types_stay_in_xla():
    # A key of another cipher inside an init: its words must not be read as threefry's.
    def init(key):
        other = jax.random.key(3, impl="rbg")
        seeded = jax.random.wrap_key_data(jnp.tile(jax.random.key_data(key), 2), impl="rbg")
        return normal(key, (6,)), bits(other, (6,)), bits(seeded, (6,))

    plan = plan_of(init)
    assert [output.path for output in plan.native] == ["[0]"]
    assert len(plan.draws) == 2 and str(plan.draws[1]) == "key"


def test_custom_derivatives_are_kept():
    # To open them would change what gradients of the result mean.
    @jax.custom_jvp
    def sample(key):
        return normal(key, (6,))

    sample.defjvp(lambda primals, tangents: (sample(*primals), jnp.zeros(6)))
    plan = plan_of(sample)
    assert [step.eqn.primitive.name for step in plan.steps] == ["custom_jvp_call"]
    assert str(plan.draws[0]) == "key" and "not recognised" in plan.outputs[0].why
    plan = plan_of(lambda key: jax.nn.relu(normal(key, (6,))))
    assert [step.eqn.primitive.name for step in plan.steps][-1] == "custom_jvp_call"


def test_equal_draws_are_made_once(key):
    plan = plan_of(lambda key: [normal(key, (6,)), {"again": normal(key, (6,))}])
    assert len(plan.draws) == 1 and len(plan.native) == 2


def test_dead_draws_are_not_made():
    def init(key):
        normal(key, (1000,))
        return bits(key)

    assert str(only(plan_of(init))) == "bits32"


def test_forward_passes_are_dropped():
    # linen and haiku trace the whole network to find the shapes.
    def init(key):
        w = normal(key, (6, 6))
        _ = jnp.linalg.svd(w @ w)
        return w

    assert str(only(plan_of(init))) == "normal"


def test_a_zero_mean_and_a_unit_scale_are_no_arithmetic():
    # As brainstate writes a truncated normal.
    def init(key):
        low, high = jnp.nextafter(-2.0, jnp.inf), jnp.nextafter(2.0, -jnp.inf)
        u = uniform(key, (6,), minval=-0.9544997, maxval=0.9544997)
        x = jax.lax.erf_inv(u) * 1.0 * jnp.float32(1.4142135) + 0.0
        return jnp.minimum(high, jnp.maximum(low, x)) * 0.2

    assert str(only(plan_of(init))) == "truncated_normal [-2, 2] * 0.2"


@pytest.mark.parametrize("width", [2, 3, 5, 6])
def test_normals_that_xla_rounds_by_its_loop_are_left_to_it(width, monkeypatch):
    monkeypatch.setattr(ask_xla, "flat_rows", lambda: False)

    def init(key):
        return normal(key, (7, width)) * 0.1, uniform(jax.random.split(key)[0], (7, width))

    plan = plan_of(init)
    kinds = sorted(str(draw).split(" ")[0] for draw in plan.draws)
    left = width in (3, 5)
    assert kinds == (["bits32", "constant", "uniform"] if left else ["normal", "uniform"])
    assert plan.outputs[1].why == "native"


LOOKALIKES = {
    # Almost a uniform, almost a normal, almost an integer: none of them may be taken for one.
    "other shift": lambda key: jax.lax.shift_right_logical(bits(key, (6,)), jnp.uint32(8)),
    "other exponent": lambda key: (
        jax.lax.bitcast_convert_type((bits(key, (6,)) >> 9) | jnp.uint32(0x40000000), jnp.float32)
        - 2.0
    ),
    "other bound": lambda key: jnp.maximum(0.25, uniform(key, (6,)) * 2.0 + 0.5),
    "remainder": lambda key: bits(key, (6,)) % jnp.uint32(7),
    "remainders of one key": lambda key: (
        ((bits(key, (6,)) % jnp.uint32(7)) * jnp.uint32(4) + bits(key, (6,)) % jnp.uint32(7))
        % jnp.uint32(7)
    ),
    "remainders swapped": lambda key: (
        (
            (bits(jax.random.split(key)[1], (6,)) % jnp.uint32(7)) * jnp.uint32(4)
            + bits(jax.random.split(key)[0], (6,)) % jnp.uint32(7)
        )
        % jnp.uint32(7)
    ),
    "signed shift": lambda key: bits(key, (6,)).astype(jnp.int32) >> 9,
    "greater": lambda key: uniform(key, (6,)) > 0.25,
    "at most": lambda key: uniform(key, (6,)) <= 0.25,
    "erf_inv of a half": lambda key: jax.scipy.special.erfinv(uniform(key, (6,)) * 0.5),
    "reversed": lambda key: 0.25 < uniform(key, (6,)),
    "scaled after shift": lambda key: (uniform(key, (6,)) + 0.1) * 0.3,
    "minus": lambda key: 1.0 - uniform(key, (6,)),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_lookalikes_are_computed_as_written(name, key):
    import seedbed as sb
    from helpers import assert_same_bits, oracle

    init = LOOKALIKES[name]
    assert_same_bits(sb.ensemble(init, 5)(key), oracle(init, 5, key))


def test_index_arrays_are_followed_exactly(key):
    # Indices that are not evenly spaced have no short form and stay residual.
    plan = plan_of(lambda key: jax.random.key_data(jax.random.split(key, 9)[np.array([0, 1, 5])]))
    assert not plan.native or key_paths(plan) != {"result": "key/i"}
