"""Ensembles, plans and functions of modules pickle, and make the same numbers somewhere else."""

import copy
import functools
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("brainstate")
pytest.importorskip("equinox")
pytest.importorskip("flax")
pytest.importorskip("haiku")

import equinox as eqx
import haiku as hk
from flax import linen

import seedbed as sb
from helpers import ROOT, as_words, assert_same_bits, run_python
from pickled import CASES, KEY, Cell, Net, Trainer, X, affine, arrays, jitted, small
from seedbed._base import pickling

pytestmark = [pytest.mark.shared, pytest.mark.reference("newest")]


def roundtrip(value):
    return pickle.loads(pickle.dumps(value))


def shown(value):
    """As text: functions and modules do not compare."""
    return re.sub("0x[0-9a-f]+", "", repr(value))


def options(make):
    """What an ensemble was made with."""
    hidden = ("_kept", "_prepared", "_direct", "_new_states", "_plan_of")
    return {name: shown(value) for name, value in vars(make).items() if name not in hidden}


WAYS = {"pickle": roundtrip, "deepcopy": copy.deepcopy, "copy": copy.copy}


@pytest.mark.parametrize("case", CASES)
def test_an_ensemble_pickles_before_and_after_it_is_used(case):
    build, args = CASES[case]
    make = build()
    fresh = {name: way(make) for name, way in WAYS.items()}
    want = arrays(make(*args))
    member = arrays(make.member(args[0], 2, *args[1:]))
    plan = make.plan(*args)
    for twin in (*fresh.values(), *(way(make) for way in WAYS.values())):
        assert type(twin) is type(make) and twin is not make and shown(twin) == shown(make)
        assert_same_bits(arrays(twin(*args)), want)
    twin = roundtrip(make)
    assert options(twin) == options(make)
    assert_same_bits(arrays(twin.member(args[0], 2, *args[1:])), member)
    assert_same_bits(arrays(roundtrip(make.member)(args[0], 2, *args[1:])), member)
    assert twin.plan(*args).explain() == plan.explain()


def test_a_spawned_process_makes_the_same_numbers(tmp_path):
    made, want = {}, {}
    for name, (build, args) in CASES.items():
        make = build()
        want[name] = arrays(make(*args))
        given = [np.asarray(jax.random.key_data(KEY)) if arg is KEY else arg for arg in args]
        made[name] = (make, given)
    made["sb.nn"] = (sb.nn.vmap_init_all_states(sb.nn.Linear(3, 2), axis_size=4), ())
    (tmp_path / "ensembles").write_bytes(pickle.dumps(made))
    run_python(
        f"""
        import pathlib, pickle, sys
        sys.path.insert(0, {str(ROOT / "tests/support")!r})
        path = pathlib.Path({str(tmp_path)!r})
        made = pickle.loads((path / "ensembles").read_bytes())
        import helpers, pickled
        module, _ = made.pop("sb.nn")
        found = {{"sb.nn": [helpers.as_words(state.value) for state in module.states().values()]}}
        for name, (make, args) in made.items():
            args = [pickled.KEY if getattr(arg, "dtype", None) == "uint32" else arg for arg in args]
            leaves = pickled.arrays(make(*args))
            found[name] = [helpers.as_words(leaf) for leaf in leaves]
        (path / "arrays").write_bytes(pickle.dumps(found))
        """
    )
    found = pickle.loads((tmp_path / "arrays").read_bytes())
    want["sb.nn"] = [state.value for state in made["sb.nn"][0].states().values()]
    for name, leaves in want.items():
        for one, two in zip(found[name], leaves, strict=True):
            np.testing.assert_array_equal(one, as_words(two))


SCRIPT = """
import copy, functools, pathlib, pickle, sys
sys.path.insert(0, {tests!r})
import haiku as hk, jax, numpy as np
import seedbed as sb
from pickled import KEY, X, arrays, by_value

class Scale:
    factor = 2.0

def init(key, w, scale):
    return w(key, (3,)) * scale.factor

@jax.jit
def jitted(key):
    return jax.random.uniform(key, (5,))

def through(key, function, w):
    return function(key), w(key, (2,))

def forward(x):
    return hk.Linear(3)(x)

@sb.nn.vmap
def decorated(x):
    return 2 * x

w = jax.nn.initializers.normal()
inits = dict(
    partial=functools.partial(init, w=w, scale=Scale),
    instance=functools.partial(init, w=w, scale=Scale()),
    jitted=jitted,
    inside=functools.partial(through, function=jitted, w=w),
    nested=functools.partial(through, function=sb.ensemble(jitted, 2), w=w),
)
made = {{name: sb.ensemble(function, 4) for name, function in inits.items()}}
made["haiku"] = sb.adapters.haiku.ensemble(hk.transform(forward), 4)
layer = sb.nn.Module()
layer.act = jitted
want = {{name: arrays(make(KEY, *[X][: name == "haiku"])) for name, make in made.items()}}
want = {{name: [np.asarray(leaf) for leaf in leaves] for name, leaves in want.items()}}
sent = {{name: by_value(value) for name, value in {{**made, "nn": (decorated, layer)}}.items()}}
pathlib.Path({path!r}).write_bytes(pickle.dumps((sent, want)))

# Processes that multiprocessing starts run the script too, and find all this by its names.
made["decorated"] = sb.ensemble(functools.partial(through, function=decorated, w=w), 4)
twins = pickle.loads(pickle.dumps(made))
assert twins["jitted"].init is jitted and twins["partial"].init.func is init
assert twins["partial"].init.keywords["scale"] is Scale
assert type(twins["instance"].init.keywords["scale"]) is Scale
assert twins["inside"].init.keywords["function"] is jitted
assert twins["nested"].init.keywords["function"].init is jitted
assert pickle.loads(pickle.dumps(decorated)) is decorated
assert twins["decorated"].init.keywords["function"] is decorated
assert pickle.loads(pickle.dumps(layer)).act is jitted and copy.deepcopy(layer).act is jitted
"""


def test_what_a_script_made_goes_by_value_where_its_pickler_does_and_else_by_name(tmp_path):
    path = tmp_path / "sent"
    run_python(SCRIPT.format(tests=str(ROOT / "tests/support"), path=str(path)))
    sent, want = pickle.loads(path.read_bytes())
    over, layer = pickle.loads(sent.pop("nn"))
    np.testing.assert_array_equal(over(jnp.arange(4.0)), 2 * np.arange(4.0))
    assert layer.act(KEY).shape == (5,)
    assert sent.keys() == want.keys()
    for name, data in sent.items():
        got = arrays(pickle.loads(data)(KEY, *[X][: name == "haiku"]))
        for one, two in zip(got, want[name], strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sb.ensemble(lambda key: small(key), 4),
        lambda: sb.adapters.equinox.ensemble(lambda key: eqx.nn.Linear(2, 3, key=key), 4),
        lambda: sb.adapters.haiku.ensemble(hk.transform(lambda x: hk.Linear(3)(x)), 4),
        lambda: sb.adapters.linen.ensemble(Net(), 4, shared=lambda path, leaf: False),
        lambda: sb.adapters.brainstate.ensemble(lambda: Cell(), 4),
    ],
)
def test_what_holds_a_lambda_is_pickles_own_error_and_can_be_copied(make):
    with pytest.raises((pickle.PicklingError, AttributeError), match="<lambda>|<locals>"):
        pickle.dumps(make())
    assert repr(copy.deepcopy(make())) == repr(make())


def test_what_is_pickled_beside_an_ensemble_stays_shared():
    trainer = Trainer(3)
    twin, make = roundtrip((trainer, trainer.make))
    assert twin.make is make and make.init.__self__ is twin
    assert_same_bits(make(KEY), trainer.make(KEY))


def test_an_ensemble_renews_its_own_memory_after_pickling():
    make = roundtrip(sb.ensemble(small, 4, donate=True))
    assert make.donate
    assert_same_bits(make(KEY, make(jax.random.key(1), plain()(KEY))), plain()(KEY))


def plain():
    return sb.ensemble(small, 4)


# --- what ensembles give ----------------------------------------------------------------


def test_a_pickled_plan_can_be_read():
    def init(key):
        return jax.random.orthogonal(key, 3), jnp.tanh(jax.random.normal(key, (3,))), key

    plan = sb.ensemble(init, 4).plan(KEY)
    assert plan.reference or plan.steps
    twin = roundtrip(plan)
    assert twin.explain() == plan.explain() and twin.summary() == plan.summary()
    assert (twin.draws, twin.outputs, twin.args) == (plan.draws, plan.outputs, plan.args)
    assert twin.out_tree == plan.out_tree and len(twin.steps) == len(plan.steps)
    assert twin == roundtrip(plan) and hash(twin) == hash(roundtrip(plan))
    assert copy.deepcopy(plan) is plan and copy.copy(plan) is plan
    for step, own in zip(twin.steps, plan.steps, strict=True):
        assert step.computation.text == str(own.eqn)
        with pytest.raises(TypeError, match="can be read, and not run"):
            step.eqn  # noqa: B018


def test_results_pickle():
    variables = sb.adapters.linen.ensemble(Net(), 4)(KEY, X)
    assert_same_bits(roundtrip(variables), variables)
    state = sb.adapters.haiku.ensemble(hk.transform_with_state(affine), 4)(KEY, X)
    assert_same_bits(roundtrip(state), state)
    module = sb.adapters.equinox.ensemble(eqx.nn.Linear, 4)(KEY, 2, 3)
    assert_same_bits(roundtrip(module), module)
    for forward in (sb.adapters.linen.forward, sb.adapters.haiku.forward, sb.adapters.nnx.forward):
        assert roundtrip(forward) is forward


@pytest.mark.parametrize(
    "chosen",
    [
        sb.filters.WithTag("a"),
        sb.filters.PathContains("a"),
        sb.filters.OfType(int),
        sb.filters.Any("a", sb.filters.Not("b")),
        sb.filters.All("a", ...),
        sb.filters.Everything(),
        sb.filters.Nothing(),
    ],
    ids=repr,
)
def test_filters_pickle(chosen):
    twin = roundtrip(chosen)
    assert repr(twin) == repr(chosen)
    assert sb.filters.to_predicate(twin)(("a",), 1) == sb.filters.to_predicate(chosen)(("a",), 1)


# --- functions of modules ---------------------------------------------------------------


@sb.nn.vmap
def decorated(net, x):
    return net(x)


@sb.nn.vmap_new_states(axis_size=4)
def building(x):
    return sb.nn.State(x).value


class Built(sb.nn.Module):
    @sb.nn.vmap_new_states(axis_size=4, in_axes=None)
    def build(self):
        return sb.nn.State(jax.random.normal(sb.random.next_key(), (3,))).value


def double(x):
    return 2 * x


def test_functions_over_members_pickle():
    net = sb.nn.vmap_init_all_states(sb.nn.Linear(3, 2), axis_size=4)
    over = sb.nn.vmap(net, in_axes=None)
    twin = roundtrip(over)
    assert_same_bits(twin(X[0]), over(X[0]))
    assert copy.deepcopy(over) is over and copy.copy(over) is over
    both, module = roundtrip((over, net))
    module.weight.value = jnp.zeros((4, 2, 3))  # the one that the function calls
    assert not np.asarray(both(X[0])).any()
    x = jnp.arange(4.0)
    for function in (sb.nn.vmap(double), sb.nn.vmap_new_states(double, in_axes=0)):
        assert_same_bits(roundtrip(function)(x), 2 * x)
        assert function.__name__ == "double" and "double" in repr(function)
    init = sb.nn.init_function(sb.nn.Linear(3, 2))
    assert_same_bits(roundtrip(init)(KEY), init(KEY))
    assert repr(sb.ensemble(init, 3)) == "ensemble(init_function.<locals>.init, 3)"


def test_decorated_functions_pickle_by_their_names():
    assert roundtrip(decorated) is decorated and roundtrip(building) is building
    assert decorated.__name__ == "decorated" and decorated.__module__ == __name__


def test_a_decorated_method_is_one():
    with sb.random.stream(KEY):
        got = Built().build()
    with sb.random.stream(KEY):
        want = sb.nn.vmap_new_states(Built.build.__wrapped__, axis_size=4, in_axes=None)
        assert_same_bits(got, want(Built()))


# --- how functions are found ------------------------------------------------------------


def test_makers_of_functions():
    value = linen.initializers.variance_scaling(2.0, "fan_in", "normal")
    module, name, arguments = pickling.maker_of(value)
    assert (module, name) == ("jax.nn.initializers", "variance_scaling")
    assert arguments["scale"] == 2.0 and arguments["mode"] == "fan_in"
    assert pickling.maker_of(small) is None and pickling.maker_of(len) is None
    assert pickling.maker_of(lambda: value) is None
    assert pickling.name_of(jax.nn.relu) == ("jax.nn", "relu")
    assert pickling.name_of(jitted) == ("pickled", "jitted")
    assert pickling.name_of(jax.jit(small)) is None
    assert pickling.name_of(functools.partial(small)) is None


def test_a_maker_that_makes_something_else_is_not_taken():
    value = jax.nn.initializers.constant(2.0)
    value.__defaults__ = (jnp.float16, None)
    module, name, arguments = pickling.maker_of(value)
    assert arguments["dtype"] is jnp.float16  # the default went with it
    value.__closure__[0].cell_contents = [3.0]
    assert pickling.alike(pickling.made(module, name, {**arguments, "value": [3.0]}), value)
    assert not pickling.alike(pickling.made(module, name, arguments), value)
