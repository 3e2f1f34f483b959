"""Ensembles of frameworks' models on disk, and those that are never stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import as_words, assert_same_bits

pytest.importorskip("orbax.checkpoint")
pytest.importorskip("tensorstore")
pytestmark = pytest.mark.end("newest")

SIZE = 7
KEY = jax.random.key(5)
X = jnp.ones((1, 3))


def equinox(size=SIZE, **options):
    eqx = pytest.importorskip("equinox")
    return sb.adapters.equinox.ensemble(eqx.nn.MLP, size, **options), (3, 2, 8, 2)


def linen(size=SIZE, **options):
    nn = pytest.importorskip("flax.linen")
    boxed = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
    model = nn.Sequential([nn.Dense(4, kernel_init=boxed), nn.BatchNorm(False), nn.Dense(2)])
    return sb.adapters.linen.ensemble(model, size, **options), (X,)


def haiku(size=SIZE, **options):
    hk = pytest.importorskip("haiku")

    def model(x):
        return hk.BatchNorm(True, True, 0.9)(hk.Linear(2)(x), True)

    return sb.adapters.haiku.ensemble(hk.transform_with_state(model), size, **options), (X,)


def same(one, other):
    """Whether models are equal, with all that is static in them."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert type(a) is type(b)
        if isinstance(a, jax.Array):
            assert_same_bits(as_words(a), as_words(b))
        else:
            assert a == b


@pytest.mark.parametrize("framework", [equinox, linen, haiku])
def test_models_come_back_as_the_frameworks(framework, tmp_path):
    make, args = framework()
    path = tmp_path / "s"
    assert make.save(path, KEY, *args, chunk_size=2, part=(1, 2)) is None
    saved = make.save(path, KEY, *args, chunk_size=2, part=(0, 2))
    read = framework()[0].load(path, KEY, *args)
    lazy = make.lazy(KEY, *args)
    few = np.array([6, 0])
    for models in (saved, read, lazy):
        assert len(models) == models.size == SIZE
        same(models[3], make.member(KEY, 3, *args))
        same(models[-1], make.member(KEY, SIZE - 1, *args))
        same(models[2:5], make.members(KEY, slice(2, 5), *args))
        same(models[few], make.members(KEY, few, *args))
        same(models[:], make(KEY, *args))
        for i, model in enumerate(models):
            same(model, make.member(KEY, i, *args))
        starts = [(0, 3), (3, 6), (6, 7)]
        for (start, stop), piece in zip(starts, models.chunks(3), strict=True):
            same(piece, make.members(KEY, slice(start, stop), *args))
    assert "models of Saved" in repr(read) and "lazy models of ensemble(" in repr(lazy)
    read.arrays.verify(progress=False)


def test_a_model_that_was_read_runs(tmp_path):
    make, args = equinox()
    model = make.save(tmp_path / "s", KEY, *args)[4]
    assert_same_bits(model(jnp.ones(3)), make.member(KEY, 4, *args)(jnp.ones(3)))


def test_dictionaries_are_read_without_the_framework(tmp_path):
    make, args = haiku()
    make.save(tmp_path / "s", KEY, *args)
    params, state = make.member(KEY, 3, *args)
    same(sb.load(tmp_path / "s")[3], {"params": params, "state": state})


@pytest.mark.parametrize(
    ("framework", "shared"),
    [(equinox, lambda model: model.layers[0]), (linen, "batch_stats"), (haiku, "state")],
)
def test_what_members_share_is_made_again(framework, shared, tmp_path):
    make, args = framework(shared=shared)
    saved = make.save(tmp_path / "s", KEY, *args)
    assert len(saved.arrays.paths) < len(jax.tree.leaves(make.member(KEY, 0, *args)))
    for models in (saved, make.lazy(KEY, *args)):
        same(models[3], make.member(KEY, 3, *args))
        same(models[1:], make.members(KEY, slice(1, None), *args))


def test_mapped_arguments(tmp_path):
    eqx = pytest.importorskip("equinox")

    class Scaled(eqx.Module):
        weight: jax.Array
        name: str

        def __init__(self, key, scale, name):
            self.weight = jax.random.normal(key, (3,)) * scale
            self.name = name

    make = sb.adapters.equinox.ensemble(Scaled, SIZE, in_axes=(0, None))
    args = (jnp.arange(1.0, SIZE + 1), "a")
    saved = make.save(tmp_path / "s", KEY, *args, chunk_size=3)
    for models in (saved, make.lazy(KEY, *args)):
        same(models[3], make.member(KEY, 3, *args))
        assert models[3].name == "a"


def test_another_origin_is_refused(tmp_path):
    make, args = equinox()
    make.save(tmp_path / "s", KEY, *args)
    with pytest.raises(ValueError, match="`key` is threefry2x32 .0, 6., and the models at"):
        make.load(tmp_path / "s", jax.random.key(6), *args)
    with pytest.raises(ValueError, match="holds 7 members, and the ensemble has 8"):
        equinox(8)[0].load(tmp_path / "s", KEY, *args)
    with pytest.raises(ValueError, match=r"'layers.0.weight' is float32 of shape \(9, 3\)"):
        make.load(tmp_path / "s", KEY, 3, 2, 9, 2)
    with pytest.raises(ValueError, match="not of the structure that was saved"):
        make.load(tmp_path / "s", KEY, 3, 2, 8, 3)
    with pytest.raises(FileExistsError, match="key was"):
        make.save(tmp_path / "s", jax.random.key(6), *args)
    with pytest.raises(FileNotFoundError):
        make.load(tmp_path / "none", KEY, *args)
    with pytest.raises(IndexError):
        make.load(tmp_path / "s", KEY, *args)[SIZE]


# --- frameworks whose models are objects ------------------------------------------------


def nnx_net():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, width, *, rngs):
            self.linear = nnx.Linear(3, width, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.norm = nnx.BatchNorm(width, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.linear(x))

    def same(one, other):
        (graph, state), (other_graph, others) = nnx.split(one), nnx.split(other)
        assert graph == other_graph
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(others), strict=True):
            assert_same_bits(as_words(a), as_words(b))

    return Net, nnx, same


def test_modules_of_nnx(tmp_path):
    net, nnx, same = nnx_net()
    make = sb.adapters.nnx.ensemble(net, SIZE)
    rngs = nnx.Rngs(0, dropout=1)
    assert make.save(tmp_path / "s", rngs, 4, chunk_size=2, part=(1, 2)) is None
    saved = make.save(tmp_path / "s", rngs, 4, chunk_size=2, part=(0, 2))
    assert rngs.default.count.get_value() == 0  # they stay as they are
    read = sb.adapters.nnx.ensemble(net, SIZE).load(tmp_path / "s", nnx.Rngs(0, dropout=1), 4)
    for models in (saved, read):
        assert models.size == SIZE
        same(models[3], make.member(rngs, 3, 4))
        same(models[1:3], make.members(rngs, slice(1, 3), 4))
    same(read[:], make(nnx.Rngs(0, dropout=1), 4))
    assert [one(jnp.ones((2, 3))).shape for one in read] == [(2, 4)] * SIZE
    with pytest.raises(ValueError, match="`key` is .*and the models at .* were made of"):
        make.load(tmp_path / "s", nnx.Rngs(7, dropout=1), 4)
    with pytest.raises(ValueError, match=r"'linear.bias.*' is float32 of shape \(5,\) in each"):
        make.load(tmp_path / "s", rngs, 5)
    with pytest.raises(NotImplementedError, match="ensembles of nnx have no `lazy`: use `member`"):
        make.lazy(rngs, 4)


def test_modules_of_brainstate(tmp_path):
    brainstate = pytest.importorskip("brainstate")
    adapter = sb.adapters.brainstate

    def net(width=6):
        return brainstate.nn.Sequential(
            brainstate.nn.Linear(2, width), brainstate.nn.Linear(width, 1)
        )

    def held(module):
        return {path: state.value for path, state in module.states().items()}

    make = adapter.ensemble(net, SIZE)
    nets = make(3)
    saved = sb.nn.save_members(nets, tmp_path / "s", chunk_size=2)
    assert saved.size == SIZE
    assert_same_bits(held(sb.nn.load_members(net(), tmp_path / "s")), held(nets))
    assert_same_bits(held(adapter.load_members(net(), tmp_path / "s", 5)), held(make.member(3, 5)))
    few = adapter.load_members(net(), tmp_path / "s", [6, 0])
    assert_same_bits(held(few), held(make.members(3, [6, 0])))

    other = net(7)
    before = held(other)
    with pytest.raises(ValueError, match=r"the state '.*' is float32 of shape \(7,\), and a"):
        sb.nn.load_members(other, tmp_path / "s")
    with pytest.raises(ValueError, match="holds the state '.*', which the other lacks; `states=`"):
        sb.nn.load_members(brainstate.nn.Linear(2, 6), tmp_path / "s")
    with pytest.raises(IndexError, match="`index` is 7, out of range"):
        sb.nn.load_members(net(), tmp_path / "s", 7)
    after = jax.tree.leaves(held(other))
    assert all(a is b for a, b in zip(after, jax.tree.leaves(before), strict=True))
    with pytest.raises(ValueError, match="not made on their way to disk; got axis_size=3"):
        sb.nn.save_members(nets, tmp_path / "t", axis_size=3)
    assert not (tmp_path / "t").exists()
