"""What is said besides results: notes below errors of an init function, and the log."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import run_python
from seedbed._base import log

pytestmark = pytest.mark.shared


def notes(error):
    return [note for note in error.value.__notes__ if note.startswith("seedbed: ")]


@pytest.mark.parametrize(
    "init",
    [
        lambda key, count: jax.random.normal(key, (count, 3)),
        lambda key, count: [jax.random.normal(key) for _ in range(count)],
        lambda key, count: jax.random.normal(key) if count else 0.0,
    ],
)
def test_an_integer_used_as_a_shape_is_offered_a_partial(key, init):
    with pytest.raises(TypeError) as error:
        sb.ensemble(init, 3)(key, 4)
    (note,) = notes(error)
    assert "args[0] = 4 is traced" in note and "functools.partial(init, name=value)" in note
    assert sb.ensemble(functools.partial(init, count=4), 3)(key) is not None


def test_other_errors_have_no_such_note(key):
    with pytest.raises(TypeError) as error:
        sb.ensemble(lambda key, count: jax.random.normal(key, (3,)) @ jnp.ones(2), 3)(key, 4)
    assert not notes(error)


def test_an_error_asks_whether_in_axes_was_forgotten(key):
    def init(key, scales):
        return scales * jax.random.normal(key, (3,))

    scales = np.ones(5, np.float32)
    make = sb.ensemble(init, 5)
    with pytest.raises((TypeError, ValueError)) as error:
        make(key, scales)
    (note,) = notes(error)
    assert "args[0] has shape (5,)" in note and note.endswith("say so: in_axes=0")
    assert sb.ensemble(init, 5, in_axes=0)(key, scales).shape == (5, 3)
    with pytest.raises((TypeError, ValueError)) as error:
        sb.ensemble(init, 4)(key, scales)
    assert not notes(error)


def test_the_log_says_what_is_planned_compiled_and_why(key, caplog, monkeypatch):
    def init(key, rows):
        return jax.random.normal(key, (6,)) + rows.sum()

    rows = np.ones((7, 2), np.float32)
    make = sb.ensemble(init, 7)
    with caplog.at_level(logging.INFO, "seedbed"):
        for _ in range(2):
            make(key, rows)
        said = [record.getMessage() for record in caplog.records]
        assert [line.split(" in ")[0] for line in said[:1]] == [f"planned {init.__qualname__}"]
        assert "args[0] has shape (7, 2) and goes to every member whole" in said[1]
        assert said[2].startswith("compiled for 7 member(s), ") and len(said) == 3
        monkeypatch.setenv("SEEDBED_BACKEND", "reference")
        make(key, rows)
        assert "runs on the reference backend: SEEDBED_BACKEND=reference" in caplog.text
    caplog.clear()
    sb.ensemble(init, 7)(key, rows)
    assert not caplog.records


def test_the_environment_sets_a_handler():
    out = run_python(
        """
        import logging, sys
        sys.stderr = sys.stdout
        import seedbed
        logging.getLogger("seedbed").info("heard")
        logging.getLogger("seedbed").debug("not heard")
        """,
        SEEDBED_LOG="info",
    )
    assert out.strip() == "seedbed: heard"
    with pytest.raises(ValueError, match="SEEDBED_LOG is 'loud'; accepted are 'info', 'debug'"):
        log.show("loud")
