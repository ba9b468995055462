"""The compiled half of emulated boards: a doorbell that wakes, and waits that do not spin hot.

Every process that rings doorbells shares one page with its board, with two *bells*: each a futex
word and a count of sleepers. The kick stores the real doorbell, moves the word of one bell, and
wakes who sleeps on it. The board's engines look for some microseconds, then sleep on the word for a
bounded time, so that a doorbell that is rung without a kick (by a stranger's program) is seen as
well, only later. The other bell is for engines that wait for memory: it rings after stores of
engines, which do not wake those without work.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import struct
from string import Template
from typing import NamedTuple

from compiler.code_object import Relocation
from drivers.native.image import ARCHITECTURES, cache_folder, host_arch, map_code
from drivers.system import (
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    MAP_SHARED,
    PAGE_BYTES,
    PROT_READ,
    PROT_WRITE,
    RealSystem,
    System,
    address_of,
)

FUTEX_NUMBER = {"x86_64": 202, "aarch64": 98}  # asm/unistd.h
FUTEX_WAIT, FUTEX_WAKE = 0, 1  # linux/futex.h; not private: two processes share the word

BELL_SEQUENCE, BELL_SLEEPERS = 0, 4  # u32 each
DOORBELLS, STORES = 0, 64  # offsets of the bells, and of the configurations for them
CONFIG = struct.Struct("<QQQQ")  # original kick, bell, address of syscall(), number of futex

# Comparisons of PM4 WAIT_REG_MEM and SDMA POLL_REGMEM, in their own numbering.
ALWAYS, LESS, LESS_EQUAL, EQUAL, NOT_EQUAL, GREATER_EQUAL, GREATER = range(7)

_EXPORTS = ("kick", "ring", "wait_memory", "write_back", "renew")

TEXT = Template("""
$declarations
declare i64 @llvm.umin.i64(i64, i64)

define internal i64 @futex(ptr %config, ptr %word, i64 %operation, i64 %value, ptr %limit) {
  %syscall.at = getelementptr i8, ptr %config, i64 16
  %syscall = load ptr, ptr %syscall.at
  %number.at = getelementptr i8, ptr %config, i64 24
  %number = load i64, ptr %number.at
  %result = call i64 (i64, ...) %syscall(i64 %number, ptr %word, i64 %operation, i64 %value,
                                         ptr %limit, ptr null, i64 0)
  ret i64 %result
}

; Moves the bell's word, and wakes every sleeper if there is any.
define hidden void @ring(ptr %config) {
  %bell.at = getelementptr i8, ptr %config, i64 8
  %bell = load ptr, ptr %bell.at
  %old = atomicrmw add ptr %bell, i32 1 seq_cst
  fence seq_cst                                               ; pairs with the sleeper's fence
  %sleepers.at = getelementptr i8, ptr %bell, i64 $sleepers
  %sleepers = load atomic i32, ptr %sleepers.at monotonic, align 4
  %nobody = icmp eq i32 %sleepers, 0
  br i1 %nobody, label %done, label %wake
wake:
  %woken = call i64 @futex(ptr %config, ptr %bell, i64 $futex_wake, i64 2147483647, ptr null)
  br label %done
done:
  ret void
}

; void kick(void *queue), with the configuration that the trampoline adds.
define hidden void @kick(ptr %queue, ptr %config) {
  %original = load ptr, ptr %config
  call void %original(ptr %queue)
  call void @ring(ptr %config)
  ret void
}

define internal i1 @holds(ptr %at, i32 %bytes, i64 %mask, i32 %function, i64 %reference) {
  %wide = icmp eq i32 %bytes, 8
  br i1 %wide, label %eight, label %four
eight:
  %v8 = load atomic i64, ptr %at acquire, align 8
  br label %both
four:
  %v4 = load atomic i32, ptr %at acquire, align 4
  %z4 = zext i32 %v4 to i64
  br label %both
both:
  %raw = phi i64 [ %v8, %eight ], [ %z4, %four ]
  %value = and i64 %raw, %mask
  %lt = icmp ult i64 %value, %reference
  %le = icmp ule i64 %value, %reference
  %eq = icmp eq i64 %value, %reference
  %ne = icmp ne i64 %value, %reference
  %ge = icmp uge i64 %value, %reference
  %gt = icmp ugt i64 %value, %reference
  switch i32 %function, label %always [ i32 1, label %f1 i32 2, label %f2 i32 3, label %f3
                                        i32 4, label %f4 i32 5, label %f5 i32 6, label %f6 ]
always:
  ret i1 true
f1:
  ret i1 %lt
f2:
  ret i1 %le
f3:
  ret i1 %eq
f4:
  ret i1 %ne
f5:
  ret i1 %ge
f6:
  ret i1 %gt
}

; 1 once memory compares as asked, 2 once *stop is not 0, 0 after `rounds` sleeps. It looks
; `spins` times first, then sleeps on the bell, nap_ns at first and twice as long each time up
; to nap_most_ns.
define hidden i32 @wait_memory(ptr %config, ptr %at, i32 %bytes, i64 %mask, i32 %function,
                               i64 %reference, ptr %stop, i64 %spins, i64 %nap_ns,
                               i64 %nap_most_ns, i64 %rounds) {
entry:
  %limit = alloca [2 x i64]
  %limit.ns = getelementptr i8, ptr %limit, i64 8
  store i64 0, ptr %limit
  %bell.at = getelementptr i8, ptr %config, i64 8
  %bell = load ptr, ptr %bell.at
  %sleepers = getelementptr i8, ptr %bell, i64 $sleepers
  br label %spin
spin:
  %turn = phi i64 [ 0, %entry ], [ %turn.next, %again ]
  %hit = call i1 @holds(ptr %at, i32 %bytes, i64 %mask, i32 %function, i64 %reference)
  br i1 %hit, label %reached, label %look
look:
  %stop.spin = load atomic i32, ptr %stop acquire, align 4
  %stopped = icmp ne i32 %stop.spin, 0
  br i1 %stopped, label %stopping, label %again
again:
  $relax
  %turn.next = add i64 %turn, 1
  %more = icmp ult i64 %turn.next, %spins
  br i1 %more, label %spin, label %sleep
sleep:
  %round = phi i64 [ 0, %again ], [ %round.next, %next ]
  %nap = phi i64 [ %nap_ns, %again ], [ %nap.next, %next ]
  %counted = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %sequence = load atomic i32, ptr %bell acquire, align 4
  fence seq_cst                                               ; pairs with the one in @ring
  %hit.last = call i1 @holds(ptr %at, i32 %bytes, i64 %mask, i32 %function, i64 %reference)
  %stop.last = load atomic i32, ptr %stop acquire, align 4
  %stopped.last = icmp ne i32 %stop.last, 0
  %ready = or i1 %hit.last, %stopped.last
  br i1 %ready, label %awake, label %doze
doze:
  store i64 %nap, ptr %limit.ns
  %wide = zext i32 %sequence to i64
  %slept = call i64 @futex(ptr %config, ptr %bell, i64 $futex_wait, i64 %wide, ptr %limit)
  br label %awake
awake:
  %uncounted = atomicrmw sub ptr %sleepers, i32 1 monotonic
  %hit.awake = call i1 @holds(ptr %at, i32 %bytes, i64 %mask, i32 %function, i64 %reference)
  %twice = mul i64 %nap, 2
  %nap.next = call i64 @llvm.umin.i64(i64 %twice, i64 %nap_most_ns)
  %round.next = add i64 %round, 1
  br i1 %hit.awake, label %reached, label %unmet
unmet:
  %stop.awake = load atomic i32, ptr %stop acquire, align 4
  %stopped.awake = icmp ne i32 %stop.awake, 0
  br i1 %stopped.awake, label %stopping, label %next
next:
  %left = icmp ult i64 %round.next, %rounds
  br i1 %left, label %sleep, label %late
reached:
  ret i32 1
stopping:
  ret i32 2
late:
  ret i32 0
}

; In a cache: each byte of `view` that is not that of `base` goes to `target`. Then base
; becomes view, or view becomes base if `back` is not 0. `bytes` is a multiple of 8.
define hidden void @write_back(ptr %view, ptr %base, ptr %target, i64 %bytes, i64 %back) {
entry:
  %forth = icmp eq i64 %back, 0
  %kept = select i1 %forth, ptr %base, ptr %view
  br label %loop
loop:
  %at = phi i64 [ 0, %entry ], [ %at.next, %next ]
  %more = icmp ult i64 %at, %bytes
  br i1 %more, label %look, label %done
look:
  %at.next = add i64 %at, 8
  %view.at = getelementptr i8, ptr %view, i64 %at
  %base.at = getelementptr i8, ptr %base, i64 %at
  %v = load i64, ptr %view.at
  %b = load i64, ptr %base.at
  %same = icmp eq i64 %v, %b
  br i1 %same, label %next, label %each
each:
  %j = phi i64 [ %at, %look ], [ %j.next, %after ]
  %view.j.at = getelementptr i8, ptr %view, i64 %j
  %base.j.at = getelementptr i8, ptr %base, i64 %j
  %view.j = load i8, ptr %view.j.at
  %base.j = load i8, ptr %base.j.at
  %equal = icmp eq i8 %view.j, %base.j
  br i1 %equal, label %after, label %move
move:
  %target.j.at = getelementptr i8, ptr %target, i64 %j
  store volatile i8 %view.j, ptr %target.j.at
  %kept.j.at = getelementptr i8, ptr %kept, i64 %j
  %kept.j = select i1 %forth, i8 %view.j, i8 %base.j
  store i8 %kept.j, ptr %kept.j.at
  br label %after
after:
  %j.next = add i64 %j, 1
  %j.more = icmp ult i64 %j.next, %at.next
  br i1 %j.more, label %each, label %next
next:
  br label %loop
done:
  ret void
}

; Each byte of `view` that is that of `base` becomes that of `source`, and so does base's.
define hidden void @renew(ptr %view, ptr %base, ptr %source, i64 %bytes) {
entry:
  br label %loop
loop:
  %at = phi i64 [ 0, %entry ], [ %at.next, %next ]
  %more = icmp ult i64 %at, %bytes
  br i1 %more, label %look, label %done
look:
  %at.next = add i64 %at, 8
  %view.at = getelementptr i8, ptr %view, i64 %at
  %base.at = getelementptr i8, ptr %base, i64 %at
  %source.at = getelementptr i8, ptr %source, i64 %at
  %v = load i64, ptr %view.at
  %b = load i64, ptr %base.at
  %s = load i64, ptr %source.at
  %v.same = icmp eq i64 %v, %s
  %b.same = icmp eq i64 %b, %s
  %same = and i1 %v.same, %b.same
  br i1 %same, label %next, label %each
each:
  %j = phi i64 [ %at, %look ], [ %j.next, %after ]
  %view.j.at = getelementptr i8, ptr %view, i64 %j
  %base.j.at = getelementptr i8, ptr %base, i64 %j
  %view.j = load i8, ptr %view.j.at
  %base.j = load i8, ptr %base.j.at
  %clean = icmp eq i8 %view.j, %base.j
  br i1 %clean, label %move, label %after
move:
  %source.j.at = getelementptr i8, ptr %source, i64 %j
  %source.j = load volatile i8, ptr %source.j.at
  store i8 %source.j, ptr %view.j.at
  store i8 %source.j, ptr %base.j.at
  br label %after
after:
  %j.next = add i64 %j, 1
  %j.more = icmp ult i64 %j.next, %at.next
  br i1 %j.more, label %each, label %next
next:
  br label %loop
done:
  ret void
}

define hidden ptr @export(i32 %which) {
  %is1 = icmp eq i32 %which, 1
  %is2 = icmp eq i32 %which, 2
  %is3 = icmp eq i32 %which, 3
  %is4 = icmp eq i32 %which, 4
  %p1 = select i1 %is1, ptr @ring, ptr @kick
  %p2 = select i1 %is2, ptr @wait_memory, ptr %p1
  %p3 = select i1 %is3, ptr @write_back, ptr %p2
  %p4 = select i1 %is4, ptr @renew, ptr %p3
  ret ptr %p4
}
""")

# Loads the configuration as second argument and jumps to @kick; each 8-byte place is patched.
_TRAMPOLINES = {
    # movabs rsi, configuration; movabs rax, kick; jmp rax
    "x86_64": (bytes.fromhex("48be" + "00" * 8 + "48b8" + "00" * 8 + "ffe0"), 2, 12),
    # ldr x1, [pc, 12]; ldr x2, [pc, 16]; br x2; configuration; kick
    "aarch64": (bytes.fromhex("61000058" "82000058" "40001fd6") + bytes(16), 12, 20),
}


def _build(arch: str) -> tuple[bytes, int]:
    """The linked image and the offset of its @export, from the user's cache where it is whole."""
    _, relax, declarations = ARCHITECTURES[arch]
    source = TEXT.substitute(
        declarations=declarations, relax=relax, sleepers=BELL_SLEEPERS,
        futex_wait=FUTEX_WAIT, futex_wake=FUTEX_WAKE,
    )
    name = hashlib.sha256(f"{arch}\n{source}".encode()).hexdigest()[:32]
    from drivers.native import image

    path = cache_folder() / f"board-{name}.bin"
    cached = image._read(path)
    if cached is None:
        cached = image._compile(source, arch)
        image._write(path, *cached)
    return cached


class Native:
    """The functions, bound to one page of bells, for as long as the process lives.

    `doorbells`, `stores`: what to give `wait_memory` for a sleep on that bell.
    """

    def __init__(self, system: System, bell_address: int, original_kick: int = 0) -> None:
        exports = _image()
        configuration = system.mmap(
            PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
        )
        self.doorbells, self.stores = configuration + DOORBELLS, configuration + STORES
        self.bell_address = bell_address
        for bell in (DOORBELLS, STORES):
            CONFIG.pack_into(
                (ctypes.c_char * PAGE_BYTES).from_address(configuration), bell, original_kick,
                bell_address + bell, address_of("syscall"), FUTEX_NUMBER[platform.machine()],
            )
        word, number = ctypes.c_uint64, ctypes.c_uint32
        self.wait_memory = ctypes.CFUNCTYPE(
            number, word, word, number, word, number, word, word, word, word, word, word
        )(exports["wait_memory"])
        self.write_back = ctypes.CFUNCTYPE(None, word, word, word, word, word)(
            exports["write_back"]
        )
        self.renew = ctypes.CFUNCTYPE(None, word, word, word, word)(exports["renew"])
        self._ring = ctypes.PYFUNCTYPE(None, word)(exports["ring"])
        self.sequence = ctypes.c_uint32.from_address(bell_address + BELL_SEQUENCE)
        self._waiting = ctypes.c_uint32.from_address(bell_address + STORES + BELL_SLEEPERS)

    def ring(self) -> None:
        """Wakes whoever sleeps."""
        self._ring(self.doorbells)
        self._ring(self.stores)

    def notify(self) -> None:
        """Wakes who waits for memory: for engines, after each store that others may wait for."""
        if self._waiting.value:
            self._ring(self.stores)


class Bell(NamedTuple):
    """A page that a program shares with its boards: its two bells."""

    descriptor: int
    address: int


@functools.cache
def own_bell() -> Bell:
    """The bells of this process, for all its boards. Kicks may outlive a board, so it stays."""
    descriptor = os.memfd_create("bell", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, PAGE_BYTES)
    return Bell(descriptor, map_bell(descriptor))


def map_bell(descriptor: int) -> int:
    """The address of a page of bells."""
    return RealSystem().mmap(PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)


@functools.cache
def make_kick(original: int) -> int:
    """The address of a `void kick(void *queue)` that calls `original` and rings the bell."""
    system = RealSystem()
    native = Native(system, own_bell().address, original)
    code, configuration_at, kick_at = _TRAMPOLINES[host_arch()]
    patched = bytearray(code)
    struct.pack_into("<Q", patched, configuration_at, native.doorbells)
    struct.pack_into("<Q", patched, kick_at, _image()["kick"])
    address, _ = map_code(system, bytes(patched))
    return address


@functools.cache
def _image() -> dict[str, int]:
    """The addresses of the functions: mapped at first use and never unmapped."""
    image, entry = _build(host_arch())
    relocations: tuple[Relocation, ...] = ()
    address, _ = map_code(RealSystem(), image, relocations)
    export = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint32)(address + entry)
    return {name: int(export(i)) for i, name in enumerate(_EXPORTS)}
