"""Methods of a class: what a pushbuffer writes, by the names of the class's header."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from drivers.emulated.engine import BadPacket

Field = tuple[int, int]  # shift, width

WIDE_FIRST_CLASS = 0xCBC0  # from Hopper on, upper halves of compute's addresses have 25 bits
NARROW_BITS, WIDE_BITS = 17, 25


class Method(NamedTuple):
    """One method. `fields` is empty where the header names none: then all 32 bits count."""

    name: str
    number: int  # of those that there are several of
    fields: dict[str, Field]
    mask: int


class ClassMethods:
    """The methods of one class, by offset in bytes."""

    def __init__(self, module: str, class_number: int) -> None:
        header: Any = importlib.import_module(f"autogen.{module}")
        self.module, self.values = module, header.VALUES
        self.entry: dict[str, Field] = header.FIELDS.get("ENTRY", {})
        self.by_offset: dict[int, Method] = {}
        self.by_name: dict[str, Method] = {}
        for name, place in header.METHODS.items():
            fields = dict(header.FIELDS.get(name, {}))
            if class_number >= WIDE_FIRST_CLASS:
                fields = {field: _widened(field, at) for field, at in fields.items()}
            mask = sum({((1 << width) - 1) << shift for shift, width in fields.values()})
            if not fields or _overlap(fields):
                mask = 0xFFFFFFFF
            count = ARRAYS.get(name, 1) if len(place) > 1 else 1
            for index in range(count):
                method = Method(name, index, fields, mask)
                self.by_offset[place[0] + index * (place[1] if len(place) > 1 else 0)] = method
            self.by_name[name] = method
        self.get = functools.lru_cache(FIELD_VALUES)(self._get)
        self.named = functools.lru_cache(FIELD_VALUES)(self._named)

    def find(self, offset: int, value: int) -> Method:
        """The method at an offset, for a value. Raises BadPacket."""
        method = self.by_offset.get(offset)
        if method is None:
            raise BadPacket(f"method {offset:#x} = {value:#x} is none that {self.module} has")
        if value & ~method.mask:
            raise BadPacket(f"{method.name} = {value:#x}: reserved bits {value & ~method.mask:#x}")
        return method

    def _get(self, method: str, field: str, value: int) -> int:
        """A field of a method's value; 0 where this class has no such field."""
        shift, width = self.by_name[method].fields.get(field, (0, 0))
        return value >> shift & (1 << width) - 1

    def _named(self, method: str, field: str, value: int) -> str:
        """The name of a field's value, or its number."""
        number = self.get(method, field, value)
        for name, known in self.values.get(f"{method}.{field}", {}).items():
            if known == number:
                return str(name)
        return str(number)


FIELD_VALUES = 4096  # that are remembered: programs write few different ones
ARRAYS = {"LOAD_INLINE_QMD_DATA": 64, "SET_SCG_COMPUTE_SCHEDULING_PARAMETERS": 16}


def _widened(field: str, place: tuple[int, ...]) -> Field:
    shift, width = place
    upper = field.endswith("UPPER") and (shift, width) == (0, NARROW_BITS)
    return (0, WIDE_BITS) if upper else (shift, width)


def _overlap(fields: dict[str, Field]) -> bool:
    """Whether fields are alternatives for the same bits, as those of MEM_OP are."""
    seen = 0
    for shift, width in fields.values():
        mask = ((1 << width) - 1) << shift
        if seen & mask:
            return True
        seen |= mask
    return False


@functools.cache
def class_methods(module: str, class_number: int) -> ClassMethods:
    """The methods of a class, read once."""
    return ClassMethods(module, class_number)


Write = tuple[int, int, int]  # subchannel, offset in bytes, value


class Header(NamedTuple):
    """The first word of a method, taken apart: how often and by how much its address moves."""

    subchannel: int
    offset: int
    words: int
    first_step: int
    step: int
    immediate: int | None = None
    ends: bool = False


@functools.lru_cache(maxsize=4096)
def header_of(word: int, methods: ClassMethods) -> Header:
    """A header. Raises BadPacket."""

    def get(field: str) -> int:
        shift, width = methods.entry[field]
        return word >> shift & (1 << width) - 1

    operations: dict[str, int] = methods.values["ENTRY.DMA_SEC_OP"]
    operation = get("DMA_SEC_OP")
    subchannel, offset = get("DMA_METHOD_SUBCHANNEL"), get("DMA_METHOD_ADDRESS") << 2
    if operation == operations["IMMD_DATA_METHOD"]:
        return Header(subchannel, offset, 0, 0, 0, get("DMA_IMMD_DATA"))
    if operation == operations["END_PB_SEGMENT"]:
        return Header(subchannel, offset, 0, 0, 0, ends=True)
    steps = {
        operations["INC_METHOD"]: (4, 4), operations["NON_INC_METHOD"]: (0, 0),
        operations["ONE_INC"]: (4, 0),
    }.get(operation)
    if steps is None:
        raise BadPacket(f"method header {word:#x}: operation {operation}")
    return Header(subchannel, offset, get("DMA_METHOD_COUNT"), *steps)


def decode(words: list[int], methods: ClassMethods) -> Iterator[Write]:
    """The methods of one segment of a pushbuffer. Raises BadPacket."""
    at, end = 0, len(words)
    while at < end:
        word = words[at]
        at += 1
        if not word:
            continue  # DMA_NOP
        subchannel, offset, count, step, later, immediate, ends = header_of(word, methods)
        if ends:
            return
        if immediate is not None:
            yield subchannel, offset, immediate
            continue
        if at + count > end:
            raise BadPacket(f"method header {word:#x}: {count} words, {end - at} are left")
        for index in range(at, at + count):
            yield subchannel, offset, words[index]
            offset += step
            step = later
        at += count
