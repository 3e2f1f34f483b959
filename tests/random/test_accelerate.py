"""`seedbed.accelerate`: jax's own keys and programs, compiled to the native cipher and back."""

from __future__ import annotations

import concurrent.futures
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from jax.interpreters import mlir
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import keyed
from helpers import assert_same_bits, native_problem, run_python
from lines import At
from seedbed._jax import compat, lowering
from seedbed._random import accelerate as _accelerate
from seedbed._random import cipher
from seedbed._random.accelerate import accelerate
from seedbed._run import native as _native

pytestmark = pytest.mark.shared

KEY = jax.random.key(42)


def fresh(function):
    """A function that jax has not compiled before."""
    return jax.jit(lambda *args: function(*args))


def text(function, *args) -> str:
    return fresh(function).lower(*args).as_text()


def native_calls(function, *args) -> int:
    return text(function, *args).count("@seedbed_")


def table() -> dict:
    """The rules for the CPU and the common ones. (Jax adds others when it imports a module.)"""
    tables = mlir._platform_specific_lowerings["cpu"], mlir._lowerings
    primitives = compat.random_primitives.values()
    return {primitive: [table.get(primitive) for table in tables] for primitive in primitives}


def draw(key):
    return jax.random.bits(key, (7,))


@pytest.fixture(autouse=True)
def unchanged(monkeypatch):
    """Few words are enough for native code; every test leaves jax as it was."""
    monkeypatch.setattr(cipher, "MIN_WORDS", 0)
    before = table()
    yield
    assert not accelerate.is_active()
    assert table() == before


@pytest.mark.parametrize("name", keyed.PROGRAMS)
def test_programs(name):
    program = fresh(keyed.PROGRAMS[name])
    with jax.enable_x64(name == "uint64"), accelerate():
        assert ("@seedbed_" in program.lower(KEY).as_text()) == (not native_problem())
        got = program(KEY)
    assert_same_bits(got, keyed.expected(name))


def test_each_primitive_has_its_own_call(native):
    with accelerate():
        assert native_calls(draw, KEY) == 1
        assert native_calls(lambda key: jax.random.split(key, 3), KEY) == 1
        assert native_calls(lambda key: jax.random.fold_in(key, 3), KEY) == 1
        assert native_calls(lambda key: jax.random.bits(key, (0, 3)), KEY) == 0
        lowered = text(threefry_2x32, np.zeros(2, np.uint32), np.zeros(9, np.uint32))
        assert lowered.count(f"@{_native.CIPHER_TARGET}") == 1
    for use in (draw, lambda key: jax.random.split(key, 3), lambda key: jax.random.fold_in(key, 3)):
        assert native_calls(use, KEY) == 0


def test_a_few_words_are_left_to_jax(native, monkeypatch):
    monkeypatch.setattr(cipher, "MIN_WORDS", 10)
    with accelerate():
        for keys, size, calls in ((1, 9, 0), (1, 10, 1), (3, 3, 0), (5, 2, 1)):
            several = jax.random.split(KEY, keys)
            sized = functools.partial(jax.random.bits, shape=(size,))
            assert native_calls(jax.vmap(sized), several) == calls
        assert native_calls(lambda key: jax.random.split(key, 9), KEY) == 0
        assert native_calls(lambda key: jax.random.split(key, 10), KEY) == 1


def test_what_is_not_compiled():
    # New sizes, so that jax has nothing compiled for them.
    def run(key):
        keys = jax.random.split(key, 11)
        return jax.random.bits(keys[3], (13, 3), "uint8"), jax.vmap(draw)(keys), keys

    with accelerate():
        got = run(KEY)
    assert_same_bits(got, jax.jit(run)(KEY))


def test_legacy_keys():
    words = jax.random.PRNGKey(42)
    with accelerate():
        assert bool(native_calls(draw, words)) == (not native_problem())
        assert_same_bits(fresh(draw)(words), jax.jit(draw)(KEY))


def test_broadcast_operands_of_the_cipher():
    def run(key):
        keys = jax.random.key_data(jax.random.split(key, (4, 3)))
        count = jnp.arange(10, dtype=jnp.uint32)
        tables = jax.vmap(jax.vmap(threefry_2x32, (0, None)), (0, None))(keys, count)
        return tables, jax.vmap(threefry_2x32, (None, 0))(keys[0, 0], count.reshape(5, 2))

    with accelerate():
        got = fresh(run)(KEY)
    assert_same_bits(got, jax.jit(run)(KEY))


def test_other_types_of_keys_are_left_alone():
    with accelerate():
        assert not native_calls(draw, jax.random.key(0, impl="rbg"))
        with jax.threefry_partitionable(False):
            assert not native_calls(jax.random.split, KEY)
            got = fresh(draw)(KEY)
    with jax.threefry_partitionable(False):
        assert_same_bits(got, jax.jit(draw)(KEY))


def test_arrays_over_devices_are_left_to_jax():
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, P("d"))
    keys = jax.device_put(jax.random.split(KEY, 8), sharding)
    with accelerate():
        assert not native_calls(jax.vmap(draw), keys)
        got = jax.jit(lambda keys: jax.vmap(draw)(keys))(keys)
    assert got.sharding.is_equivalent_to(sharding, got.ndim)
    assert_same_bits(np.asarray(got), np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(KEY, 8))))


def test_exported_programs_need_no_seedbed():
    def program(words):
        key = jax.random.wrap_key_data(words, impl="threefry2x32")
        return jax.random.normal(key, (5,)), jax.random.key_data(jax.random.split(key, 2))

    with accelerate():
        exported = jax.export.export(fresh(program))(jax.ShapeDtypeStruct((2,), np.uint32))
    assert "seedbed_" not in exported.mlir_module()
    words = np.array([0, 42], np.uint32)
    assert_same_bits(exported.call(words), jax.jit(program)(words))


def test_as_a_call(native):
    switch = accelerate()
    try:
        assert accelerate.is_active() and native_calls(draw, KEY)
    finally:
        switch.undo()
    assert not accelerate.is_active() and not native_calls(draw, KEY)
    switch.undo()  # once more is nothing more
    with pytest.raises(RuntimeError, match="undone already; call sb.accelerate"):
        with switch:
            pass


def test_calls_nest(native):
    outer, inner = accelerate(), accelerate()
    with inner as entered, outer:
        assert entered is inner
        inner.undo()
        assert accelerate.is_active() and native_calls(draw, KEY)
    with accelerate():
        with accelerate():
            assert accelerate.is_active()
        assert native_calls(draw, KEY)


def test_an_exception_ends_it():
    with pytest.raises(KeyError):
        with accelerate():
            raise KeyError
    assert not accelerate.is_active()


def test_a_failure_half_way_changes_nothing(native, monkeypatch):
    swap, swapped = lowering.swap_cpu_lowering, []

    def fail(primitive, rule, undo):
        if len(swapped) == 2:
            raise KeyboardInterrupt
        swapped.append(primitive)
        swap(primitive, rule, undo)

    monkeypatch.setattr(lowering, "swap_cpu_lowering", fail)
    before = table()
    with pytest.raises(KeyboardInterrupt):
        accelerate()
    assert len(swapped) == 2 and table() == before and not accelerate.is_active()


def test_an_interrupt_at_every_line_leaves_jax_as_it_was(native):
    files, made = {_accelerate.__file__, lowering.__file__}, []

    def use():
        made.append(accelerate())
        made[-1].undo()

    before = table()
    for number in range(1, 1000):
        at = At(files, number)
        interrupted = at.run(use)
        for one in made:  # nobody else can end what was not begun to be ended
            one.undo()
        assert table() == before and not accelerate.is_active(), at.where
        if not interrupted:
            break
    assert number > 30


def test_a_rule_that_someone_else_set_meanwhile_stays(native):
    primitive = compat.random_primitives["cipher"]
    before = table()[primitive][0]
    try:
        with accelerate():
            mlir.register_lowering(primitive, before.rule, platform="cpu")
            theirs = table()[primitive][0]
        assert table()[primitive][0] is theirs
    finally:
        mlir._platform_specific_lowerings["cpu"][primitive] = before


def test_threads_share_it(native):
    def use(number):
        with accelerate():
            assert accelerate.is_active()
            size = number % 3 + 1
            return native_calls(functools.partial(jax.random.bits, shape=(size,)), KEY)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert set(pool.map(use, range(12))) == {1}


def test_what_is_compiled_keeps_its_code(native):
    before, inside = fresh(draw), fresh(draw)
    expected = before(KEY)
    with accelerate():
        assert "@seedbed_" not in before.lower(KEY).as_text()
        assert_same_bits(before(KEY), expected)
        assert_same_bits(inside(KEY), expected)
    assert "@seedbed_" in inside.lower(KEY).as_text()
    assert_same_bits(inside(KEY), expected)


def test_caches_are_cleared_when_asked_for():
    # Of the whole process, so in one of its own.
    out = run_python(
        """
        import jax, numpy as np
        from seedbed._random import cipher as _cipher
        from seedbed._jax import lowering as _lowering
        from seedbed._run import native as _native
        from seedbed._trust import selfcheck as _selfcheck
        from seedbed._random.accelerate import accelerate
        from seedbed.cli._oracle import Oracle

        key = jax.random.key(42)
        f = jax.jit(lambda key: jax.random.bits(key, (999,)))
        native = lambda: "@seedbed_" in f.lower(key).as_text()
        found = [native()]
        with accelerate():
            found.append(native())
        with accelerate(clear_caches=True):
            found.append(native())
            expected = np.asarray(f(key))
            # What others are compared with is jax's own all the same.
            with _lowering.jax_alone():
                found += [native(), bool((np.asarray(f(key)) == expected).all())]
            found.append(native())
            _cipher._native_bits = None  # would fail, were it called
            _selfcheck.measure(_native.load()[0])
            Oracle(lambda key: jax.random.bits(key, (3,)), jax.random.split(key, 2))
        print(*found)
        """,
        SEEDBED_BACKEND="" if not native_problem() else "reference",
    )
    native = "False" if native_problem() else "True"
    assert out.split() == ["False", "False", native, "False", "True", native]


def test_the_compilation_cache_on_disk(tmp_path):
    code = """
        import jax
        from seedbed._random.accelerate import accelerate
        with accelerate():
            print(*jax.jit(lambda key: jax.random.bits(key, (600,)))(jax.random.key(42)))
    """
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    runs = [run_python(code, **cache) for _ in range(2)]
    assert any(tmp_path.iterdir())
    expected = jax.random.bits(jax.random.key(42), (600,)).tolist()
    assert [list(map(int, run.split())) for run in runs] == [expected] * 2


@pytest.fixture
def unusable(monkeypatch):
    monkeypatch.setattr(_native, "load", lambda: (None, "the extension is not built"))
    return monkeypatch


def test_it_says_when_it_cannot_be_used(unusable):
    unusable.setenv("SEEDBED_BACKEND", "auto")
    with pytest.warns(RuntimeWarning, match="leaves jax as it is: the extension is not") as record:
        switch = accelerate()
    assert record[0].filename == __file__
    with switch:
        assert not accelerate.is_active()


def test_it_fails_where_native_was_demanded(unusable):
    unusable.setenv("SEEDBED_BACKEND", "native")
    with pytest.raises(
        RuntimeError, match="SEEDBED_BACKEND=native, but the extension is not built"
    ):
        accelerate()


def test_a_setting_that_stands_in_the_way_fails_where_native_was_demanded(native, monkeypatch):
    monkeypatch.setenv("SEEDBED_BACKEND", "native")
    with jax.threefry_partitionable(False):
        with pytest.raises(RuntimeError, match="cannot be used: jax_threefry_partitionable is off"):
            accelerate()


def test_the_reference_backend_leaves_jax_as_it_is(monkeypatch):
    monkeypatch.setenv("SEEDBED_BACKEND", "reference")
    with accelerate():
        assert not accelerate.is_active() and not native_calls(draw, KEY)


def test_an_unknown_backend(monkeypatch):
    monkeypatch.setenv("SEEDBED_BACKEND", "cuda")
    with pytest.raises(ValueError, match="SEEDBED_BACKEND is 'cuda'"):
        accelerate()
