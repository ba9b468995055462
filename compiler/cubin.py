"""Reads cubins: what a driver must know of a kernel for NVIDIA GPUs to place and launch it.

A cubin is an ELF file whose attributes lie in sections `.nv.info` (of all functions) and
`.nv.info.KERNEL`: entries of a format, an attribute number and a value (EIATTR_*; numbers as
`cuobjdump -elf` names them). Every number of the file is checked; a damaged one is a
MalformedObject.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from compiler.errors import MalformedObject, UnsupportedObject

SIZE_LIMIT = 256 << 20
"""Bytes of a cubin. Kernels take a few KiB."""

EM_CUDA = 190
_ABI_WITH_SM_ABOVE = 8  # EI_ABIVERSION of CUDA 13: the architecture moved to bits 15:8
_REGISTER_LIMIT, _BARRIER_LIMIT, _BANK_LIMIT = 255, 16, 64 << 10


class Attribute(IntEnum):
    """EIATTR numbers of what is read here."""

    MAX_THREADS = 0x05
    PARAM_CBANK = 0x0A
    REQNTID = 0x10
    FRAME_SIZE = 0x11
    MIN_STACK_SIZE = 0x12
    KPARAM_INFO = 0x17
    CBANK_PARAM_SIZE = 0x19
    MAXREG_COUNT = 0x1B
    REGCOUNT = 0x2F
    NUM_BARRIERS = 0x4C


class _Format(IntEnum):
    NO_VALUE = 1
    BYTE = 2
    HALF = 3
    SIZED = 4  # the 16-bit value is the size of a payload behind


class Parameter(NamedTuple):
    """One kernel parameter: where it lies behind the base of the parameters, in bytes."""

    ordinal: int
    offset: int
    size_bytes: int


class Relocation(NamedTuple):
    """A place in a section that depends on the address of a symbol: `kind` is the R_CUDA number."""

    offset: int
    kind: int
    symbol: str
    addend: int


@dataclass(frozen=True)
class Kernel:
    """One kernel of a cubin. Sizes are in bytes; registers and stack are of one thread."""

    name: str
    code: bytes
    registers: int
    stack_bytes: int
    shared_bytes: int
    barriers: int
    parameter_base: int
    """Where parameters begin in constant bank 0."""
    parameter_bytes: int
    parameters: tuple[Parameter, ...]
    block: tuple[int, int, int] | None
    """The block that the kernel must have, if it says so."""
    constants: bytes
    """Constant bank 0 as the compiler filled it: the driver's words, then room for parameters."""
    relocations: tuple[Relocation, ...]


@dataclass(frozen=True)
class Cubin:
    """A cubin: its architecture (`sm_90`), its kernels, and constant banks that they share."""

    arch: str
    kernels: dict[str, Kernel]
    banks: dict[int, bytes]


def read(content: bytes) -> Cubin:
    """The parts of a cubin.

    Raises MalformedObject for a damaged file, UnsupportedObject for an ELF file of another kind.
    """
    if len(content) > SIZE_LIMIT:
        raise _malformed(f"it has {len(content)} bytes, more than {SIZE_LIMIT}")
    try:
        return _Reader(content).cubin()
    except (MalformedObject, UnsupportedObject):
        raise
    except Exception as error:  # pyelftools lets errors of many kinds out for a damaged file
        raise _malformed(f"{type(error).__name__} while reading it: {error}") from error


def _malformed(what: str) -> MalformedObject:
    return MalformedObject(f"The cubin is damaged: {what}.", operation="read cubin")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The (attribute, value) pairs of a `.nv.info` section."""
    at = 0
    while at + 4 <= len(data):
        format, attribute, value = struct.unpack_from("<BBH", data, at)
        at += 4
        payload = struct.pack("<H", value)
        if format == _Format.SIZED:
            payload = data[at : at + value]
            if len(payload) < value:
                raise _malformed(f"attribute {attribute:#x} has {value} bytes, {len(payload)} left")
            at += value
        elif format not in (_Format.NO_VALUE, _Format.BYTE, _Format.HALF):
            raise _malformed(f"attribute {attribute:#x} has the format {format}")
        yield attribute, payload
    if at != len(data):
        raise _malformed(f"{len(data) - at} bytes follow the last attribute")


def _words(attribute: int, payload: bytes, count: int) -> tuple[int, ...]:
    if len(payload) < 4 * count:
        raise _malformed(f"attribute {attribute:#x} has {len(payload)} bytes, not {4 * count}")
    return struct.unpack_from(f"<{count}I", payload)


class _Reader:
    def __init__(self, content: bytes) -> None:
        from elftools.elf.elffile import ELFFile

        self.size = len(content)
        self.file = ELFFile(io.BytesIO(content))
        if self.file["e_machine"] not in ("EM_CUDA", EM_CUDA):
            raise UnsupportedObject(
                f"The file is an ELF file for {self.file['e_machine']}, not a cubin.",
                operation="read cubin",
            )
        self.sections: dict[str, Any] = {s.name: s for s in self.file.iter_sections()}
        table = self.sections.get(".symtab")
        if table is None:
            raise _malformed("it has no symbol table")
        self.symbols = [str(symbol.name) for symbol in table.iter_symbols()]

    def cubin(self) -> Cubin:
        per_function: dict[str, dict[int, int]] = {}
        for attribute, payload in self.info(".nv.info"):
            if attribute in (Attribute.REGCOUNT, Attribute.MIN_STACK_SIZE, Attribute.FRAME_SIZE):
                symbol, value = _words(attribute, payload, 2)
                per_function.setdefault(self.symbol(symbol), {})[attribute] = value
        names = [n.removeprefix(".text.") for n in self.sections if n.startswith(".text.")]
        kernels = {
            name: self.kernel(name, per_function.get(name, {}))
            for name in names
            if f".nv.info.{name}" in self.sections
        }
        return Cubin(f"sm_{self.architecture()}", kernels, self.banks())

    def architecture(self) -> int:
        flags = int(self.file["e_flags"])
        above = self.file["e_ident"]["EI_ABIVERSION"] >= _ABI_WITH_SM_ABOVE
        return flags >> 8 & 0xFF if above else flags & 0xFF

    def symbol(self, number: int) -> str:
        if number >= len(self.symbols):
            raise _malformed(f"symbol {number} of {len(self.symbols)}")
        return self.symbols[number]

    def data(self, name: str) -> bytes:
        """A section's bytes, or none if it is not there."""
        section = self.sections.get(name)
        if section is None or section["sh_type"] == "SHT_NOBITS":
            return b""
        if section["sh_offset"] + section["sh_size"] > self.size:
            raise _malformed(f"section {name} ends behind the file")
        return bytes(section.data())

    def info(self, name: str) -> Iterator[tuple[int, bytes]]:
        return attributes(self.data(name))

    def banks(self) -> dict[int, bytes]:
        """Constant banks that belong to no kernel."""
        found = {}
        for name in self.sections:
            number = name.removeprefix(".nv.constant")
            if number != name and number.isdecimal() and (content := self.data(name)):
                found[int(number)] = self.limited(name, content)
        return found

    @staticmethod
    def limited(name: str, content: bytes) -> bytes:
        if len(content) > _BANK_LIMIT:
            raise _malformed(f"{name} has {len(content)} bytes; a bank has {_BANK_LIMIT}")
        return content

    def kernel(self, name: str, values: dict[int, int]) -> Kernel:
        """Everything of one kernel, each number within its limit."""
        base = size = barriers = 0
        block: tuple[int, int, int] | None = None
        parameters = []
        for attribute, payload in self.info(f".nv.info.{name}"):
            if attribute == Attribute.PARAM_CBANK:
                _, place = _words(attribute, payload, 2)
                base, size = place & 0xFFFF, place >> 16
            elif attribute == Attribute.KPARAM_INFO:
                parameters.append(self.parameter(payload))
            elif attribute == Attribute.REQNTID:
                x, y, z = _words(attribute, payload, 3)
                block = (x, y, z)
            elif attribute == Attribute.NUM_BARRIERS:
                barriers = payload[0]
        registers = values.get(Attribute.REGCOUNT, 0)
        constants = self.limited(f"bank 0 of {name}", self.data(f".nv.constant0.{name}"))
        code = self.data(f".text.{name}")
        shared = self.sections.get(f".nv.shared.{name}")
        for what, value, limit in (
            ("registers", registers, _REGISTER_LIMIT), ("barriers", barriers, _BARRIER_LIMIT),
            ("bytes of parameters in its constant bank", base + size, len(constants)),
        ):
            if value > limit:
                raise _malformed(f"{name} has {value} {what}, beyond {limit}")
        if not code or len(code) % 16 or not registers:
            raise _malformed(f"{name} has {len(code)} bytes of code and {registers} registers")
        if any(p.offset + p.size_bytes > size for p in parameters):
            raise _malformed(f"a parameter of {name} lies behind its {size} bytes")
        return Kernel(
            name, code, registers, values.get(Attribute.MIN_STACK_SIZE, 0),
            int(shared["sh_size"]) if shared is not None else 0, barriers, base, size,
            tuple(sorted(parameters)), block, constants, self.relocations(name),
        )  # fmt: skip

    @staticmethod
    def parameter(payload: bytes) -> Parameter:
        """KPARAM_INFO: index, then ordinal and offset in 16 bits each, then flags and size."""
        _, place, flags = _words(Attribute.KPARAM_INFO, payload, 3)
        return Parameter(place & 0xFFFF, place >> 16, flags >> 18)

    def relocations(self, name: str) -> tuple[Relocation, ...]:
        """What the loader must write into a kernel's code."""
        found = []
        for prefix, addends in ((".rela.text.", True), (".rel.text.", False)):
            section = self.sections.get(prefix + name)
            if section is None:
                continue
            for entry in section.iter_relocations():
                symbol = self.symbol(int(entry["r_info_sym"]))
                addend = int(entry["r_addend"]) if addends else 0
                found.append(
                    Relocation(int(entry["r_offset"]), int(entry["r_info_type"]), symbol, addend)
                )
        return tuple(found)
