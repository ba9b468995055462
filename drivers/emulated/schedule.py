"""Who of a board's engines runs when: freely, or one at a time in an order that a seed fixes.

*Free*: every engine is a thread and runs when it has something to do.

*Seeded*: the program and the engines take turns. The program goes on until all its threads sleep:
what it has submitted by then is the same in every run. Then comes the engines' turn: doorbells are
read once, and one engine after another does packets until all wait or are idle. Interrupts, time
limits of waits and ioctls stand still meanwhile, and come when the turn is over.

Which engine does the next packet says the seed, as in probabilistic concurrency testing (Burckhardt
and others, ASPLOS 2010): engines have priorities, the highest that can run does, and at a few
packets the one that runs draws another priority. Seed 0 prefers the oldest queue, seed 1 the
newest, neither ever changes: for two queues that do not wait for each other both orders occur.
"""

from __future__ import annotations

import contextlib
import ctypes
import operator
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from drivers.emulated.native import NOT_EQUAL, Native

if TYPE_CHECKING:
    from drivers.emulated.engine import Engine

Item = TypeVar("Item")

SPINS = 2000  # looks before sleeping, some 20 µs
NAP_NS, NAP_MOST_NS = 50_000, 2_000_000  # a doorbell without a kick is seen within 2 ms
ROUNDS = 200
FULL_MASK = 0xFFFFFFFFFFFFFFFF
NOT_RUNG = FULL_MASK  # what a new queue's doorbell says

LOOKS, LOOK_S = 3, 0.0003  # a program is quiet that sleeps at so many looks in a row
SPINNING_S = 1.0  # and so is one that computes for so long without asking anything
TURN_PACKETS = 10_000  # a turn ends after these, so that an endless list can be stopped
SLICES = 4  # of a grid
LINES = 100_000  # of the record
CHANGES = (1 / 4, 1 / 16, 1 / 64)  # how likely a packet changes a priority, by seed

COMPARISONS: tuple[Callable[[int, int], bool], ...] = (
    lambda value, reference: True, operator.lt, operator.le, operator.eq, operator.ne,
    operator.ge, operator.gt,
)


class Stopped(Exception):
    """The queue was destroyed or evicted while the engine waited."""


class Comparison(NamedTuple):
    """What a packet waits for: `function` as PM4 and SDMA number them."""

    address: int
    size_bytes: int
    mask: int
    function: int
    reference: int

    def holds(self, value: int) -> bool:
        """Whether a value is what is waited for."""
        return COMPARISONS[self.function](value & self.mask, self.reference)


class Schedule:
    """What engines ask before they do something that others may notice: everybody goes on."""

    threads: int | None = None
    """Native threads that share a kernel's grid; None for as many as there are processors."""

    def __init__(self, native: Native) -> None:
        self.native = native
        self.idle: Callable[[], bool] = lambda: True  # whether the program asks nothing now

    def join(self, engine: Engine) -> None:
        """An engine is about to start."""

    def enter(self, engine: Engine) -> None:
        """An engine's thread has started. Raises Stopped."""

    def leave(self, engine: Engine) -> None:
        """An engine's thread ends."""

    def wake(self, engine: Engine) -> None:
        """An engine that was halted shall notice it."""

    def reset(self) -> None:
        """The program has closed everything: the next one starts anew."""

    def doorbell(self, engine: Engine, seen: int) -> int:
        """Waits for a doorbell other than `seen`. Raises Stopped."""
        while not engine.halted:
            what = engine.listen(seen)  # first: what happens after that ends the wait
            if engine.rung() != seen:
                engine.active.wait()
                if engine.halted:
                    break
                return engine.rung()
            self.native.wait_memory(
                self.native.doorbells, *what,
                engine.stop_address, SPINS, NAP_NS, NAP_MOST_NS, ROUNDS,
            )
        raise Stopped

    def wait(self, engine: Engine, any_of: list[Comparison]) -> None:
        """Waits until memory compares so. Raises Stopped, GpuFault."""
        first = any_of[0]
        while not any(map(engine.holds, any_of)):
            result = self.native.wait_memory(
                self.native.stores, engine.memory.place(first.address), *first[1:],
                engine.stop_address, SPINS, NAP_NS, NAP_NS * 4,
                ROUNDS if len(any_of) == 1 else 1,
            )
            if result == 2:
                raise Stopped

    def step(self, engine: Engine, what: str) -> None:
        """Before a packet or a part of a grid. Raises Stopped."""
        if engine.halted:
            raise Stopped

    def slices(self, count: int) -> list[tuple[int, int]]:
        """The parts of a grid of workgroups, in the order to run them."""
        return [(0, count)]

    def holds_back(self) -> bool:
        """Whether a grid starts later than its packet is done."""
        return False

    def shuffled(self, items: list[Item]) -> list[Item]:
        """Things that may happen in any order, in the order to do them."""
        return items

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Around what the program asks, unless that is to wait."""
        yield

    def later(self, action: Callable[[], None]) -> None:
        """What an engine tells the program."""
        action()

    def lines(self) -> list[str]:
        """What was done in which order, since the program has opened its first node."""
        return []


class _Seat:
    """One engine's place in the schedule. `rung` is its doorbell as the turn began."""

    def __init__(self, engine: Engine, priority: float) -> None:
        self.engine, self.priority = engine, priority
        self.gate = threading.Semaphore(0)
        self.rung, self.entered = NOT_RUNG, False
        # What it waits for; None while it could go on.
        self.ready: Callable[[], bool] | None = lambda: self.rung != NOT_RUNG

    def can_run(self) -> bool:
        """Whether it has something to do now."""
        if self.engine.halted or not self.engine.active.is_set():
            return False
        return self.ready is None or self.ready()


class SeededSchedule(Schedule):
    """One engine at a time. `hold` freezes and thaws what the program waits for."""

    threads = 1

    def __init__(
        self, seed: int, native: Native, program: int, hold: Callable[[bool], None]
    ) -> None:
        super().__init__(native)
        self.seed, self.program, self.hold = seed, program, hold
        self.lock = threading.Lock()  # of seats and holder
        self.seats: dict[Any, _Seat] = {}
        self.holder: _Seat | None = None
        self.over = threading.Semaphore(0)
        self.between = threading.Condition()  # of calls and playing
        self.calls = 0
        self.playing = False
        self.never = ctypes.c_uint32(0)  # a stop word
        self.told: list[Callable[[], None]] = []
        self.reset()
        threading.Thread(target=self._conduct, name="schedule", daemon=True).start()

    def reset(self) -> None:
        """Draws again from the start."""
        self.random = random.Random(f"tinyhw {self.seed}")
        self.change = CHANGES[self.seed % len(CHANGES)] if self.seed > 1 else 0.0
        self.joined = self.packets = 0
        self.record: deque[str] = deque(maxlen=LINES)

    # What engines ask. Only the holder's thread runs; a lock is for those that come and go.

    def join(self, engine: Engine) -> None:
        """Priorities follow from the order in which queues were created."""
        self.joined += 1
        drawn = random.Random(f"tinyhw {self.seed} {engine.gpu_index} {self.joined}").random()
        priority = {0: -float(self.joined), 1: float(self.joined)}.get(self.seed, drawn)
        with self.lock:
            self.seats[engine] = _Seat(engine, priority)

    def enter(self, engine: Engine) -> None:
        """Waits for the first doorbell."""
        self._yield(self.seats[engine])

    def leave(self, engine: Engine) -> None:
        """Passes on, if it was its turn."""
        with self.lock:
            seat = self.seats.pop(engine)
            if self.holder is seat:
                self._hand_over()

    def wake(self, engine: Engine) -> None:
        """Its thread leaves, also when it is not its turn."""
        with self.lock:
            seat = self.seats.get(engine)
        if seat is not None:
            seat.gate.release()

    def doorbell(self, engine: Engine, seen: int) -> int:
        """Waits for a turn at whose start the doorbell says something else."""
        seat = self.seats[engine]
        self._sleep(seat, lambda: seat.rung != seen)
        return seat.rung

    def wait(self, engine: Engine, any_of: list[Comparison]) -> None:
        """Lets others run until memory compares so."""
        if any(map(engine.holds, any_of)):
            return
        self._sleep(self.seats[engine], lambda: _holds(engine, any_of))
        any(map(engine.holds, any_of))  # raises here what it raised there

    def step(self, engine: Engine, what: str) -> None:
        """May let others run before."""
        seat = self.seats[engine]
        if self.random.random() < self.change:
            seat.priority = self.random.random()
        self._yield(seat)
        self.packets += 1
        self.record.append(f"{engine.name}: {what}")

    def slices(self, count: int) -> list[tuple[int, int]]:
        """Some, in any order."""
        each = -(-count // SLICES)
        return self.shuffled([(at, min(at + each, count)) for at in range(0, count, each)])

    def holds_back(self) -> bool:
        """Seed 0 starts at once, seed 1 as late as it may."""
        return self.seed != 0 and (self.seed == 1 or self.random.random() < 0.5)

    def shuffled(self, items: list[Item]) -> list[Item]:
        """Seed 0 keeps the order, seed 1 turns it around."""
        if self.seed < 2:
            return items[::-1] if self.seed else items
        return self.random.sample(items, len(items))

    def _pick(self) -> _Seat | None:
        able = [seat for seat in self.seats.values() if seat.can_run()]
        if not able or self.packets >= TURN_PACKETS:
            return None
        return max(able, key=lambda seat: seat.priority)

    def _hand_over(self) -> None:
        self.holder = self._pick()
        (self.over if self.holder is None else self.holder.gate).release()

    def _yield(self, seat: _Seat) -> None:
        with self.lock:
            if self.holder is seat and seat.entered:
                self._hand_over()
        seat.gate.acquire()
        seat.entered = True
        if seat.engine.halted:
            raise Stopped

    def _sleep(self, seat: _Seat, ready: Callable[[], bool]) -> None:
        seat.ready = ready
        self._yield(seat)
        seat.ready = None

    # What the program asks.

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Waits until the engines' turn is over, and keeps the next one from starting."""
        with self.between:
            self.calls += 1
            while self.playing:
                self.between.wait()
        try:
            yield
        finally:
            with self.between:
                self.calls -= 1

    def later(self, action: Callable[[], None]) -> None:
        """Keeps it until the turn is over."""
        self.told.append(action)

    def lines(self) -> list[str]:
        """The packets that others may notice, and the parts of grids."""
        return list(self.record)

    # Turns.

    def _conduct(self) -> None:
        while True:
            self._until_there_is_work()
            self._until_the_program_sleeps()
            self._play()

    def _look(self) -> tuple[int, ...]:
        with self.lock:
            for seat in self.seats.values():
                seat.rung = seat.engine.rung()
            return tuple(seat.rung for seat in self.seats.values())

    def _until_there_is_work(self) -> None:
        while True:
            sequence = self.native.sequence.value
            self._look()
            with self.lock:
                if any(seat.can_run() for seat in self.seats.values()):
                    return
            self.native.wait_memory(
                self.native.doorbells, self.native.bell_address, 4, FULL_MASK, NOT_EQUAL,
                sequence, ctypes.addressof(self.never), 1, NAP_NS, NAP_MOST_NS, 1,
            )

    def _until_the_program_sleeps(self) -> None:
        looks, before, moved = 0, self._look(), time.monotonic()
        while looks < LOOKS:
            time.sleep(LOOK_S)
            now = self._look()
            if now != before or not self.idle():
                looks, before, moved = 0, now, time.monotonic()
            elif sleeps(self.program) or time.monotonic() - moved > SPINNING_S:
                looks += 1
            else:
                looks = 0

    def _play(self) -> None:
        with self.between:
            if self.calls:
                return
            self.playing = True
        self.hold(True)
        self._look()
        self.packets = 0
        with self.lock:
            self._hand_over()
        self.over.acquire()
        told, self.told = self.told, []
        for action in told:
            action()
        self.hold(False)
        with self.between:
            self.playing = False
            self.between.notify_all()


def _holds(engine: Engine, any_of: list[Comparison]) -> bool:
    try:
        return any(map(engine.holds, any_of))
    except Exception:  # the engine finds it again, in its own thread
        return True


def sleeps(program: int) -> bool:
    """Whether every thread of a process waits for something."""
    try:
        for thread in os.listdir(f"/proc/{program}/task"):
            with open(f"/proc/{program}/task/{thread}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0]
            if state in (b"R", b"D"):
                return False
    except OSError:
        return False  # a thread ended meanwhile, or the system shows nothing of others
    return True
