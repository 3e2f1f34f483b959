"""Looks at how an extension is hardened, in the ELF file itself.

    python tools/hardening.py FILE... [--no-fortify]

Fails if a file lacks what CMakeLists.txt asks for: relocations that are read-only and all resolved
at once (full RELRO), a stack that is not executable, stack protectors, checked calls of the C
library (FORTIFY) and, on x86-64, functions that begin with `endbr64`; or if it has text relocations
or a search path. Whether the file as a whole is marked for CET is printed and not asked for: the
linker drops the mark where the system's startup files, or a library that is linked in, have none.
"""

from __future__ import annotations

import argparse
import struct
from pathlib import Path

_X86_64 = 62
_LOAD, _DYNAMIC, _STACK, _RELRO, _PROPERTY = 1, 2, 0x6474E551, 0x6474E552, 0x6474E553
_RPATH, _TEXTREL, _BIND_NOW, _RUNPATH = 15, 22, 24, 29
_FLAGS, _FLAGS_1 = 30, 0x6FFFFFFB
_DYNSYM = 11
_ENDBR64 = b"\xf3\x0f\x1e\xfa"
_CET = {1: "IBT", 2: "SHSTK"}


class Elf:
    """What is asked of a 64-bit little-endian ELF file."""

    def __init__(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not a 64-bit little-endian ELF file")
        self.data = data
        self.machine = struct.unpack_from("<H", data, 18)[0]
        first, sections = struct.unpack_from("<QQ", data, 32)
        size, number, section_size, section_number = struct.unpack_from("<HHHH", data, 54)
        # type, flags, offset, address, physical address, size in the file, in memory, alignment
        self.segments = [
            struct.unpack_from("<IIQQQQQQ", data, first + size * index) for index in range(number)
        ]
        # name, type, flags, address, offset, size, link, info, alignment, size of an entry
        self.sections = [
            struct.unpack_from("<IIQQQQIIQQ", data, sections + section_size * index)
            for index in range(section_number)
        ]

    def dynamic(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for kind, _, offset, _, _, size, *_ in self.segments:
            if kind == _DYNAMIC:
                found.update(struct.iter_unpack("<QQ", self.data[offset : offset + size]))
        return found

    def symbols(self) -> dict[str, int]:
        """Dynamic symbols and their addresses, 0 for those that come from elsewhere."""
        found = {}
        for _, kind, _, _, offset, size, link, *_ in self.sections:
            if kind == _DYNSYM:
                names = self.sections[link][4]
                entries = struct.iter_unpack("<IBBHQQ", self.data[offset : offset + size])
                for name, _, _, _, address, _ in entries:
                    end = self.data.index(b"\0", names + name)
                    found[self.data[names + name : end].decode()] = address
        return found

    def at(self, address: int, size: int) -> bytes:
        for kind, _, offset, start, _, length, *_ in self.segments:
            if kind == _LOAD and start <= address < start + length:
                return self.data[offset + address - start :][:size]
        return b""

    def cet(self) -> list[str]:
        """What the whole file is marked for."""
        for kind, _, offset, _, _, size, *_ in self.segments:
            if kind == _PROPERTY:
                note = self.data[offset : offset + size]
                at = note.find(struct.pack("<II", 0xC0000002, 4))
                bits = struct.unpack_from("<I", note, at + 8)[0] if at >= 0 else 0
                return [name for bit, name in _CET.items() if bits & bit]
        return []


def problems(elf: Elf, fortify: bool = True) -> list[str]:
    """What a file lacks, in sentences."""
    wrong = []
    kinds = {segment[0] for segment in elf.segments}
    dynamic, symbols = elf.dynamic(), elf.symbols()
    at_once = _BIND_NOW in dynamic or dynamic.get(_FLAGS, 0) & 8 or dynamic.get(_FLAGS_1, 0) & 1
    if _RELRO not in kinds:
        wrong.append("relocations stay writable (no -z relro)")
    if not at_once:
        wrong.append("relocations are resolved one by one (no -z now)")
    if any(kind == _STACK and flags & 1 for kind, flags, *_ in elf.segments):
        wrong.append("its stack is executable")
    if _STACK not in kinds:
        wrong.append("it does not say that its stack is not executable (no -z noexecstack)")
    if _TEXTREL in dynamic or dynamic.get(_FLAGS, 0) & 4:
        wrong.append("it has text relocations")
    if _RPATH in dynamic or _RUNPATH in dynamic:
        wrong.append("it has a search path for libraries")
    if "__stack_chk_fail" not in symbols:
        wrong.append("no function protects its stack (no -fstack-protector-strong)")
    if fortify and not any(name.endswith("_chk") for name in symbols):
        wrong.append("no call of the C library is checked (no _FORTIFY_SOURCE)")
    starts = [at for name, at in symbols.items() if name.startswith("PyInit_") and at]
    if not starts:
        wrong.append("it is no extension module: it exports no PyInit_")
    if elf.machine == _X86_64 and any(elf.at(at, 4) != _ENDBR64 for at in starts):
        wrong.append("functions do not begin with endbr64 (no -fcf-protection)")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument(
        "--no-fortify", action="store_true", help="for C libraries without checked calls"
    )
    options = parser.parse_args(arguments)
    status = 0
    for file in options.files:
        elf = Elf(file.read_bytes())
        wrong = problems(elf, fortify=not options.no_fortify)
        marks = f"marked for CET: {' '.join(elf.cet()) or 'no'}" if elf.machine == _X86_64 else ""
        print(f"{file.name}: {'; '.join(wrong) or 'hardened'}{marks and f' ({marks})'}")
        status |= bool(wrong)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
