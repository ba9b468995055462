"""Reads cubins: what a driver must know of a kernel for NVIDIA GPUs to place and launch it.

A cubin is an ELF file whose attributes lie in sections `.nv.info` (of all functions) and
`.nv.info.KERNEL`: entries of a format, an attribute number and a value (EIATTR_*; numbers as
`cuobjdump -elf` names them). Every number of the file is checked; a damaged one is a
MalformedObject.

Code that nvJitLink makes calls functions in sections of their own by their addresses, and is
told its own: `place` writes them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from compiler.elf_sections import REL, ElfFile
from compiler.errors import MalformedObject, UnsupportedObject

SIZE_LIMIT = 256 << 20
"""Bytes of a cubin. Kernels take a few KiB."""

EM_CUDA = 190
_ABI_WITH_SM_ABOVE = 8  # EI_ABIVERSION of CUDA 13: the architecture moved to bits 15:8
_REGISTER_LIMIT, _BARRIER_LIMIT, _BANK_LIMIT = 255, 16, 64 << 10
_BANKS = 8
CODE_ALIGNMENT = 128
"""Of functions. Bytes."""

# R_CUDA number → what an instruction of 128 bits takes of an address: (first bit, bits, lowest bit
# of the address). The names say it: ABS32_LO_32, ABS32_HI_32, ABS47_34, ABS55_16_34; that calls
# count in units of 4 bytes was seen with nvdisasm.
RELOCATIONS = {
    56: ((32, 32, 0),), 57: ((32, 32, 32),), 58: ((34, 47, 2),), 75: ((16, 8, 2), (34, 47, 10)),
}  # fmt: skip
_INSTRUCTION_BYTES = 16
_POINTERS = (2, 4)
"""R_CUDA_64 and R_CUDA_G64: 8 bytes of data are an address, or a generic one, which is the same."""
VARIABLES_LIMIT = 1 << 30
_VARIABLES = (".nv.global.init", ".nv.global")
VARIABLE_ALIGNMENT = 256
"""Of the sections of variables. Bytes."""


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
    """An instruction that depends on an address: `kind` is the R_CUDA number.

    `symbol` is the function that it counts from, or something else that the file lacks.
    """

    offset: int
    kind: int
    symbol: str
    addend: int


class Data(NamedTuple):
    """Bytes that the compiler made: of a constant bank, or of variables.

    `pointers` are (offset, distance): 8 bytes there are the address of the variables and so much.
    """

    content: bytes
    pointers: tuple[tuple[int, int], ...] = ()

    def placed(self, variables: int) -> bytes:
        """The bytes, where variables begin at that address."""
        image = bytearray(self.content)
        for offset, distance in self.pointers:
            struct.pack_into("<Q", image, offset, variables + distance)
        return bytes(image)


@dataclass(frozen=True)
class Function:
    """Code that kernels call."""

    name: str
    code: bytes
    relocations: tuple[Relocation, ...]


@dataclass(frozen=True)
class Kernel(Function):
    """One kernel of a cubin. Sizes are in bytes; registers and stack are of one thread."""

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
    banks: dict[int, Data]
    """What the compiler put into other constant banks: numbers too long for an instruction, and
    where branches and calls by register lead."""


@dataclass(frozen=True)
class Cubin:
    """A cubin: its architecture (`sm_90`), kernels, functions, and what they all share: constant
    banks, and variables, of which those that begin as zeros follow the others."""

    arch: str
    kernels: dict[str, Kernel]
    functions: dict[str, Function]
    banks: dict[int, Data]
    variables: Data
    variables_bytes: int

    def place(self, kernel: str, address: int) -> bytes:
        """A kernel's code and behind it that of functions that it calls, as it is at an address.

        Raises UnsupportedObject where it depends on the address of anything else.
        """
        parts: list[Function] = [self.kernels[kernel]]
        places, size = {kernel: 0}, len(parts[0].code)
        for part in parts:  # which grows
            for name in (relocation.symbol for relocation in part.relocations):
                if name in self.functions and name not in places:
                    size = -(-size // CODE_ALIGNMENT) * CODE_ALIGNMENT
                    places[name] = size
                    size += len(self.functions[name].code)
                    parts.append(self.functions[name])
        image = bytearray(size)
        for part in parts:
            start = places[part.name]
            image[start : start + len(part.code)] = part.code
            for relocation in part.relocations:
                if relocation.symbol not in places:
                    raise _unsupported(f"{part.name} needs the address of {relocation.symbol}")
                target = address + places[relocation.symbol] + relocation.addend
                _write(image, start + relocation.offset, relocation.kind, target)
        return bytes(image)


def _write(image: bytearray, at: int, kind: int, target: int) -> None:
    """What one relocation asks for."""
    word = int.from_bytes(image[at : at + _INSTRUCTION_BYTES], "little")
    for first, width, low in RELOCATIONS[kind]:
        mask = (1 << width) - 1
        word = word & ~(mask << first) | (target >> low & mask) << first
    image[at : at + _INSTRUCTION_BYTES] = word.to_bytes(_INSTRUCTION_BYTES, "little")


def read(content: bytes) -> Cubin:
    """The parts of a cubin.

    Raises MalformedObject for a damaged file, UnsupportedObject for an ELF file of another kind.
    """
    if len(content) > SIZE_LIMIT:
        raise _malformed(f"it has {len(content)} bytes, more than {SIZE_LIMIT}")
    return _Reader(content).cubin()


def _unsupported(what: str) -> UnsupportedObject:
    return UnsupportedObject(
        f"The cubin is not for our drivers: {what}.", operation="read cubin"
    )


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
        self.file = ElfFile(content, _malformed)
        if self.file.machine != EM_CUDA:
            raise UnsupportedObject(
                f"The file is an ELF file for machine {self.file.machine}, not a cubin.",
                operation="read cubin",
            )
        self.sections, self.data = self.file.sections, self.file.data
        if ".symtab" not in self.sections:
            raise _malformed("it has no symbol table")
        self.symbols = self.file.symbols(".symtab")
        self.variables: dict[str, int] = {}  # where their sections begin
        self.variables_bytes = 0
        for name in _VARIABLES:
            if name in self.sections:
                start = -(-self.variables_bytes // VARIABLE_ALIGNMENT) * VARIABLE_ALIGNMENT
                self.variables[name] = start
                self.variables_bytes = start + self.sections[name].size
        if self.variables_bytes > VARIABLES_LIMIT:
            raise _unsupported(
                f"it has {self.variables_bytes} bytes of variables, more than {VARIABLES_LIMIT}"
            )

    def cubin(self) -> Cubin:
        per_function: dict[str, dict[int, int]] = {}
        for attribute, payload in self.info(".nv.info"):
            if attribute in (Attribute.REGCOUNT, Attribute.MIN_STACK_SIZE, Attribute.FRAME_SIZE):
                number, value = _words(attribute, payload, 2)
                name = self.function_of(number)[0]
                per_function.setdefault(name, {})[attribute] = value
        names = [n.removeprefix(".text.") for n in self.sections if n.startswith(".text.")]
        kernels, functions = {}, {}
        for name in names:
            if f".nv.constant0.{name}" in self.sections:
                kernels[name] = self.kernel(name, per_function.get(name, {}))
            else:
                functions[name] = Function(name, self.code(name), self.relocations(name))
        return Cubin(
            f"sm_{self.architecture()}", kernels, functions, self.banks(),
            self.placeable(_VARIABLES[0]), self.variables_bytes,
        )

    def architecture(self) -> int:
        flags = int(self.file.flags)
        above = self.file.abi_version >= _ABI_WITH_SM_ABOVE
        return flags >> 8 & 0xFF if above else flags & 0xFF

    def function_of(self, number: int) -> tuple[str, int]:
        """The function that a symbol is in, and how far; its own name if it is in none."""
        if number >= len(self.symbols):
            raise _malformed(f"symbol {number} of {len(self.symbols)}")
        name, section, value = self.symbols[number]
        if section is None or not section.name.startswith(".text."):
            return name, 0
        return section.name.removeprefix(".text."), value

    def code(self, name: str) -> bytes:
        content = self.data(f".text.{name}")
        if not content or len(content) % _INSTRUCTION_BYTES:
            raise _malformed(f"{name} has {len(content)} bytes of code")
        return content

    def info(self, name: str) -> Iterator[tuple[int, bytes]]:
        return attributes(self.data(name))

    def banks(self, kernel: str = "") -> dict[int, Data]:
        """The constant banks of a kernel but for the first, or those that belong to none."""
        found = {}
        for name in self.sections:
            number, _, owner = name.removeprefix(".nv.constant").partition(".")
            if not name.startswith(".nv.constant") or owner != kernel or number == "0":
                continue
            if not number.isdecimal() or int(number) >= _BANKS:
                raise _malformed(f"{name} is no constant bank; there are {_BANKS}")
            bank = self.placeable(name)
            if bank.content:
                found[int(number)] = Data(self.limited(name, bank.content), bank.pointers)
        return found

    def placeable(self, name: str) -> Data:
        """A section, with the addresses of variables that it lacks. Raises UnsupportedObject."""
        content, pointers = self.data(name), []
        for prefix in (".rela", ".rel"):
            if prefix + name not in self.sections:
                continue
            for offset, kind, number, addend in self.file.relocations(prefix + name):
                if number >= len(self.symbols):
                    raise _malformed(f"symbol {number} of {len(self.symbols)}")
                symbol, section, value = self.symbols[number]
                if kind not in _POINTERS or section is None or section.name not in self.variables:
                    raise _unsupported(f"{name} has a relocation of kind {kind} to {symbol}")
                if offset + 8 > len(content):
                    raise _malformed(f"{name} has a relocation at {offset} of {len(content)} bytes")
                if self.sections[prefix + name].kind == REL:  # what is added stands in its place
                    (addend,) = struct.unpack_from("<q", content, offset)
                distance = self.variables[section.name] + value + addend
                if not 0 <= distance <= self.variables_bytes:
                    raise _malformed(f"{name} has an address {distance} bytes behind variables")
                pointers.append((offset, distance))
        return Data(content, tuple(pointers))

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
        shared = self.sections.get(f".nv.shared.{name}")
        for what, value, limit in (
            ("registers", registers, _REGISTER_LIMIT), ("barriers", barriers, _BARRIER_LIMIT),
            ("bytes of parameters in its constant bank", base + size, len(constants)),
        ):
            if value > limit:
                raise _malformed(f"{name} has {value} {what}, beyond {limit}")
        if not registers:
            raise _malformed(f"{name} has no registers")
        if any(p.offset + p.size_bytes > size for p in parameters):
            raise _malformed(f"a parameter of {name} lies behind its {size} bytes")
        return Kernel(
            name, self.code(name), self.relocations(name), registers,
            values.get(Attribute.MIN_STACK_SIZE, 0), shared.size if shared is not None else 0,
            barriers, base, size, tuple(sorted(parameters)), block, constants,
            self.banks(name),
        )  # fmt: skip

    @staticmethod
    def parameter(payload: bytes) -> Parameter:
        """KPARAM_INFO: index, then ordinal and offset in 16 bits each, then flags and size."""
        _, place, flags = _words(Attribute.KPARAM_INFO, payload, 3)
        return Parameter(place & 0xFFFF, place >> 16, flags >> 18)

    def relocations(self, name: str) -> tuple[Relocation, ...]:
        """What the loader must write into a function's code. Raises UnsupportedObject."""
        found = []
        size = self.sections[f".text.{name}"].size
        for prefix in (".rela.text.", ".rel.text."):
            if prefix + name not in self.sections:
                continue
            for offset, kind, number, addend in self.file.relocations(prefix + name):
                symbol, value = self.function_of(number)
                if kind not in RELOCATIONS:
                    raise _unsupported(f"{name} has a relocation of kind {kind}")
                if offset % _INSTRUCTION_BYTES or offset >= size:
                    raise _malformed(f"{name} has a relocation at {offset} of {size} bytes")
                found.append(Relocation(offset, kind, symbol, value + addend))
        return tuple(found)
