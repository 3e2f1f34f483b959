"""brainstate: its collective functions on its own modules, natively, with its own numbers.

The functions have brainstate's signatures and give brainstate's values from the same
`brainstate.random.seed`; what seedbed cannot run is handed to brainstate's own function.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from brainstate.nn import _collective_ops as _ops
from brainstate.transform import _mapping1
from brainstate.util import filter as _filter

from .. import filters
from .._base import pickling
from .._plan import Plan
from ..nn._call import Asked, check_axis_size
from ._brainstate.call import MappedCall, Planned, rebound, watched
from ._brainstate.ensemble import Ensemble, Single, forward, reset_members, stack, unstack
from ._brainstate.places import Way
from ._brainstate.program import NotNative
from ._brainstate.roots import Snapshot, roots_of, unchanged_on_failure
from ._brainstate.stored import load_members, save_members

__all__ = [
    "Ensemble",
    "Single",
    "call_all_fns",
    "ensemble",
    "forward",
    "init_all_states",
    "load_members",
    "patched",
    "plan_init",
    "plan_of",
    "reset_all_states",
    "reset_members",
    "roots_of",
    "save_members",
    "single",
    "stack",
    "unstack",
    "vmap_call_all_fns",
    "vmap_init_all_states",
    "vmap_new_states",
    "vmap_reset_all_states",
]


def __dir__() -> list[str]:
    return list(__all__)


T = TypeVar("T")
_own = _mapping1._vmap_new_states_transform
_ANYWHERE = Way()
_asked = threading.local()  # .plan: whether the next call of this thread only asks for its plan


def _transform(
    fun: Callable[..., Any], *, way: Way = _ANYWHERE, **options: Any
) -> Callable[..., Any]:
    """What is behind `vmap_new_states`: brainstate's transform, run by seedbed where it can be."""
    _check_filters(options.get("state_to_exclude"))
    asked = _asked_of(options, "state_to_exclude")
    _own(fun, **options)  # checks the options

    @functools.wraps(fun)
    def run(*args: Any, **kwargs: Any) -> Any:
        roots = [*roots_of(fun), *args]
        snapshot = Snapshot(roots)
        only_plan, _asked.plan = getattr(_asked, "plan", False), False  # calls inside just run
        call = MappedCall(fun, roots, snapshot, only_plan, way)
        try:
            return snapshot.guard(lambda: call.run(_own, options, args, kwargs))
        except NotNative as reason:
            if call.only_plan:
                raise ValueError(
                    f"brainstate's own function runs this call: {reason}"
                ) from reason.__cause__
            if way.laid_out:
                raise ValueError(
                    "`out_shardings` is for what runs natively, and brainstate's own function runs "
                    f"this call: {reason}"
                ) from reason.__cause__
            way.brainstates = True
        return snapshot.guard(lambda: _own(watched(fun, snapshot), **options)(*args, **kwargs))

    return run if asked is None else _warned(run, asked)


def _asked_of(options: dict[str, Any], name: str) -> Asked | None:
    """Puts a predicate that knows what it was asked in the place of a filter."""
    given = options.get(name)
    if given is None:
        return None
    asked = options[name] = Asked(_filter.to_predicate(given), given, name)
    return asked


def _warned(run: Callable[..., Any], asked: Asked) -> Callable[..., Any]:
    @functools.wraps(run)
    def warned(*args: Any, **kwargs: Any) -> Any:
        out = run(*args, **kwargs)
        asked.warn_if_unmatched()
        return out

    return warned


def _check_filters(*given: Any) -> None:
    """Refuses a filter without an end, before brainstate goes into it."""
    for one in given:
        filters.check_end(one)


_new_states = rebound(_mapping1.vmap_new_states, _vmap_new_states_transform=_transform)
_call_all = rebound(_ops.vmap_call_all_fns, vmap_new_states=_new_states)
_reset_all = rebound(_ops.vmap_reset_all_states, vmap_call_all_fns=_call_all)
_init_all = rebound(_ops.vmap_init_all_states, vmap_new_states=_new_states)


def vmap_new_states(fun: Any = None, **options: Any) -> Any:
    """`brainstate.transform.vmap_new_states`: same arguments, same values; also a decorator.

    Example:
        >>> import brainstate, seedbed as sb
        >>> @sb.adapters.brainstate.vmap_new_states(axis_size=4)
        ... def build():
        ...     global net
        ...     net = brainstate.nn.Linear(2, 6)
        >>> build()
        >>> net.weight.value["weight"].shape
        (4, 2, 6)
    """
    return _new_states(**options) if fun is None else _new_states(fun, **options)


def vmap_init_all_states(
    target: T, *init_args: Any, axis_size: int | None = None, donate: bool = False, **options: Any
) -> T:
    """`brainstate.nn.vmap_init_all_states`: same arguments, same values, same random stream.

    After an exception the modules, their states and the random stream are as they were, so old
    values cannot be given up: ``donate`` is refused.

    Raises:
        ValueError: ``axis_size`` is not a positive integer, or what brainstate refuses.
        TypeError: ``donate`` is asked for.

    Example:
        >>> import brainstate, seedbed as sb
        >>> cell = brainstate.nn.GRUCell(2, 6)
        >>> _ = sb.adapters.brainstate.vmap_init_all_states(cell, axis_size=4)
        >>> cell.h.value.shape
        (4, 6)
    """
    if donate:
        raise TypeError(
            "`donate` works on modules of seedbed.nn; got one of brainstate, whose states are put "
            "back when a call fails"
        )
    if "out_shardings" in options:
        raise TypeError(
            "`out_shardings` works on modules of seedbed.nn; got one of brainstate: give it to "
            "adapters.brainstate.ensemble, which builds and lays out the whole module"
        )
    size = check_axis_size(axis_size)
    _check_filters(options.get("node_to_exclude"))
    asked = _asked_of(options, "node_to_exclude")
    _init_all(target, *init_args, axis_size=size, **options)
    if asked is not None:
        asked.warn_if_unmatched()
    return target


def vmap_call_all_fns(
    target: T,
    fn_name: str,
    args: Any = (),
    kwargs: Any = None,
    axis_size: int | None = None,
    **options: Any,
) -> T:
    """`brainstate.nn.vmap_call_all_fns`: same arguments, same values, same random stream."""
    size = check_axis_size(axis_size)
    _check_filters(options.get("node_to_exclude"))
    _call_all(target, fn_name, args, kwargs, axis_size=size, **options)
    return target


def vmap_reset_all_states(
    target: T, *reset_args: Any, axis_size: int | None = None, **options: Any
) -> T:
    """`brainstate.nn.vmap_reset_all_states`, which loses the member axis of what it resets.

    `reset_members` keeps it.
    """
    size = check_axis_size(axis_size)
    _check_filters(options.get("node_to_exclude"))
    _reset_all(target, *reset_args, axis_size=size, **options)
    return target


def call_all_fns(target: T, fn_name: str, *args: Any, **options: Any) -> T:
    """`brainstate.nn.call_all_fns`; after an exception all is as it was."""
    _check_filters(options.get("node_to_exclude"), *args[2:3])
    unchanged_on_failure(target, lambda: _ops.call_all_fns(target, fn_name, *args, **options))
    return target


def init_all_states(target: T, *init_args: Any, **options: Any) -> T:
    """`brainstate.nn.init_all_states`; after an exception all is as it was."""
    _check_filters(options.get("node_to_exclude"))
    unchanged_on_failure(target, lambda: _ops.init_all_states(target, *init_args, **options))
    return target


def reset_all_states(target: T, *reset_args: Any, **options: Any) -> T:
    """`brainstate.nn.reset_all_states`; after an exception all is as it was."""
    _check_filters(options.get("node_to_exclude"))
    unchanged_on_failure(target, lambda: _ops.reset_all_states(target, *reset_args, **options))
    return target


def plan_init(target: Any, *init_args: Any, **options: Any) -> Plan:
    """What `vmap_init_all_states` with these arguments would run; nothing changes.

    Raises:
        ValueError: brainstate's own function would run; the message says why.
    """
    plan: Plan = plan_of(vmap_init_all_states, target, *init_args, **options)
    return plan


def plan_of(call: Callable[..., Any], *args: Any, **options: Any) -> Plan:
    """What a call of one of these functions, or of a function `vmap_new_states` made, would run."""
    try:
        _asked.plan = True
        call(*args, **options)
    except Planned as planned:
        plan: Plan = planned.plan
        return plan
    finally:
        _asked.plan = False
    raise ValueError(f"{call!r} makes no states for several members")


def ensemble(
    make: Callable[..., Any],
    size: int,
    *,
    out_shardings: Any = None,
    pad: bool = False,
    donate: bool = False,
) -> Ensemble:
    """Modules that ``make`` builds, one for each member, as one module.

    The parameters that a module makes when it is built get the member axis too, which
    `vmap_init_all_states` does not give them. ``ensemble(make, n)(seed)`` holds the values of
    ``brainstate.transform.vmap_new_states(make, axis_size=n)`` after
    ``brainstate.random.seed(seed)``; the global random stream is not touched.

    Args:
        make: ``make(*args, **kwargs)`` returns a brainstate module.
        size: number of members.
        out_shardings: how the states' values are laid out over devices: a sharding or a
            PartitionSpec for all that have a member axis, which is dimension 0, or a mapping from
            filters of states, as brainstate takes them, to these, of which the first counts that a
            state matches. Every other state is whole on every device.
        pad: make more members, up to a number that ``out_shardings`` divides.
        donate: make a new ensemble in the memory of an old one: the result is called as
            ``make(seed, old, *args)``, and the arrays of ``old`` are given up, but for
            a call that brainstate's own function has to run.

    Raises:
        TypeError: ``make`` is not callable, ``size`` is not an integer, or ``out_shardings`` has
            something else in it than shardings.
        ValueError: ``size`` is not positive; when called, a state cannot be laid out as
            ``out_shardings`` says, or brainstate's own function has to run the call.

    Example:
        >>> import brainstate, jax, seedbed as sb
        >>> nets = sb.adapters.brainstate.ensemble(lambda: brainstate.nn.Linear(2, 6), 100)
        >>> nets(0).weight.value["weight"].shape
        (100, 2, 6)
        >>> nets.member(0, 17).weight.value["weight"].shape
        (2, 6)
    """
    return Ensemble(make, size, Way(out_shardings, pad, donate=donate), _new_states_by, plan_of)


def single(make: Callable[..., Any], *, out_shardings: Any = None) -> Single:
    """One module: what ``make`` builds after ``brainstate.random.seed(seed)``, bit for bit as jax
    gives it under `jax.jit`.

    The global random stream is not touched.

    Args:
        make: ``make(*args, **kwargs)`` returns a brainstate module.
        out_shardings: how the states' values are laid out over devices, each made where it lies: a
            sharding or a PartitionSpec for all, or a mapping from filters, as for `ensemble`.

    Returns:
        A `Single`: call it as ``(seed_or_key, *args, **kwargs)``, or use its method ``plan``.

    Raises:
        TypeError: ``make`` is not callable, or ``out_shardings`` has something else in it than
            shardings.
        ValueError: when called, a state cannot be laid out as ``out_shardings`` says, or
            brainstate's own function has to run the call.

    Example:
        >>> import brainstate, jax, seedbed as sb
        >>> from jax.sharding import NamedSharding, PartitionSpec as P
        >>> whole = NamedSharding(jax.make_mesh((1,), ("model",)), P())
        >>> net = sb.adapters.brainstate.single(
        ...     lambda: brainstate.nn.Linear(2, 6), out_shardings={brainstate.ParamState: whole}
        ... )(0)
        >>> net.weight.value["weight"].shape
        (2, 6)
    """
    return Single(make, Way(out_shardings, alone=True), _new_states_by, plan_of)


def _new_states_by(way: Way) -> Any:
    transform = functools.partial(_transform, way=way)
    return rebound(_mapping1.vmap_new_states, _vmap_new_states_transform=transform)


def _restored(make: pickling.Packed, size: int, way: Way) -> Ensemble:
    return Ensemble(make.value, size, way, _new_states_by, plan_of)


def _restored_single(make: pickling.Packed, way: Way) -> Single:
    return Single(make.value, way, _new_states_by, plan_of)


# --- brainstate's own functions ---------------------------------------------------------

_patching = threading.Lock()
_patches: set[object] = set()


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Inside, brainstate's own functions run natively, wherever they were imported from.

    What is swapped is the one transform behind `brainstate.transform.vmap_new_states` and
    `brainstate.nn.vmap_init_all_states`, `vmap_call_all_fns` and `vmap_reset_all_states`, for
    all threads; blocks may be nested and overlap. Functions that `vmap_new_states` decorated
    before the block stay as they are.

    Example:
        >>> import brainstate, seedbed as sb
        >>> with sb.adapters.brainstate.patched():
        ...     cell = brainstate.nn.vmap_init_all_states(brainstate.nn.GRUCell(2, 6), axis_size=4)
        >>> cell.h.value.shape
        (4, 6)
    """
    block = object()
    try:  # an interrupt may come between any two lines, also of what ends the block
        try:
            with _patching:
                _patches.add(block)
                _mapping1._vmap_new_states_transform = _transform
            yield
        finally:
            _unpatch(block)
    finally:
        _unpatch(block)


def _unpatch(block: object) -> None:
    with _patching:
        _patches.discard(block)
        if not _patches:
            _mapping1._vmap_new_states_transform = _own
