"""Settings, counters and small helpers for programs that watch what they run.

A setting is a whole number with an environment variable of its name: `DEBUG=2 python train.py`,
or for a part of a program `with Context(DEBUG=2): ...`. Settings belong to the process, not to a
thread.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Final, TypeVar, overload

from tinyhw.errors import SettingError

T = TypeVar("T", int, float, str)


@overload
def getenv(name: str) -> int: ...
@overload
def getenv(name: str, default: T) -> T: ...
def getenv(name: str, default: int | float | str = 0) -> int | float | str:
    """The environment variable `name` as the type of `default`, which it is where unset or empty.

    Raises SettingError where the text is not such a number.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    kind = type(default)
    try:
        return kind(text)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise SettingError(
            f"The environment variable {name} is {text!r}, but it must be {wanted}.",
            operation="getenv",
            remedy=f"Set it as in `{name}=1`, or unset it.",
        ) from error


class ContextVar:
    """One setting. Reads its environment variable at first use; compares and converts as an int.

    `docs` is the line that `python -m tinyhw info` could print of it.
    """

    all: ClassVar[dict[str, ContextVar]] = {}

    def __init__(self, name: str, default: int, docs: str = "") -> None:
        self.name, self.default, self.docs = name, default, docs
        self._value: int | None = None
        ContextVar.all[name] = self

    @property
    def value(self) -> int:
        """The present value; raises SettingError where the environment's text is no number."""
        value = self._value
        if value is None:
            value = self._value = getenv(self.name, self.default)
        return value

    @value.setter
    def value(self, new: int) -> None:
        self._value = int(new)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return self.value == other

    def __hash__(self) -> int:
        return hash(self.name)

    def __ge__(self, other: int) -> bool:
        return self.value >= other

    def __gt__(self, other: int) -> bool:
        return self.value > other

    def __le__(self, other: int) -> bool:
        return self.value <= other

    def __lt__(self, other: int) -> bool:
        return self.value < other

    def __repr__(self) -> str:
        return f"{self.name}={self.value}"


DEBUG: Final = ContextVar("DEBUG", 0, "1 devices, 2 kernels, 3 optimisations, 4 source, 5-7 IR")
JIT: Final = ContextVar("JIT", 1, "0 makes TinyJit call the plain function every time")
TRAINING: Final = ContextVar("TRAINING", 0, "1 turns on what only training does: dropout, steps")


def check_settings() -> None:
    """Raises SettingError if any setting's environment variable is malformed."""
    for setting in ContextVar.all.values():
        _ = setting.value


class Context(contextlib.ContextDecorator):
    """Settings for a part of a program: `with Context(DEBUG=2): ...`, or as a decorator."""

    def __init__(self, **settings: int) -> None:
        for name in settings:
            if name not in ContextVar.all:
                known = ", ".join(sorted(ContextVar.all))
                raise SettingError(
                    f"There is no setting named {name}; there are {known}.", operation="Context"
                )
        self.settings = settings
        self._before: list[dict[str, int]] = []

    def __enter__(self) -> None:
        self._before.append({name: ContextVar.all[name].value for name in self.settings})
        for name, value in self.settings.items():
            ContextVar.all[name].value = value

    def __exit__(self, *exception: object) -> None:
        for name, value in self._before.pop().items():
            ContextVar.all[name].value = value


class _Counters:
    """What has run since `reset()`; `mem_used` is what is allocated now, reset or not.

    Operations and bytes are the compiler's estimates. `time_sum_s` adds up the kernels' own
    times, which are only taken with DEBUG of 2 and more.
    """

    def __init__(self) -> None:
        self.memory_sources: list[Callable[[], int]] = []  # one of each open device
        self.reset()

    def reset(self) -> None:
        """Sets every counter but `mem_used` to zero."""
        self.kernel_count = 0
        self.global_ops = 0
        self.global_mem = 0
        self.time_sum_s = 0.0

    @property
    def mem_used(self) -> int:
        """Bytes that buffers of all open devices hold now."""
        return sum(source() for source in self.memory_sources)


GlobalCounters: Final = _Counters()


class Timing(contextlib.ContextDecorator):
    """Prints how long its block took: `with Timing("load: "): ...`.

    `on_exit` gets the nanoseconds and returns text to append; `elapsed_ns` stays readable.
    """

    def __init__(
        self, prefix: str = "", on_exit: Callable[[int], str] | None = None, enabled: bool = True
    ) -> None:
        self.prefix, self.on_exit, self.enabled = prefix, on_exit, enabled
        self.elapsed_ns = 0
        self._start_ns = 0

    def __enter__(self) -> Timing:
        self._start_ns = time.perf_counter_ns()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.elapsed_ns = time.perf_counter_ns() - self._start_ns
        if self.enabled:
            more = self.on_exit(self.elapsed_ns) if self.on_exit else ""
            print(f"{self.prefix}{self.elapsed_ns * 1e-6:6.2f} ms{more}")


_COLORS: Final = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")


@functools.cache
def _no_color() -> bool:
    return bool(os.environ.get("NO_COLOR"))


def colored(text: str, color: str | None, background: bool = False) -> str:
    """`text` in a terminal colour (upper case: bright); unchanged for None or with NO_COLOR set."""
    if color is None or _no_color():
        return text
    code = 10 * background + 60 * color.isupper() + 30 + _COLORS.index(color.lower())
    return f"\x1b[{code}m{text}\x1b[0m"


def ansistrip(text: str) -> str:
    """`text` without its colours."""
    return _ANSI.sub("", text)


def ansilen(text: str) -> int:
    """How many columns `text` takes."""
    return len(ansistrip(text))
