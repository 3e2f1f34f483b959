"""The cold start: what an import loads, how planning grows, what is compiled and kept on disk."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import seedbed as sb
from helpers import assert_same_bits, native_problem, run_python
from seedbed import _match, _trace
from seedbed._ensemble import check

# --- import -----------------------------------------------------------------------------


def test_import_loads_next_to_nothing_besides_jax():
    new = json.loads(
        run_python(
            """
            import json, sys
            import jax
            before = set(sys.modules)
            import seedbed
            print(json.dumps(sorted(set(sys.modules) - before)))
            """
        )
    )
    ours = {name for name in new if name.split(".")[0] == "seedbed"}
    # Small, and without anything behind them. `jax.extend` would bring pallas.
    assert set(new) - ours <= {"jax._src.extend", "jax._src.extend.random"}
    assert not any(name.startswith(("seedbed.nn", "seedbed.adapters")) for name in ours)
    assert "seedbed.random" not in ours and len(ours) < 40


def test_modules_are_imported_when_they_are_used():
    out = run_python(
        """
        import sys
        import seedbed as sb
        assert {"nn", "random", "filters", "adapters", "prng", "ensemble"} <= set(dir(sb))
        assert "seedbed.nn" not in sys.modules
        print(sb.nn.Linear(2, 3).weight.shape, sb.filters.WithTag, sb.random.seed)
        from seedbed import *
        assert nn is sb.nn and accelerate is sb.accelerate and adapters is sb.adapters
        """
    )
    assert out.startswith("(3, 2)")
    with pytest.raises(AttributeError, match="module 'seedbed' has no attribute 'rnadom'"):
        sb.rnadom  # noqa: B018


# --- planning ---------------------------------------------------------------------------


def _unpacked(count, shape):
    def init(key):
        keys = jax.random.split(key, count)
        return {f"w{i:03}": jax.random.normal(k, shape) for i, k in enumerate(keys)}

    return init


def _chained(count, shape):
    def init(key):
        made = {}
        for i in range(count):
            key, sub = jax.random.split(key)
            made[f"w{i:03}"] = jax.random.normal(sub, shape)
        return made

    return init


def _folded(count, shape):
    def init(key):
        keys = [jax.random.fold_in(key, i) for i in range(count)]
        return {f"w{i:03}": jax.random.normal(k, shape) for i, k in enumerate(keys)}

    return init


def _truncated(count, shape):
    def init(key):
        # Bounds whose erf has no one value: the calls stay calls.
        keys = jax.random.split(key, count)
        return [jax.random.truncated_normal(k, -1.7, 1.3, shape) for k in keys]

    return init


def _lines(run) -> int:
    """How many lines of the package `run` executes: each turn of a loop counts."""
    package = str(Path(sb.__file__).parent)
    count = 0

    def line(frame, event, argument):
        nonlocal count
        count += event == "line"
        return line

    before = sys.gettrace()
    sys.settrace(lambda frame, *_: line if frame.f_code.co_filename.startswith(package) else None)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def _planning(init, count, shape, sealed):
    """Lines that it takes to plan so many leaves."""
    recorded = _trace.record(init(count, shape), check.member_key_type(jax.random.key(0)), ())

    def run():
        graph = _trace.flatten(recorded, sealed)
        made = _match.planned(graph)
        assert len(made.outputs) == count
        hash(made)
        made.explain()

    return _lines(run)


@pytest.mark.parametrize("sealed", [False, True], ids=["opened", "sealed"])
@pytest.mark.parametrize("shape", [(4, 8), (4, 4)], ids=["fused", "partly"])
@pytest.mark.parametrize("init", [_unpacked, _chained, _folded, _truncated])
def test_planning_is_linear_in_the_number_of_leaves(init, shape, sealed):
    _planning(init, 3, shape, sealed)  # what is worked out once
    small, large = (_planning(init, count, shape, sealed) for count in (64, 128))
    assert 1.5 * small < large <= 2.2 * small


@pytest.mark.parametrize("init", [_unpacked, _chained, _folded])
def test_equal_calls_are_planned_once(init):
    _planning(init, 3, (4, 8), True)
    opened, sealed = (_planning(init, 100, (4, 8), each) for each in (False, True))
    assert sealed < 0.5 * opened


def test_the_names_of_long_key_paths():
    key = check.member_key_type(jax.random.key(0))
    graph = _trace.trace(_chained(12, (8,)), key, ())
    names = [str(draw.key) for draw in _match.planned(graph).draws]
    assert names[0] == "key/1" and names[7] == "key/0/0/0/0/0/0/0/1"
    assert names[8] == "key/0/0/0/(3 more)/0/0/1" and names[11] == "key/0/0/0/(6 more)/0/0/1"


@jax.jit
def _pair(x, y):
    return x + 2.0 * y


@jax.jit
def _both(x, y, scale):
    return _pair(x, y) * scale, _pair(y, y)


def test_calls_of_one_function_are_opened_for_what_each_is_given():
    table = jnp.arange(2000.0).reshape(2, 1000)  # captured: too large for a constant

    @jax.jit
    def scaled(x, factor):
        return x * factor + table[0, 5]

    def init(key):
        a, b = jax.random.uniform(key, (2, 7))
        return [
            *(_both(a, a, 2.0), _both(a, b, 2.0), _both(b, a, 2.0), _both(a, b, 3.0)),
            *(_both(1.0, b, 2.0), _both(1.0, 1.0, 2.0), _both(1.5, b, a)),
            *(scaled(a, 2.0), scaled(b, 2.0), scaled(b, a), scaled(b, b)),
            *(jax.random.truncated_normal(key, -1.7, high, (7,)) for high in (1.3, 2.0, 1.3)),
        ]

    keys = jax.random.split(jax.random.key(3), 5)
    expected = jax.jit(jax.vmap(init))(keys)
    assert_same_bits(sb.ensemble(init, 5)(keys), expected, ulps=1)


# --- compiling --------------------------------------------------------------------------


def test_what_is_lowered_depends_on_the_number_of_members_in_its_shapes_alone():
    if native_problem():
        pytest.skip(native_problem())
    key = jax.random.key(0)

    def text(size):
        make = sb.ensemble(_unpacked(3, (4, 8)), size)
        return jax.jit(make).lower(key).as_text().replace(str(size), "N")

    assert text(101) == text(1009)


_CACHED = """
    import hashlib
    import jax
    hits = []
    jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
    import seedbed as sb

    def init(key):
        a, b = jax.random.split(key)
        return jax.random.normal(a, (5, 8)), jax.random.normal(b, (4, 4)), jax.numpy.ones(3)

    make = sb.ensemble(init, 6)
    key = jax.random.wrap_key_data(jax.numpy.array([1, 2], "uint32"))
    jax.clear_caches()
    del hits[:]
    out = make(key)
    names = [name.rpartition("/")[2] for name in hits]
    digest = hashlib.sha256(b"".join(jax.device_get(leaf).tobytes() for leaf in out)).hexdigest()
    print(names.count("cache_hits"), names.count("cache_misses"), digest)
"""


def test_the_persistent_compilation_cache_keeps_the_program(tmp_path):
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    first, second = (run_python(_CACHED, **settings).split() for _ in range(2))
    assert int(first[1]) >= 1, "nothing was compiled, or nothing may be kept"
    assert int(second[0]) >= 1 and second[1] == "0"
    assert first[2] == second[2]
    assert any(path.name.startswith("jit_seedbed") for path in tmp_path.iterdir())
