"""Which backend runs, and why."""

import os

import jax
import pytest

import seedbed as sb
from helpers import assert_same_bits, native_problem, oracle, run_python
from seedbed._run import native as _native
from seedbed._trust import backends

pytestmark = pytest.mark.reference("oldest")


def init(key):
    return jax.random.normal(key, (6,))


def test_native_where_it_is_required():
    if os.environ.get("SEEDBED_REQUIRE_NATIVE") != "1":
        pytest.skip("SEEDBED_REQUIRE_NATIVE is not 1")
    module, problem = _native.load()
    assert module is not None, problem


@pytest.mark.parametrize("value", ["nativ", "cpu", "Native", "reference "])
def test_an_unknown_backend_is_an_error(monkeypatch, key, value):
    monkeypatch.setenv("SEEDBED_BACKEND", value)
    with pytest.raises(ValueError, match="SEEDBED_BACKEND is .*'auto', 'native', 'reference'"):
        sb.ensemble(init, 3)(key)


def test_the_reference_can_be_forced(monkeypatch, key):
    make = sb.ensemble(init, 3)
    before = make(key)
    monkeypatch.setenv("SEEDBED_BACKEND", "reference")
    assert_same_bits(make(key), before)
    assert make.plan(key).summary() == "reference: SEEDBED_BACKEND=reference"
    assert "reference: SEEDBED_BACKEND=reference" in make.plan(key).explain().splitlines()[2]


def test_an_empty_value_is_no_choice(monkeypatch):
    monkeypatch.setenv("SEEDBED_BACKEND", "")
    assert backends.requested() == "auto"


def test_without_the_extension(monkeypatch, key):
    monkeypatch.setenv("SEEDBED_BACKEND", "auto")
    monkeypatch.setattr(_native, "load", lambda: (None, "the extension is not built (test)"))
    make = sb.ensemble(init, 3)
    assert_same_bits(make(key), oracle(init, 3, key))
    assert make.plan(key).summary() == "reference: the extension is not built (test)"


def test_native_without_the_extension_is_an_error(monkeypatch, key):
    monkeypatch.setenv("SEEDBED_BACKEND", "native")
    monkeypatch.setattr(_native, "load", lambda: (None, "the extension is not built (test)"))
    with pytest.raises(RuntimeError, match="SEEDBED_BACKEND=native, but .*SEEDBED_BACKEND=auto"):
        sb.ensemble(init, 3)(key)


def test_an_extension_of_another_version_is_not_used(native, monkeypatch):
    # Row 40.
    import seedbed

    monkeypatch.setattr(seedbed, "__version__", "9.9.9")
    module, problem = _native.load.__wrapped__()
    assert module is None and "9.9.9" in problem and "reinstall" in problem


def test_the_instruction_set_can_be_forced(native):
    from seedbed import _cpu

    for isa in _cpu.isas():
        out = run_python("from seedbed import _cpu; print(_cpu.isa())", SEEDBED_ISA=isa)
        assert out.split() == [isa]


def test_an_unknown_instruction_set_is_an_error(native):
    out = run_python(
        """
        import jax, seedbed as sb
        try:
            sb.ensemble(lambda key: jax.random.normal(key, (6,)), 3)(jax.random.key(0))
        except Exception as error:
            print(type(error).__name__, error)
        """,
        SEEDBED_ISA="mmx",
    )
    assert "SEEDBED_ISA" in out and "mmx" in out and "baseline" in out


def test_kernels_that_are_not_trusted_stay_in_xla(native, monkeypatch, key):
    # What the self-check does when a kernel disagrees with XLA: the step before it is used.
    def init(key):
        return jax.random.normal(key, (60,)) * 0.3, jax.random.uniform(key, (60,))

    for names, draws in ((["bits"], ["BITS"]), (["bits", "uniform32"], ["UNIFORM", "UNIFORM"])):
        monkeypatch.setattr(backends, "kernels", lambda names=names: frozenset(names))
        make = sb.ensemble(init, 3)
        assert [draw.kind.name for draw in make.plan(key).draws] == draws
        assert_same_bits(make(key), oracle(init, 3, key))


def test_the_backend_of_this_run_is_the_one_asked_for():
    asked = backends.requested()
    assert (native_problem() == "") or asked != "native"
    if asked == "reference":
        assert native_problem() == "SEEDBED_BACKEND=reference"
