"""How jax lowers primitives: ones of our own, and its own ones lowered another way."""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.interpreters.batching
import jax.interpreters.mlir
import jax.interpreters.xla
import numpy as np

from . import compat

if TYPE_CHECKING:
    from .types import Aval

_batching: Any = jax.interpreters.batching
_mlir: Any = jax.interpreters.mlir
_xla: Any = jax.interpreters.xla

Primitive = Any

# A gamma variate from one key: ``(key, alpha, log_space) -> value``; and what draws many.
gamma_one: Any
random_gamma: Primitive
try:
    _module = importlib.import_module(jax.random.gamma.__module__)
    gamma_one, random_gamma = _module._gamma_one, _module.random_gamma_p
except (ImportError, AttributeError):  # pragma: no cover - only a future jax without them
    gamma_one = random_gamma = None


def new_primitive(
    name: str, result: Callable[..., Any], multiple_results: bool = False
) -> Primitive:
    """A primitive whose result has the shape and dtype that ``result`` gives for its operands.

    With ``multiple_results``, ``result`` gives a list of them. Inside of `jax.shard_map` results
    vary over the devices as the first operand does. Operands are arrays of keys as words, or have
    the batch dimensions of these in front: those lie on the devices of a mesh as they do there.
    """
    primitive: Any = compat.core.Primitive(name)
    primitive.multiple_results = multiple_results
    primitive.def_impl(functools.partial(_xla.apply_primitive, primitive))

    def abstract_eval(*avals: Any, **params: Any) -> Any:
        first = avals[0]

        def typed(shape: tuple[int, ...], dtype: str) -> Any:
            spec = (*first.sharding.spec[: first.ndim - 1], *(None,) * len(shape))[: len(shape)]
            return first.update(
                shape=shape,
                dtype=np.dtype(dtype),
                weak_type=False,
                sharding=first.sharding.update(spec=spec),
            )

        made = result(*avals, **params)
        return [typed(*one) for one in made] if multiple_results else typed(*made)

    primitive.def_abstract_eval(abstract_eval)
    return primitive


def set_rules(primitive: Primitive, batch: Any, lowerings: dict[str | None, Any]) -> None:
    """Sets how a primitive is vmapped, and lowered on each platform (None: on all others)."""
    if batch is not None:
        _batching.primitive_batchers[primitive] = batch
    for platform, rule in lowerings.items():
        _mlir.register_lowering(primitive, rule, platform=platform)


def lower(
    function: Callable[..., Any],
    context: Any,
    operands: Sequence[Any],
    params: dict[str, Any],
    multiple_results: bool = False,
) -> Any:
    """Lowers what ``function`` traces to, in place of the equation of ``context``."""
    rule = _mlir.lower_fun(function, multiple_results=multiple_results)
    return rule(context, *operands, **params)


def lower_call(
    target: str, context: Any, operands: Sequence[Any], attributes: dict[str, Any]
) -> Any:
    """Lowers a custom call in place of the equation of ``context``."""
    return jax.ffi.ffi_lowering(target)(context, *operands, **attributes)


def lower_batched_call(
    target: str, context: Any, operands: Sequence[Any], attributes: dict[str, Any], batch: int
) -> Any:
    """Lowers a custom call that XLA may split over devices along its first ``batch`` dimensions,
    which all operands and all results have: each device then makes its part alone.

    The target has to be registered by `jax.ffi.register_ffi_target_as_batch_partitionable`.
    """
    counts = {"num_batch_dims": _mlir.ir.StringAttr.get(str(batch))}
    taken, made = context.avals_in, context.avals_out
    rule = batched_rule([one.shape for one in taken], [one.shape for one in made], batch)
    extra = {
        "mhlo.frontend_attributes": _mlir.ir.DictAttr.get(counts),
        "sdy.sharding_rule": _mlir.ir.Attribute.parse(rule),
    }
    lowered: Any = jax.ffi.ffi_lowering(target, extra_attributes=extra)
    return lowered(context, *operands, **attributes)


def batched_rule(
    operands: Sequence[Sequence[int]], results: Sequence[Sequence[int]], batch: int
) -> str:
    """What Shardy, XLA's propagation of shardings, is told of a call whose operands and results,
    given by their shapes, share the first ``batch`` dimensions and nothing else."""
    sizes = list((operands or results)[0][:batch])

    def named(factor: int) -> str:
        letters = "ijklmnopqrstuvwxyz"
        return letters[factor] if factor < len(letters) else f"z_{factor - len(letters) + 1}"

    def mapping(shapes: Sequence[Sequence[int]]) -> str:
        found = []
        for shape in shapes:
            first = len(sizes)
            sizes.extend(shape[batch:])
            factors = [*range(batch), *range(first, len(sizes))]
            found.append("[" + ", ".join(map(named, factors)) + "]")
        return "(" + ", ".join(found) + ")"

    text = mapping(operands) + "->" + mapping(results)
    factors = ", ".join(f"{named(factor)}={size}" for factor, size in enumerate(sizes))
    whole = ", ".join(named(factor) for factor in range(batch, len(sizes)))
    replicated = f" need_replication={{{whole}}}" if whole else ""
    return f"#sdy.op_sharding_rule<{text} {{{factors}}}{replicated}, custom>"


def physical(context: Any) -> Any:
    """The context of an equation on typed keys, as one on their words."""

    def words(aval: Aval) -> Any:
        if not compat.is_key(aval.dtype):
            return aval
        return jax.core.ShapedArray((*aval.shape, 2), np.dtype("uint32"))

    return context.replace(
        avals_in=[words(aval) for aval in context.avals_in],
        avals_out=[words(aval) for aval in context.avals_out],
    )


def runs_whole(context: Any) -> bool:
    """Whether code that is being lowered is run as it stands: XLA splits nothing over devices."""
    axes = context.module_context.axis_context
    if hasattr(axes, "num_devices"):
        return bool(axes.num_devices == 1)
    if hasattr(axes, "manual_axes"):
        return set(axes.mesh.axis_names) <= set(axes.manual_axes)
    return False


def for_export(context: Any) -> bool:
    """Whether code is being lowered for `jax.export`."""
    return bool(context.module_context.lowering_parameters.for_export)


def swap_cpu_lowering(
    primitive: Primitive, rule: Callable[..., Any], undo: list[Callable[[], None]]
) -> None:
    """Lowers a primitive for the CPU by ``rule(rule so far, context, *operands, **params)``.

    Args:
        undo: gets, before anything is changed, a function that puts everything back, unless
            someone else has changed it since.
    """
    global _swapped
    table = _mlir._platform_specific_lowerings["cpu"]
    before = table.get(primitive)
    ours = functools.partial(rule, (before or _mlir._lowerings[primitive]).rule)

    def put_back() -> None:
        if getattr(table.get(primitive), "rule", None) is not ours:
            return
        if before is None:
            del table[primitive]
        else:
            table[primitive] = before

    undo.append(put_back)
    _swapped = True
    _mlir.register_lowering(primitive, ours, platform="cpu")


def extend_lowerings(primitive: Primitive, rule: Callable[..., Any]) -> None:
    """Lowers a primitive on every platform by ``rule(rule so far, context, *operands, **params)``,
    for good."""
    tables = {None: _mlir._lowerings, **_mlir._platform_specific_lowerings}
    for platform, table in tables.items():
        if primitive in table:
            extended = functools.partial(rule, table[primitive].rule)
            _mlir.register_lowering(primitive, extended, platform=platform)


_paused = threading.local()


def paused() -> bool:
    """Whether this thread is inside of `jax_alone`."""
    return bool(getattr(_paused, "yes", False))


@contextlib.contextmanager
def jax_alone() -> Iterator[None]:
    """On this thread jax lowers by its own rules, and uses nothing that it compiled outside of the
    block: for numbers to compare ours with."""
    before, _paused.yes = paused(), True
    try:
        # The first context of this kind makes jax trace everything anew: not without need.
        with _separate()(object()) if _swapped else contextlib.nullcontext():
            yield
    finally:
        _paused.yes = before


@contextlib.contextmanager
def xla_on(platform: str) -> Iterator[None]:
    """Runs jax at once, compiled, on a device of the platform, whatever is being traced or
    configured outside: the one door for computations that are no part of the user's program."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(compat.compile_time_eval())
        stack.enter_context(jax_alone())
        stack.enter_context(jax.default_device(compat.first_device(platform)))
        for setting in (
            jax.enable_x64(True),
            jax.disable_jit(False),
            jax.threefry_partitionable(True),
            jax.transfer_guard("allow"),
            jax.debug_key_reuse(False),
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
        ):
            stack.enter_context(setting)
        yield


@contextlib.contextmanager
def unrolled_threefry() -> Iterator[None]:
    """What is compiled in the block draws by jax's own unrolled lowering of threefry, which it has
    for other platforms: the same bits, several times faster than the loop that it uses on CPUs.

    Raises:
        NotImplementedError: this jax has no such lowering, or does not use it when told to.
    """
    module = importlib.import_module(compat.threefry_2x32.__module__)
    rule = getattr(module, "_threefry2x32_lowering_rule", None)
    primitive = compat.random_primitives["cipher"]
    table = _mlir._platform_specific_lowerings["cpu"]
    before = table.get(primitive)
    if rule is None or before is None:
        raise NotImplementedError(f"jax {jax.__version__} has one lowering of threefry only")
    # Out of line, as jax has it for the other platforms: much cheaper to compile.
    _mlir.register_lowering(primitive, rule, platform="cpu", inline=False)
    try:
        text = jax.jit(lambda key: jax.random.bits(key)).lower(np.zeros(2, np.uint32)).as_text()
        if "stablehlo.while" in text:
            raise NotImplementedError("jax lowers threefry as a loop after its rule was replaced")
        yield
    finally:
        table[primitive] = before


_swapped = False  # since when jax may have native code in its caches


@functools.cache
def _separate() -> Any:
    make: Any = jax.make_user_context
    return make(None)
