"""Reads pickles that hold data. Nothing in a pickle is ever imported or called.

A pickle is a program for a stack machine. Here it can make numbers, strings, lists, tuples,
dicts and sets; names that it asks for are looked up in a table that the caller gives, and only
functions from that table are called. Opcodes: CPython's Lib/pickletools.py, protocols 0 to 5.

What is built is counted against a budget, since one byte can stand for an object of two hundred.
"""

from __future__ import annotations

import reprlib
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from drivers.errors import MalformedInput

MAX_KEY_DEPTH: Final = 4  # of tuples in keys: hashing them is recursive
_KEY_LIMIT: Final = 1 << 63

# Bytes that an object takes, at most, with its places in the stack, the memo and its container.
_SMALL, _CONTAINER, _SET = 100, 300, 500
_TEXT = 4  # bytes for each byte of UTF-8

_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 100
_REPR.maxlevel = 2


@dataclass(frozen=True)
class Global:
    """What a name in the table stands for: a function of ours, or only a mark without one."""

    name: str
    call: Callable[..., Any] | None = None
    value: Any = None


_Step = Callable[["Unpickler"], None]
_STEPS: dict[int, _Step] = {}


def _opcode(*codes: bytes) -> Callable[[_Step], _Step]:
    def declare(step: _Step) -> _Step:
        for code in codes:
            _STEPS[code[0]] = step
        return step

    return declare


class Unpickler:
    """One pickle in `data` from `position` on. `load()` gives its value and moves `position`.

    globals: what names mean, by (module, name). persistent: called with what stands for an
    object outside of the pickle. budget_bytes: what may be built. `key()` is, in a call, the
    name under which what is being built will be put into a dict. Raises MalformedInput.
    """

    def __init__(
        self,
        file_name: str,
        data: memoryview,
        globals: Mapping[tuple[str, str], Global],
        persistent: Callable[[Any], Any] | None,
        budget_bytes: int,
        position: int = 0,
    ) -> None:
        self.file_name, self.data, self.position = file_name, data, position
        self.globals, self.persistent = globals, persistent
        self.budget_bytes, self.spent_bytes = budget_bytes, 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the marks
        self.memo: dict[int, Any] = {}
        self.finished = False

    def load(self) -> Any:
        """The value; raises MalformedInput for anything that is not plain data."""
        while not self.finished:
            at = self.position
            code = self.take(1)[0]
            step = _STEPS.get(code)
            if step is None:
                self.refuse(f"byte {at} of its pickle is {code:#04x}, no opcode that is read")
            self.spend(_SMALL)
            try:
                step(self)
            except (IndexError, struct.error):
                self.refuse(f"opcode {code:#04x} at byte {at} of its pickle finds too little "
                            "on the stack")
        if not self.stack:
            self.refuse("its pickle ends with too little on the stack")
        return self.pop()

    def key(self) -> str:
        """The nearest string on the stack: the name of the tensor that is being built, or ''."""
        for stack in (self.stack, *reversed(self.below)):
            for value in reversed(stack[-2:]):
                if isinstance(value, str):
                    return value
        return ""

    def refuse(self, reason: str) -> NoReturn:
        """Raises MalformedInput with the file's name."""
        raise MalformedInput(f"{self.file_name}: {reason}.", operation="unpickle")

    def spend(self, size_bytes: int) -> None:
        """Counts memory that is about to be taken."""
        self.spent_bytes += size_bytes
        if self.spent_bytes > self.budget_bytes:
            self.refuse(f"its pickle would build more than {self.budget_bytes} bytes of objects, "
                        "the limit for a file of its size")

    # ---- bytes ----
    def take(self, count: int) -> memoryview:
        """The next bytes."""
        end = self.position + count
        if end > len(self.data):
            self.refuse(f"its pickle ends at byte {len(self.data)}, where {count} more bytes from "
                        f"{self.position} on are needed")
        found = self.data[self.position : end]
        self.position = end
        return found

    def number(self, form: str) -> Any:
        """The next number, of a form of `struct`'s."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        """The text up to the next end of line."""
        rest = bytes(self.data[self.position : self.position + 1000])
        length = rest.find(b"\n")
        if length < 0:
            self.refuse(f"there is no end of line after byte {self.position} of its pickle")
        self.position += length + 1
        return rest[:length].decode("utf-8", "replace")

    def text(self, size_bytes: int) -> str:
        """The next bytes as a string."""
        self.spend(_TEXT * min(size_bytes, len(self.data)))
        try:
            return bytes(self.take(size_bytes)).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self.refuse(f"a string before byte {self.position} of its pickle is not UTF-8")

    def octets(self, size_bytes: int) -> bytes:
        """The next bytes as such."""
        self.spend(min(size_bytes, len(self.data)))
        return bytes(self.take(size_bytes))

    # ---- stack ----
    def push(self, value: Any) -> None:
        """Puts a value on top."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Takes the top."""
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """Takes everything above the last mark."""
        found = self.stack
        self.stack = self.below.pop()
        return found

    def container(self, *kinds: type) -> Any:
        """The container on top, which must be of one of the kinds exactly."""
        found = self.stack[-1]
        if type(found) not in kinds:  # a subclass would have methods of its own
            self.refuse(f"it adds to {_REPR.repr(found)}, which is no {kinds[0].__name__}")
        return found

    def put(self, target: dict[Any, Any], items: list[Any]) -> None:
        """Puts keys and values, by turns, into a dict."""
        if len(items) % 2:
            self.refuse("a dict in its pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.checked_key(key)] = value

    def checked_key(self, key: Any, depth: int = 0) -> Any:
        """A key that can be hashed at no great cost."""
        if isinstance(key, str | bytes | bool | float) or key is None:
            return key
        if isinstance(key, int) and -_KEY_LIMIT <= key < _KEY_LIMIT:
            return key
        if type(key) is tuple and depth < MAX_KEY_DEPTH and len(key) < 100:
            for part in key:
                self.checked_key(part, depth + 1)
            return key
        self.refuse(f"a dict or set in its pickle has the key {_REPR.repr(key)}; keys are strings, "
                    "numbers of 64 bits, and tuples of them")

    def find(self, module: str, name: str) -> Global:
        """What a name stands for."""
        found = self.globals.get((module, name))
        if found is None:
            self.refuse(f"its pickle asks for {module[:100]}.{name[:100]}; only tensors, plain "
                        "values and containers are loaded, never code")
        return found

    def call(self, function: Any, arguments: Any) -> Any:
        """Calls a function of the table."""
        if type(function) is not Global or function.call is None or type(arguments) is not tuple:
            self.refuse(f"its pickle calls {_REPR.repr(function)}, which is no function that is "
                        "accepted")
        for argument in arguments:  # which the function may copy
            if isinstance(argument, list | tuple | str | bytes):
                self.spend(_SMALL * len(argument))
        try:
            return function.call(*arguments)
        except TypeError as error:
            self.refuse(f"its pickle calls {function.name} wrongly: {str(error)[:200]}")


# ---- the opcodes ----
@_opcode(b"\x80")
def _proto(u: Unpickler) -> None:
    version = u.take(1)[0]
    if version > 5:
        u.refuse(f"its pickle has protocol {version}; 5 is the newest that is read")


@_opcode(b"\x95")
def _frame(u: Unpickler) -> None:
    u.take(8)


@_opcode(b".")
def _stop(u: Unpickler) -> None:
    u.finished = True


@_opcode(b"(")
def _mark(u: Unpickler) -> None:
    u.spend(_CONTAINER)
    u.below.append(u.stack)
    u.stack = []


@_opcode(b"0")
def _pop(u: Unpickler) -> None:
    if u.stack:
        u.stack.pop()
    else:
        u.pop_mark()


@_opcode(b"1")
def _pop_mark(u: Unpickler) -> None:
    u.pop_mark()


@_opcode(b"2")
def _dup(u: Unpickler) -> None:
    u.push(u.stack[-1])


def _constant(code: bytes, value: Any) -> None:
    _opcode(code)(lambda u: u.push(value))


for _code, _value in ((b"N", None), (b"\x88", True), (b"\x89", False), (b")", ())):
    _constant(_code, _value)


def _fixed(code: bytes, form: str) -> None:
    _opcode(code)(lambda u: u.push(u.number(form)))


for _code, _form in ((b"J", "<i"), (b"K", "<B"), (b"M", "<H"), (b"G", ">d")):
    _fixed(_code, _form)


@_opcode(b"I", b"L")
def _int_line(u: Unpickler) -> None:
    text = u.line()
    if text in ("00", "01"):
        u.push(text == "01")
        return
    try:
        u.push(int(text.removesuffix("L")))
    except ValueError:
        u.refuse(f"its pickle has {text[:50]!r} for a number")


@_opcode(b"F")
def _float_line(u: Unpickler) -> None:
    text = u.line()
    try:
        u.push(float(text))
    except ValueError:
        u.refuse(f"its pickle has {text[:50]!r} for a number")


@_opcode(b"\x8a")
def _long1(u: Unpickler) -> None:
    u.push(int.from_bytes(u.octets(u.number("<B")), "little", signed=True))


def _sized(code: bytes, form: str, take: Callable[[Unpickler, int], Any]) -> None:
    _opcode(code)(lambda u: u.push(take(u, u.number(form))))


def _octets(u: Unpickler, size_bytes: int) -> bytes:
    return u.octets(size_bytes)


def _text(u: Unpickler, size_bytes: int) -> str:
    return u.text(size_bytes)


for _code, _form in ((b"X", "<L"), (b"\x8c", "<B"), (b"\x8d", "<Q"), (b"U", "<B"), (b"T", "<L")):
    _sized(_code, _form, _text)
for _code, _form in ((b"B", "<L"), (b"C", "<B"), (b"\x8e", "<Q")):
    _sized(_code, _form, _octets)


@_opcode(b"]")
def _empty_list(u: Unpickler) -> None:
    u.push([])


@_opcode(b"}")
def _empty_dict(u: Unpickler) -> None:
    u.spend(_CONTAINER)
    u.push({})


@_opcode(b"\x8f")
def _empty_set(u: Unpickler) -> None:
    u.spend(_SET)
    u.push(set())


@_opcode(b"l")
def _list(u: Unpickler) -> None:
    u.push(u.pop_mark())


@_opcode(b"d")
def _dict(u: Unpickler) -> None:
    items = u.pop_mark()
    u.spend(_CONTAINER)
    made: dict[Any, Any] = {}
    u.put(made, items)
    u.push(made)


@_opcode(b"t")
def _tuple(u: Unpickler) -> None:
    u.push(tuple(u.pop_mark()))


def _short_tuple(code: bytes, count: int) -> None:
    def step(u: Unpickler) -> None:
        if len(u.stack) < count:
            raise IndexError
        made = tuple(u.stack[-count:])
        del u.stack[-count:]
        u.push(made)

    _opcode(code)(step)


for _count, _code in enumerate((b"\x85", b"\x86", b"\x87"), 1):
    _short_tuple(_code, _count)


@_opcode(b"a")
def _append(u: Unpickler) -> None:
    value = u.pop()
    u.container(list).append(value)


@_opcode(b"e")
def _appends(u: Unpickler) -> None:
    values = u.pop_mark()
    u.container(list).extend(values)


@_opcode(b"s")
def _set_item(u: Unpickler) -> None:
    value, key = u.pop(), u.pop()
    u.spend(_CONTAINER)
    u.put(u.container(dict, OrderedDict), [key, value])


@_opcode(b"u")
def _set_items(u: Unpickler) -> None:
    items = u.pop_mark()
    u.spend(_CONTAINER + _SMALL * len(items))
    u.put(u.container(dict, OrderedDict), items)


@_opcode(b"\x90")
def _add_items(u: Unpickler) -> None:
    values = u.pop_mark()
    u.spend(_SMALL * len(values))
    u.container(set).update([u.checked_key(value) for value in values])


@_opcode(b"g")
def _get_line(u: Unpickler) -> None:
    _recall(u, u.line())


@_opcode(b"h")
def _get(u: Unpickler) -> None:
    _recall(u, u.number("<B"))


@_opcode(b"j")
def _long_get(u: Unpickler) -> None:
    _recall(u, u.number("<L"))


def _recall(u: Unpickler, number: Any) -> None:
    number = int(number) if str(number).isdecimal() and len(str(number)) < 12 else -1
    if number not in u.memo:
        u.refuse(f"its pickle recalls object {number}, which it has not kept")
    u.push(u.memo[number])


@_opcode(b"p")
def _put_line(u: Unpickler) -> None:
    text = u.line()
    if not text.isdecimal() or len(text) > 12:
        u.refuse(f"its pickle keeps an object under {text[:50]!r}")
    u.memo[int(text)] = u.stack[-1]


@_opcode(b"q")
def _binput(u: Unpickler) -> None:
    u.memo[u.number("<B")] = u.stack[-1]


@_opcode(b"r")
def _long_binput(u: Unpickler) -> None:
    u.memo[u.number("<L")] = u.stack[-1]


@_opcode(b"\x94")
def _memoize(u: Unpickler) -> None:
    u.memo[len(u.memo)] = u.stack[-1]


@_opcode(b"c")
def _global(u: Unpickler) -> None:
    module = u.line()
    u.push(u.find(module, u.line()))


@_opcode(b"\x93")
def _stack_global(u: Unpickler) -> None:
    name, module = u.pop(), u.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        u.refuse(f"its pickle asks for {_REPR.repr(module)}.{_REPR.repr(name)}")
    u.push(u.find(module, name))


@_opcode(b"R", b"\x81")
def _reduce(u: Unpickler) -> None:
    arguments, function = u.pop(), u.pop()
    u.spend(_CONTAINER)
    u.push(u.call(function, arguments))


@_opcode(b"b")
def _build(u: Unpickler) -> None:
    """Attributes of an object; of the containers that are read none has any that count."""
    u.pop()
    u.container(OrderedDict)


@_opcode(b"Q")
def _persistent(u: Unpickler) -> None:
    if u.persistent is None:
        u.refuse("its pickle refers to something outside of it")
    u.push(u.persistent(u.pop()))


__all__ = ["Global", "Unpickler"]
