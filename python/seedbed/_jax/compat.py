"""Every jax version shim and every import from jax's private modules.

The rest of the package uses public jax only, so a jax release that moves something
breaks this file and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy
import numpy as np

# `jax.extend`, where these are public, imports pallas with them: 20 ms of every cold start.
core: Any
_prng: Any
_random: Any
_threefry: Any
random_primitives: dict[str, Any]  # those that run threefry, by short names
try:
    from jax._src import core
    from jax._src.extend import random as _random

    try:
        from jax._src.random import prng as _prng
        from jax._src.random import threefry2x32 as _threefry
    except ImportError:  # the oldest supported jax
        _prng = _threefry = importlib.import_module("jax._src.prng")
    _prngs: dict[str, Any] = _prng.prngs
    random_primitives = {
        "bits": _prng.random_bits_p,
        "split": _prng.random_split_p,
        "fold_in": _prng.random_fold_in_p,
        "cipher": _threefry.threefry2x32_p,
    }
    define_prng_impl: Any = _random.define_prng_impl
    threefry_2x32: Any = _threefry.threefry_2x32
    threefry_prng_impl: Any = _threefry.threefry_prng_impl
except (ImportError, AttributeError):  # pragma: no cover - only a future jax without them
    from jax.extend import core
    from jax.extend import random as _random
    from jax.extend.core import primitives as _primitives

    random_primitives = {
        "bits": _primitives.random_bits_p,
        "split": _primitives.random_split_p,
        "fold_in": _primitives.random_fold_in_p,
        "cipher": _primitives.threefry2x32_p,
    }
    define_prng_impl = _random.define_prng_impl
    threefry_2x32 = _random.threefry_2x32
    threefry_prng_impl = _random.threefry_prng_impl
    _prngs = {}

try:
    from jax._src.config import trace_context as _jax_trace_context
except ImportError:  # pragma: no cover - only a future jax without it
    _jax_trace_context = None

_xla_bridge: Any
try:
    from jax._src import xla_bridge as _xla_bridge
except ImportError:  # pragma: no cover - only a future jax without it
    _xla_bridge = None

try:
    from jax._src.lax.lax import _convert_element_type as _jax_convert_element_type

    _convert_element_type: Any = _jax_convert_element_type
except ImportError:  # pragma: no cover - only a future jax without it
    _convert_element_type = None


def trace_context() -> Hashable:
    """Everything in jax's configuration that a trace may depend on, as a dictionary key.

    jax keys its own caches by this value. A jax without it gets the settings that are
    known to change what an init function traces to.
    """
    config: Any = jax.config
    settings: tuple[Any, ...] = (
        config.jax_enable_x64,
        config.jax_threefry_partitionable,
        config.jax_default_prng_impl,
        config.jax_numpy_dtype_promotion,
        config.jax_numpy_rank_promotion,
        config.jax_default_matmul_precision,
        config.jax_debug_nans,
        config.jax_enable_custom_prng,
    )
    if _jax_trace_context is None:
        return (settings, config.jax_debug_key_reuse)
    return (settings, _jax_trace_context())


def is_key(dtype: Any) -> bool:
    """Whether a dtype is that of typed PRNG keys."""
    return bool(jax.numpy.issubdtype(dtype, jax.dtypes.prng_key))


def is_float(dtype: Any) -> bool:
    """Whether a dtype is a floating-point one, narrow ones included."""
    return bool(jax.numpy.issubdtype(dtype, np.floating))


def tiny(dtype: Any) -> float:
    """The smallest normal number of a floating-point dtype."""
    limits: Any = jax.numpy.finfo
    return float(limits(dtype).tiny)


def partitionable() -> bool:
    """Whether threefry runs in partitionable mode, the only one with a native cipher."""
    config: Any = jax.config
    return bool(config.jax_threefry_partitionable)


def abstract(shape: Sequence[int], dtype: Any, weak_type: bool = False, place: Any = None) -> Any:
    """The type of an array, for tracing."""
    made: Any = jax.ShapeDtypeStruct
    return made(shape, dtype, weak_type=weak_type, sharding=place)


def key_impl(dtype: Any) -> Any:
    """The PRNG implementation behind a typed key's dtype, or in what `define_prng_impl` made."""
    return dtype._impl


def default_prng_name() -> str:
    """Name of the implementation that legacy ``uint32`` keys are read with."""
    config: Any = jax.config
    return str(config.jax_default_prng_impl)


def default_prng() -> Any:
    """The implementation of that name."""
    found = _prngs.get(default_prng_name())
    if found is None:
        with jax.ensure_compile_time_eval():
            found = key_impl(jax.eval_shape(jax.random.key, 0).dtype)
    return found


def prng_named(name: str) -> Any | None:
    """The implementation that jax finds by a name, if any."""
    return _prngs.get(name)


def deciding_settings() -> dict[str, str]:
    """jax's settings that decide which numbers a traced function makes, by name."""
    config: Any = jax.config
    names = (
        *("jax_enable_x64", "jax_threefry_partitionable", "jax_default_prng_impl"),
        *("jax_numpy_dtype_promotion", "jax_default_matmul_precision"),
    )
    return {name: str(getattr(config, name)) for name in names}


# Types whose elements do not fill bytes: how a device packs them is not known here.
_PACKED = frozenset(["int2", "uint2", "int4", "uint4", "float4_e2m1fn"])


def in_memory(array: Any) -> Any:
    """An array's data, ready, in this process's memory.

    Of an array that is there already it is a view: unlike that of `np.asarray`, which the array
    keeps, it does not stand in the way of donation, and lasts until then.
    """
    devices = array.sharding.device_set
    alone = len(devices) == 1 and next(iter(devices)).platform == "cpu"
    if not alone or not array.size or str(array.dtype) in _PACKED:
        return np.asarray(array)
    pointer = array.block_until_ready().unsafe_buffer_pointer()
    data: Any = (ctypes.c_char * array.nbytes).from_address(pointer)
    data.owner = array
    return np.frombuffer(data, np.uint8).view(array.dtype).reshape(array.shape)


def key_words(key: Any) -> Any:
    """The words of a key or an array of keys, typed or legacy."""
    return jax.random.key_data(key) if is_key(key.dtype) else key


def is_tracer(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def trace_of(tracer: Any) -> Any:
    """The trace a tracer belongs to (to see that nothing keeps it alive afterwards)."""
    return getattr(tracer, "_trace", None)


def trace_state() -> object:
    """Which function jax is tracing now, if any; to be compared with ``==``, keeps no trace."""
    return core.get_opaque_trace_state()


@functools.cache
def top_trace_state() -> object:
    """`trace_state` where nothing is being traced, also when asked for inside of a trace."""
    # Traces belong to threads, and a new thread has none.
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(trace_state()))
    thread.start()
    thread.join()
    return found[0]


def at_top() -> bool:
    """Whether nothing is being traced, so that what is called now runs now, and once."""
    return bool(trace_state() == top_trace_state())


def mesh_as_context() -> Any | None:
    """The mesh that is entered as a context manager, if jax still knows of such."""
    try:
        from jax._src.mesh import thread_resources
    except ImportError:  # pragma: no cover - only a future jax without it
        return None
    return thread_resources.env.physical_mesh


def under_trace(values: Sequence[Any]) -> bool:
    """Whether any of ``values`` is being traced, so that no data is there to act on."""
    return any(is_tracer(value) for value in values)


def with_weak_type(value: Any, weak: bool) -> Any:
    """``value`` with jax's weak-type flag set as asked (it decides later promotions)."""
    if _convert_element_type is None or jax.typeof(value).weak_type == weak:
        return value
    return _convert_element_type(value, value.dtype, weak_type=weak)


def compile_time_eval() -> contextlib.AbstractContextManager[None]:
    """Evaluates at once, also while an outer function is being traced."""
    return jax.ensure_compile_time_eval()


def platform() -> str:
    """What jax computes on unless told otherwise: ``cpu``, ``cuda``, or another platform's name."""
    config: Any = jax.config
    device = config.jax_default_device
    return _platform_of(jax.default_backend() if device is None else device)


def first_device(platform: str) -> Any:
    """The device of a platform (one that `platform` names) that jax computes on: its default
    device if that is one, else the first of this process.

    Raises:
        RuntimeError: jax was told to do without this platform.
    """
    config: Any = jax.config
    device = config.jax_default_device
    if hasattr(device, "platform") and _platform_of(device) == platform:
        return device
    return jax.local_devices(backend=platform)[0]


@functools.cache
def has_platform(platform: str) -> bool:
    """Whether jax computes on this platform too, if told to (GPUs of other makers are no cuda)."""
    try:
        return bool(jax.local_devices(backend=platform))
    except RuntimeError:
        return False


def _platform_of(device: Any) -> str:
    name = str(getattr(device, "platform", device))
    return "cuda" if name == "gpu" and has_platform("cuda") else name


@functools.cache
def _alone() -> bool:
    """Whether jax has one platform, so that everything is there."""
    return _xla_bridge is not None and len(_xla_bridge.backends()) == 1


def elsewhere(values: Sequence[Any]) -> str | None:
    """The platform that arrays among ``values`` are bound to, if it is not the one that plans are
    made for."""
    if _alone():
        return None
    here = platform()
    for value in values:
        array = getattr(value, "_base_array", value)
        if isinstance(array, jax.Array) and not is_tracer(array):
            if getattr(array, "committed", True):
                there = _platform_of(next(iter(array.devices())))
                if there != here:
                    return there
    return None


def elsewhere_on(mesh: Any) -> str | None:
    """The platform of a mesh's devices, if it is not the one that plans are made for."""
    if isinstance(mesh, jax.sharding.AbstractMesh):
        return None
    there = _platform_of(mesh.devices.flat[0])
    return None if there == platform() else there


def free_memory(device: Any) -> int | None:
    """Bytes of a device's own memory that jax may still allocate, or None if it does not say."""
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))


def register_ffi_target(
    name: str,
    target: Any,
    *,
    platform: str,
    types: Callable[[], dict[str, Any]] | None = None,
    batched: bool = False,
) -> None:
    """Registers one custom-call target and the state types it needs.

    Args:
        platform: ``cpu`` or ``cuda``.
        batched: whether XLA may split calls over devices along the batch dimensions that they
            say they have (`lowering.lower_batched_call`).
    """
    # A client that starts later would register the waiting targets before their state types,
    # and fail to start at all.
    with contextlib.suppress(RuntimeError):  # jax was told to do without this platform
        jax.local_devices(backend=platform)
    name_of_platform = {"cuda": "CUDA"}.get(platform, platform)
    if types is not None:
        for type_name, type_info in types().items():
            jax.ffi.register_ffi_type(type_name, type_info, platform=name_of_platform)
    jax.ffi.register_ffi_target(name, target, platform=name_of_platform)
    if batched:
        jax.ffi.register_ffi_target_as_batch_partitionable(name)


@contextlib.contextmanager
def axis_env(name: Any, size: int) -> Iterator[None]:
    """Lets a function be traced that has collectives over a named axis of members."""
    if name is None:
        yield
        return
    from jax._src.core import extend_axis_env_nd

    with extend_axis_env_nd([(name, size)]):
        yield


def register_prng(impl: Any) -> None:
    """Lets jax find a PRNG implementation by its name, as checkpointing libraries ask for it."""
    _prngs.setdefault(impl.name, impl)
