"""Emulated boards with one mistake each. A judge that passes one of them judges nothing.

`ANSWERS` change what an ioctl returns, in the program; `ENGINES` replace a method of an engine,
in the board's process, before it serves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autogen import kfd
from drivers.emulated.system import START, EmulatedSystem


def _version(args: Any) -> None:
    args.major_version = 2


def _doorbell(args: Any) -> None:
    args.doorbell_offset += 8


def _unmapped(args: Any) -> None:
    args.n_success = 0


def _slot(args: Any) -> None:
    args.event_slot_index += 1


def _timeout(args: Any) -> None:
    args.wait_result = 1


def _elsewhere(args: Any) -> None:
    args.mmap_offset += 4096


def _handle(args: Any) -> None:
    args.handle += 1


def _clock(args: Any) -> None:
    args.gpu_clock_counter //= 2


ANSWERS: dict[str, tuple[str, str, Callable[[Any], None]]] = {
    "version": ("GET_VERSION", "get_version", _version),
    "doorbell": ("CREATE_QUEUE", "create_queue", _doorbell),
    "unmapped": ("MAP_MEMORY_TO_GPU", "map_memory_to_gpu", _unmapped),
    "slot": ("CREATE_EVENT", "create_event", _slot),
    "timeout": ("WAIT_EVENTS", "wait_events", _timeout),
    "elsewhere": ("ALLOC_MEMORY_OF_GPU", "alloc_memory_of_gpu", _elsewhere),
    "handle": ("ALLOC_MEMORY_OF_GPU", "alloc_memory_of_gpu", _handle),
    "clock": ("GET_CLOCK_COUNTERS", "get_clock_counters", _clock),
}

ENGINES = {
    "completion": """
        from drivers.emulated.amd.aql import AqlEngine
        AqlEngine._complete = lambda *_: None
    """,
    "dependency": """
        from drivers.emulated.amd.aql import AqlEngine
        AqlEngine._barrier = lambda *_: None
    """,
    "read-index": """
        from drivers.emulated.amd.aql import AqlEngine
        AqlEngine.report_read_pointer = lambda *_: None
    """,
    "short-copy": """
        from drivers.emulated.memory import GuestMemory
        copy = GuestMemory.copy
        GuestMemory.copy = lambda self, to, source, size: copy(self, to, source, size - 1)
    """,
    "no-atomic": """
        from drivers.emulated.amd.sdma import SdmaEngine
        SdmaEngine._atomic = lambda *_: None
    """,
    "user-sgprs": """
        from drivers.emulated.amd.aql import AqlEngine
        given = AqlEngine._user_sgprs
        AqlEngine._user_sgprs = lambda *arguments: [0, 0, *given(*arguments)]
    """,
    "group-ids": """
        from drivers.emulated.amd import aql
        aql.group_ids = lambda *_: (-1, -1, -1)
    """,
    "no-lds": """
        from drivers.emulated.amd.dispatch import Dispatcher
        launch = Dispatcher.launch
        Dispatcher.launch = lambda self, given: launch(self, given._replace(lds_bytes=0))
    """,
    "fault-address": """
        from drivers.emulated.amd.process import KfdProcess
        fault = KfdProcess.fault
        def wrong(self, queue, found):
            found.address += 4096
            fault(self, queue, found)
        KfdProcess.fault = wrong
    """,
}


class WrongSystem(EmulatedSystem):
    """A machine whose board has a mistake, or none if `mistake` is empty."""

    def __init__(self, description: str, mistake: str) -> None:
        super().__init__(description)
        self.answer = ANSWERS.get(mistake)
        if mistake in ENGINES:
            self.start = START.replace("main(", f"exec({_dedented(ENGINES[mistake])!r}); main(")
        elif mistake and self.answer is None:
            raise ValueError(f"no mistake is called {mistake}")

    def ioctl(self, descriptor: int, request: int, argument: int) -> int:
        result = super().ioctl(descriptor, request, argument)
        if self.answer is not None:
            name, structure, change = self.answer
            if request & 0xFF == getattr(kfd, f"AMDKFD_IOC_{name}") & 0xFF:
                kind = getattr(kfd, f"struct_kfd_ioctl_{structure}_args")
                change(kind.from_address(argument))
        return result


def _dedented(text: str) -> str:
    from textwrap import dedent

    return dedent(text)
