"""What XLA makes of `jax.random.normal` on a GPU, from its own PTX, on a machine without one.

    pip install jax jaxlib jax-cuda13-pjrt jax-cuda13-plugin --no-deps ...  (of one version)
    python tools/xla_ptx.py [FOLDER]

Compiles the function ahead of time for an H100, whose description the plugin holds (it needs ptxas
and libdevice of a CUDA toolkit, but no driver), interprets the PTX instruction by instruction for
all 2^23 mantissas, and prints a digest of the numbers: the one in tests/cuda/test_cuda_host.py.
Every operation is rounded as PTX has it but for `sqrt.approx`, which is taken as rounded to
nearest. A GPU has its own there, in the tails, and so has the kernel.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_DEVICE = b"NVIDIA H100 80GB HBM3"
_F32, _U32, _I32 = np.float32, np.uint32, np.int32
_TYPES = {"f32": _F32, "s32": _I32, "u32": _U32, "b32": _U32}


# --- XLA's PTX ------------------------------------------------------------------------------------


def description() -> str:
    """The plugin's own description of the device, as text of a protocol buffer."""
    import jax_plugins.xla_cuda13 as plugin

    code = Path(plugin.__file__).with_name("xla_cuda_plugin.so").read_bytes()
    for match in re.finditer(rb"gpu_device_info \{[^\0]*", code):
        if b'device_description_str: "' + _DEVICE in match[0]:
            return match[0].decode()
    raise RuntimeError(f"the plugin holds no description of {_DEVICE.decode()}")


def compile_for_gpu() -> None:
    """In a process of its own, under flags that have XLA keep its PTX."""
    import jax
    from jax.experimental import topologies

    target: Any = topologies.get_topology_desc(
        "h100", platform="cuda", target_config=description(), topology="1x1x1"
    )
    on = jax.sharding.SingleDeviceSharding(target.devices[0])
    key = jax.ShapeDtypeStruct((2,), np.uint32, sharding=on)
    jax.jit(lambda key: jax.random.normal(key, (1 << 20,)), out_shardings=on).lower(key).compile()


def dump(folder: str) -> str:
    """The PTX of the kernel that draws."""
    flags = f"--xla_dump_to={folder} --xla_gpu_dump_llvmir=true --xla_dump_emitter_re=.*"
    environment = {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
    subprocess.run(
        [sys.executable, __file__, "--compile"],
        env={**os.environ, **environment, "XLA_FLAGS": flags},
        check=True,
    )
    for path in sorted(Path(folder).glob("*.ptx")):
        if "sqrt.approx" in (text := path.read_text(encoding="utf-8")):
            return text
    raise RuntimeError(f"XLA left no PTX with a square root in {folder}")


# --- an interpreter of its straight lines ---------------------------------------------------------


def fused(a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding: the sum is first rounded to odd in double precision."""
    product, c = np.float64(a) * np.float64(b), np.float64(c)
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)
    even = (total.view(np.uint64) & np.uint64(1)) == 0
    inexact = (error != 0) & even & np.isfinite(total)
    return np.where(
        inexact, np.nextafter(total, np.where(error > 0, np.inf, -np.inf)), total
    ).astype(_F32)


def toward_zero(a: Any, b: Any) -> Any:
    exact = np.float64(a) + np.float64(b)
    near = exact.astype(_F32)
    return np.where(np.abs(near) > np.abs(exact), np.nextafter(near, _F32(0)), near)


def _maximum(a: Any, b: Any) -> Any:
    return np.maximum(a, b)  # NaN if either is; no two zeros of unlike sign meet in this kernel


_COMPARE: dict[str, Callable[..., Any]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "add.rn.f32": np.add,
    "sub.rn.f32": np.subtract,
    "mul.rn.f32": np.multiply,
    "add.rz.f32": toward_zero,
    "fma.rn.f32": fused,
    "max.NaN.f32": _maximum,
    "neg.f32": np.negative,
    "abs.f32": np.abs,
    "sqrt.approx.f32": np.sqrt,
    "cvt.rn.f32.s32": lambda x: x.astype(_F32),
    "add.s32": np.add,
    "sub.s32": np.subtract,
    "and.b32": np.bitwise_and,
    "or.b32": np.bitwise_or,
    "shr.u32": np.right_shift,
    "mov.b32": lambda x: x,
}


class Kernel:
    """The instructions of one of the elements that a thread makes, from the random word on."""

    def __init__(self, ptx: str) -> None:
        lines = [line.split("//")[0].strip().rstrip(";") for line in ptx.splitlines()]
        code = [
            (op, re.split(r",\s*", rest)) for op, _, rest in (line.partition(" ") for line in lines)
        ]
        code = [(op, [name.strip() for name in names]) for op, names in code]
        self.first = max(i for i, (op, a) in enumerate(code) if op == "shr.u32" and a[-1] == "9")
        stored = next(a for op, a in code[self.first :] if op.startswith("st.global"))
        written = {a[0] for op, a in code[self.first :] if not op.startswith("st.")}
        names = re.findall(r"%\w+", " ".join(stored[1:]))
        self.result = [name for name in names if name in written][-1]
        self.word = code[self.first][1][1]
        # Backwards from the result: other elements' instructions stand between these.
        needed, self.code = {self.result}, []
        for op, names in reversed(code[self.first :]):
            if names[0] in needed and not op.startswith("st."):
                self.code.append((op, names))
                needed |= {name for name in names[1:] if name.startswith("%")}
        self.code.reverse()
        constants = {a[0]: a[1] for op, a in code[: self.first] if op == "mov.b32" and len(a) == 2}
        self.constants = {name: constants[name] for name in needed & constants.keys()}

    def __call__(self, words: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        registers: dict[str, Any] = {self.word: words}

        def read(name: str, kind: str) -> Any:
            name = self.constants.get(name, name)
            if name.startswith("%p"):
                return registers[name]
            if name.startswith("%"):
                value = registers[name]
            elif name.startswith("0f"):
                value = np.full(words.shape, int(name[2:], 16), _U32)
            else:
                value = np.full(words.shape, int(name, 0) & 0xFFFFFFFF, _U32)
            return np.ascontiguousarray(value).view(_TYPES[kind])

        with np.errstate(all="ignore"):
            for op, (to, *names) in self.code:
                parts = op.split(".")
                if parts[0] == "setp":
                    values = [read(name, parts[-1]) for name in names]
                    registers[to] = _COMPARE[parts[1]](*values)
                elif parts[0] == "selp":
                    values = [read(name, "b32") for name in names[:2]]
                    registers[to] = np.where(registers[names[2]], *values)
                elif op.endswith(".pred"):
                    logic = {"and": np.logical_and, "or": np.logical_or, "not": np.logical_not}
                    registers[to] = logic[parts[0]](*(registers[name] for name in names))
                else:
                    registers[to] = _OPERATIONS[op](*(read(name, parts[-1]) for name in names))
        return np.ascontiguousarray(registers[self.result]).view(_F32)


def all_normals(ptx: str) -> np.ndarray[Any, Any]:
    """The numbers for all mantissas, in their order."""
    kernel, words = Kernel(ptx), np.arange(1 << 23, dtype=_U32) << _U32(9)
    return np.concatenate([kernel(part) for part in np.split(words, 16)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where XLA's files are kept")
    parser.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.compile:
        compile_for_gpu()
        return 0
    with tempfile.TemporaryDirectory() as folder:
        made = all_normals(dump(args.folder or folder))
    print(hashlib.blake2b(made.tobytes(), digest_size=16).hexdigest())
    return 0


if __name__ == "__main__":
    sys.exit(main())
