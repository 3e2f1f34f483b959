"""What ``package.module:function`` on a command line means: an init function, and its arguments."""

from __future__ import annotations

import argparse
import ast
import difflib
import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from .. import adapters
from .._ensemble import ensemble
from .._store import format as formats
from ..adapters._shared.model import ModelEnsemble
from . import USAGE, WRONG

_PACKAGE = str(Path(__file__).resolve().parents[1])
# Frames of these say nothing to who wrote the function.
_INSIDE = (*(str(Path(one).parent) for one in (jax.__file__, importlib.__file__)), _PACKAGE, "<")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command that takes a target takes."""
    parser.add_argument(
        "target",
        metavar="package.module:function",
        help="the function init(key, *args) of one member, found as by `python -m`; or a "
        "seedbed.nn module, or a function without parameters that makes one",
    )
    parser.add_argument("--seed", type=int, default=0, help="the key is jax.random.key(SEED)")
    parser.add_argument(
        "--args",
        nargs="+",
        default=[],
        metavar="VALUE",
        help="further arguments of the function, as Python literals: 0.1 True '[1.0, 2.0]' (a "
        "list is an array; put a space before numbers like ' -1e-3')",
    )


class Unusable(Exception):
    """What was asked for cannot be used, in words for the terminal."""


class Raised(Exception):
    """Code of the user raised: the text of its traceback, without our own frames."""


def resolve(text: str, args: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The function ``init(key, *args)`` that a target names, and what is to be passed to it.

    A module tree, or a function or class without parameters that makes one, becomes its
    `seedbed.nn.init_function`, which has the arguments already.

    Args:
        text: ``package.module:function``; names after the colon may have dots.
        args: further arguments.

    Raises:
        Unusable: it names nothing that makes a member.
        Raised: the module, or what makes the module tree, raised.
    """
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise Unusable(
            f"{text!r} does not say which function: write package.module:function, as in "
            "models.mlp:init"
        )
    found = _imported(module, text)
    for step in name.split("."):
        found = _attribute(found, step, module)
    return init_of(_made(found, text), text, args)


def _imported(name: str, text: str) -> Any:
    # As with `python -m`, where the script `seedbed` was started too.
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    if name.endswith(".py") or os.sep in name:
        raise Unusable(
            f"{text!r} has the path of a file; the name of a module is meant, as in "
            f"{_dotted(name)}:function, seen from {here}"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise Raised(told(error)) from None  # a module that this one imports
        raise Unusable(
            f"there is no module {missing!r}; looked for it in "
            f"{', '.join(place or here for place in sys.path[:4])}"
            f"{f' and {len(sys.path) - 4} other places' if len(sys.path) > 4 else ''}"
        ) from None
    except Exception as error:
        raise Raised(told(error)) from None


def _dotted(file: str) -> str:
    return file.removesuffix(".py").strip("./").replace(os.sep, ".")


def _attribute(owner: Any, name: str, module: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        known = [word for word in dir(owner) if not word.startswith("_")]
        near = difflib.get_close_matches(name, known, 3)
        there = f"did you mean {' or '.join(near)}?" if near else _functions(owner, known)
        raise Unusable(f"{module} has no {name!r}; {there}") from None


def _functions(owner: Any, known: Iterable[str]) -> str:
    own = [
        word
        for word in known
        if callable(getattr(owner, word))
        and getattr(getattr(owner, word), "__module__", None) == getattr(owner, "__name__", "")
    ]
    return f"it has {', '.join(own[:8])}" if own else "it has no functions of its own"


def init_of(
    found: Any, text: str, args: tuple[Any, ...]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The function ``init(key, *args)`` that a value stands for, and what is to be passed to it.

    Raises:
        Unusable: it makes no member.
    """
    if isinstance(found, ensemble.Ensemble):
        raise Unusable(f"{text} is an ensemble already: name the function that it was made of")
    if isinstance(found, ModelEnsemble):
        return functools.partial(_own_arrays, found, args), ()
    if framework := _framework(found):
        raise Unusable(
            f"{text} is a model of {framework}, not a function init(key): write one that returns "
            f"its arrays, or use seedbed.adapters"
        )
    if isinstance(found, _module_type()):
        from .. import nn

        return nn.init_function(found, *args), ()
    if not callable(found):
        raise Unusable(
            f"{text} is {found!r:.60} of type {type(found).__name__}, and no function init(key)"
        )
    return found, args


def _own_arrays(model: ModelEnsemble, args: tuple[Any, ...], key: Any) -> Any:
    # The arguments stay as they are: those of models are mostly sizes.
    return model.own_arrays(key, *args)


def _made(found: Any, text: str) -> Any:
    """What is found; of a function without parameters, the module that it makes."""
    known = (_module_type(), ensemble.Ensemble, ModelEnsemble)
    if isinstance(found, known) or not callable(found) or _framework(found):
        return found
    if not _takes_nothing(found):
        return found
    try:
        made = found()
    except Exception as error:
        raise Raised(told(error)) from None
    if not isinstance(made, (_module_type(), ModelEnsemble)):
        raise Unusable(
            f"{text} takes no arguments and returns {type(made).__name__}: what is meant is a "
            "function init(key, ...), or one that returns a seedbed.nn module"
        )
    return made


def _module_type() -> Any:
    from .. import nn

    return nn.Module


def _takes_nothing(found: Any) -> bool:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return False
    return all(
        parameter.default is not parameter.empty
        or parameter.kind in (parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY)
        for parameter in signature.parameters.values()
    )


def _framework(found: Any) -> str:
    """The framework whose class something is or has; functions it wrapped are functions."""
    if hasattr(found, "__wrapped__"):
        return ""
    kind = found if inspect.isclass(found) else type(found)
    roots = {base.__module__.split(".")[0] for base in kind.__mro__}
    known = {needed.split(".")[0] for needed, _ in adapters.FRAMEWORKS.values()}
    return next(iter(sorted(roots & known)), "")


def key(seed: int) -> Any:
    """The key of ``--seed``."""
    try:
        return jax.random.key(seed)
    except OverflowError:
        raise Unusable(f"--seed: {seed} is too large for a seed of jax") from None


# --- arguments --------------------------------------------------------------------------


def arguments(texts: list[str]) -> tuple[Any, ...]:
    """The values of ``--args``."""
    return tuple([argument(text) for text in texts])


def argument(text: str) -> Any:
    """One of ``--args``: a Python literal. Lists are arrays, dicts and tuples are pytrees.

    Raises:
        Unusable: it is no literal, or none of numbers.
    """
    try:
        return _value(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, OverflowError, RecursionError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unusable(
            f"--args: {text!r} is no Python literal of numbers, such as 0.1, True, None, "
            f"[1.0, 2.0] (an array) or {{'scale': 2}}: {why}"
        ) from None


def _value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, complex)):
        return value
    if isinstance(value, list):
        return jnp.asarray(value)
    if isinstance(value, tuple):
        return tuple([_value(one) for one in value])
    if isinstance(value, dict):
        return {key: _value(one) for key, one in value.items()}
    raise TypeError(f"{value!r} of type {type(value).__name__} is no number")


# --- what the user's code raised --------------------------------------------------------


def guarded(command: str, target: str, run: Callable[[], int]) -> int:
    """Runs a command, and says what cannot be used and what the user's code raised."""
    try:
        return run()
    except Unusable as error:
        print(f"seedbed {command}: {error}", file=sys.stderr)
        return USAGE
    except Raised as error:
        print(f"{error}\nseedbed {command}: {target} raised the above", file=sys.stderr)
        return WRONG


def checked(call: Callable[[], Any]) -> Any:
    """A call, with what the user's function raises and what does not fit told apart."""
    try:
        return call()
    except formats.StoreError:
        raise
    except Exception as error:
        if of_user(error):
            raise Raised(told(error)) from None
        if isinstance(error, (TypeError, ValueError)):
            raise Unusable(str(error).replace("`chunk_size`", "--chunk")) from None
        raise


def told(error: BaseException) -> str:
    """The traceback of an error, of the user's code alone."""
    shown = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in shown.stack if not _inside(frame.filename)]
    if not frames:
        return f"{type(error).__name__}: {error}"
    shown.stack = traceback.StackSummary.from_list(frames)
    # jax says how to see its own frames, which are cut here anyway.
    shown.__notes__ = [one for one in shown.__notes__ or () if "JAX" not in one]
    return "".join(shown.format(chain=False)).rstrip()


def of_user(error: BaseException) -> bool:
    """Whether code of the user was running when something was raised."""
    last = traceback.extract_tb(error.__traceback__)
    return any(not _inside(frame.filename) for frame in last)


def _inside(file: str) -> bool:
    return file.startswith(_INSIDE)
