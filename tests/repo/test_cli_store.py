"""`seedbed init`, `show` and `verify`: ensembles on disk from the command line."""

from __future__ import annotations

import sys

import jax
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from seedbed.__main__ import main
from seedbed._store import progress
from seedbed.cli import _stores, _target

pytestmark = pytest.mark.end("newest")

PNG = b"\x89PNG\r\n\x1a\n"
MODELS = """
import jax
import jax.numpy as jnp
import seedbed as sb


def mlp(key, scale=1.0, shift=None):
    w, b, c = jax.random.split(key, 3)
    leaf = scale * jax.random.normal(w, (8, 4)) + (0 if shift is None else shift["by"][None])
    return {"w": leaf, "b": jnp.zeros(4), "c": jax.random.bernoulli(c, 0.5, (3,)), "key": b}


def broken(key):
    return helper(key)


def helper(key):
    raise ZeroDivisionError("of the model")


def module():
    return sb.nn.Linear(3, 2)


def nothing():
    return 3


linear = sb.nn.Linear(2, 2)
ensemble = sb.ensemble(mlp, 3)
number = 5
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "store_models.py").write_text(MODELS)
    (folder / "store_fails.py").write_text("import no_such_module_anywhere\n")
    return folder


@pytest.fixture
def here(models, monkeypatch):
    """In the folder of the models, which Python finds as `python -m` does."""
    monkeypatch.chdir(models)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(models))])
    return models


@pytest.fixture
def init(here, tmp_path):
    def run(target, *arguments, members=10, out=tmp_path / "store"):
        command = ["init", target, "--members", str(members), "--seed", "5", "--out", str(out)]
        return main([*command, *map(str, arguments)])

    return run


@pytest.fixture
def store(init, tmp_path, capsys):
    assert init("store_models:mlp", "--chunk", 4) == 0
    capsys.readouterr()
    return tmp_path / "store"


# --- init ---------------------------------------------------------------------------------


def test_init_makes_what_the_function_makes_and_once(init, tmp_path, capsys):
    arguments = [
        "store_models:mlp",
        "--chunk",
        "4",
        "--args",
        "0.5",
        "{'by': [1.0, 2.0, 3.0, 4.0]}",
    ]
    assert init(*arguments) == 0
    out = capsys.readouterr().out
    assert "10 members of store_models:mlp, seed 5" in out
    assert "4 arrays, of float32[4], bool[3], key<fry>[], float32[8, 4]" in out
    assert "all 10 members are there" in out
    import store_models

    shift = {"by": jax.numpy.array([1.0, 2.0, 3.0, 4.0])}
    expected = sb.ensemble(store_models.mlp, 10)(jax.random.key(5), 0.5, shift)
    assert_same_bits(sb.load(tmp_path / "store")[:], expected, weak=False)
    assert init(*arguments) == 0
    assert "all 10 members were there already" in capsys.readouterr().out


def test_init_goes_on_where_ctrl_c_ended_it(init, tmp_path, capsys, monkeypatch):
    advance, told = progress.Bar.advance, []

    def interrupted(self, members):
        told.append(members)
        if len(told) == 2:
            raise KeyboardInterrupt
        advance(self, members)

    monkeypatch.setattr(progress.Bar, "advance", interrupted)
    assert init("store_models:mlp", "--chunk", 3) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    monkeypatch.setattr(progress.Bar, "advance", advance)
    assert main(["show", str(tmp_path / "store")]) == 0
    found = _stores.opened(tmp_path / "store")
    assert 3 <= found.members < 10 and not found.whole
    assert f"UNFINISHED: {found.members} members" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "store")]) == 1
    assert "unfinished" in capsys.readouterr().err
    assert init("store_models:mlp", "--chunk", 3) == 0
    assert f"{found.members} members are there already" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "store")]) == 0


def test_init_refuses_another_ensemble_and_overwrites_when_told(init, store, capsys):
    before = sb.load(store)[0]
    assert init("store_models:mlp", "--chunk", 4, "--args", "2.0") == 1
    err = capsys.readouterr().err
    assert "holds another ensemble: init was mlp" in err and "--overwrite replaces it" in err
    assert init("store_models:mlp", "--chunk", 4, "--args", "2.0", "--overwrite") == 0
    assert_same_bits(sb.load(store)[0]["w"], 2 * before["w"])


def test_parts_are_made_one_by_one(init, tmp_path, capsys):
    assert init("store_models:mlp", "--chunk", 2, "--part", "1/2") == 0
    assert "part 1 of 2 is there" in capsys.readouterr().out
    assert not (tmp_path / "store").exists()
    assert init("store_models:mlp", "--chunk", 2, "--part", "0/2") == 0
    assert "all 10 members are there" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["store_models:linear", "store_models:module"])
def test_module_trees_are_taken(target, init, tmp_path):
    assert init(target) == 0
    assert sb.load(tmp_path / "store").paths == ("bias", "weight")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("store_models", "package.module:function"),
        ("store_models:", "package.module:function"),
        ("store_models.py:mlp", "store_models:function, seen from"),
        ("store_modles:mlp", "there is no module 'store_modles'; looked for it in"),
        ("store_models:mpl", "store_models has no 'mpl'; did you mean mlp?"),
        ("store_models:zzz", "it has broken, helper, mlp, module, nothing"),
        ("store_models:number", "is 5 of type int, and no function"),
        ("store_models:nothing", "takes no arguments and returns int"),
        ("store_models:ensemble", "is an ensemble already"),
    ],
)
def test_targets_that_are_none_say_why(target, message, init, capsys, tmp_path):
    assert init(target) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_frameworks_model_is_told_from_a_function(here, monkeypatch):
    equinox = pytest.importorskip("equinox")
    import store_models

    monkeypatch.setattr(store_models, "number", equinox.nn.MLP, raising=False)
    with pytest.raises(_target.Unusable, match="is a model of equinox"):
        _target.resolve("store_models:number", ())
    wrapped = equinox.filter_jit(store_models.mlp)
    monkeypatch.setattr(store_models, "number", wrapped)
    assert _target.resolve("store_models:number", ())[0] is wrapped


@pytest.mark.parametrize(
    ("target", "shown", "hidden"),
    [
        ("store_models:broken", "in helper\n", "seedbed/_"),
        ("store_fails:x", "No module named 'no_such_module_anywhere'", "importlib"),
    ],
)
def test_what_the_users_code_raises_keeps_its_traceback(target, shown, hidden, init, capsys):
    assert init(target) == 1
    err = capsys.readouterr().err
    assert shown in err and f"{target} raised the above" in err
    assert hidden not in err and "JAX_TRACEBACK" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--args", "w"], "--args: 'w' is no Python literal"),
        (["--args", "'text'"], "of type str is no number"),
        (["--args", "[1, [2]]"], "--args: '[1, [2]]'"),
        (["--args", "1", "None", "3"], "too many positional arguments"),
        (["--chunk", "11"], "--chunk must be at most"),
        (["--seed", "9" * 30], "--seed: 9999"),
    ],
)
def test_init_refuses_before_any_work(arguments, message, init, capsys, tmp_path):
    assert init("store_models:mlp", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["2/2", "-1/2", "1", "a/b", "1/0"])
def test_parts_that_are_none(part, init, capsys):
    with pytest.raises(SystemExit) as stopped:
        init("store_models:mlp", f"--part={part}")
    assert stopped.value.code == 2
    assert "is not I/N" in capsys.readouterr().err


def test_without_the_extra_the_error_names_it(init, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    assert init("store_models:mlp") == 1
    assert "seedbed[save]" in capsys.readouterr().err


# --- show and verify ----------------------------------------------------------------------


def test_show_says_what_is_there(store, capsys):
    assert main(["show", str(store)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for text in ("10 members", "3 chunks of 4 members", "threefry2x32 [0, 5]", "whole"):
        assert text in out
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert "(8, 4)" in rows["w"] and "128 bytes" in rows["w"] and "()" in rows["key"]
    w = np.asarray(sb.load(store)[:]["w"], np.float64)
    assert rows["w"].split()[-4:] == [f"{x:.4g}" for x in (w.mean(), w.std(), w.min(), w.max())]
    assert main(["show", str(store), "--leaf", "['c']"]) == 0
    out = capsys.readouterr().out
    assert "(3,)" in out and "(8, 4)" not in out


def test_samples_come_from_the_whole():
    for size, count in [(10, 64), (1000, 64), (1000, 7), (65, 64), (10**9, 256)]:
        runs = _stores._runs(size, count)
        assert sum(stop - start for start, stop in runs) == min(size, count)
        assert runs[0][0] == 0 and runs[-1][1] == size
        assert all(a[1] <= b[0] for a, b in zip(runs, runs[1:], strict=False))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--leaf", "v"], 2, "there is no leaf 'v'; there are"),
        (["--plot", "x.pdf"], 2, "does not end in .png"),
        (["--plot", "/no/such/folder/x.png"], 2, "no folder /no/such/folder"),
        (["--plot", "x.png", "--leaf", "key"], 2, "no leaves of numbers"),
    ],
)
def test_show_refuses(arguments, code, message, store, capsys):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    assert main(["show", str(store), *arguments]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "verify"])
def test_what_is_no_store_is_an_error(command, capsys, tmp_path):
    for folder, message in ((tmp_path / "none", "does not exist"), (tmp_path, "seedbed.json")):
        assert main([command, str(folder)]) == 1
        assert message in capsys.readouterr().err


def test_a_picture_without_matplotlib_is_an_error(store, capsys, monkeypatch):
    for name in ("matplotlib", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "seedbed.cli._leaves", raising=False)
    monkeypatch.delattr("seedbed.cli._leaves", raising=False)
    assert main(["show", str(store), "--plot", str(store.with_name("x.png"))]) == 1
    assert "pip install matplotlib" in capsys.readouterr().err


@pytest.mark.parametrize("leaves", [1, 8, 60])
def test_pictures_of_few_and_of_many_leaves(leaves, tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    from matplotlib import image

    from seedbed.cli import _leaves

    random = np.random.default_rng(0)
    made = [random.normal(size=(40, 30)), np.zeros((40, 3)), random.integers(0, 2, (40, 5)) * 1.0]
    made += [random.standard_cauchy((40, 9)), np.full((40, 2), np.nan), made[0] * 1e-9]
    cards = [
        _leaves.Card(f"leaf{i}." + "long" * (i % 30), "float32", (3,), made[i % len(made)])
        for i in range(min(leaves, _leaves.MOST))
    ]
    _leaves.draw(tmp_path / "x.png", "a title", "about it", cards, max(leaves - _leaves.MOST, 0))
    assert (tmp_path / "x.png").read_bytes().startswith(PNG)
    pixels = image.imread(tmp_path / "x.png")
    assert pixels.shape[1] == 1950 and pixels[..., :3].std() > 0.05


def test_show_draws(store, capsys, tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    assert main(["show", str(store), "--plot", str(tmp_path / "x.png")]) == 0
    assert "picture: " in capsys.readouterr().out
    assert (tmp_path / "x.png").read_bytes().startswith(PNG)


def test_verify_finds_one_bit(store, capsys):
    assert main(["verify", str(store)]) == 0
    assert "all 10 members" in capsys.readouterr().out
    (file,) = (store / "w").glob("c.1*")
    data = bytearray(file.read_bytes())
    data[7] ^= 1
    file.write_bytes(data)
    assert main(["verify", str(store)]) == 1
    err = capsys.readouterr().err
    assert "seedbed verify: " in err and "['w']" in err
