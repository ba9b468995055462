"""Makes the native image out of the IR texts, and lets Python call it.

Compiling takes some 100 ms and LLVM, so the linked image is kept in the user's cache folder,
under a name that its text determines. A damaged or foreign file is compiled anew; writers
replace it atomically, so concurrent processes see a whole file or none.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import string
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

from compiler.code_object import Relocation
from drivers.errors import DeviceNotAvailable
from drivers.native import events, layout, placement, pool, processor, rings, submission
from drivers.system import MAP_ANONYMOUS, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE, System

# The functions that Python asks the image for, in the order of its table.
EXPORTS = (
    "timeline_wait", "timeline_signal", "kick", "apply_patches", "queue_submit", "queue_replay",
    "queue_stop", "pool_stop", "processor", "worker", "doorbell", "gpfifo_doorbell",
    "ring_submit", "ring_replay", "run_kernel",
)

# What differs between instruction sets: a spinning thread's pause, and arithmetic by IEEE 754
# with denormals whatever the thread that started us had set (MXCSR 0x1F80, FPCR 0).
ARCHITECTURES = {
    "x86_64": (
        "x86-64",
        "call void @llvm.x86.sse2.pause()",
        """
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal void @ieee_arithmetic() {
  %mode = alloca i32
  store i32 8064, ptr %mode
  call void @llvm.x86.sse.ldmxcsr(ptr %mode)
  ret void
}
""",
    ),
    "aarch64": (
        "generic",
        "call void @llvm.aarch64.hint(i32 1)",
        """
declare void @llvm.aarch64.hint(i32)
declare void @llvm.aarch64.set.fpcr(i64)
define internal void @ieee_arithmetic() {
  call void @llvm.aarch64.set.fpcr(i64 0)
  ret void
}
""",
    ),
}

_HEADER = struct.Struct("<8sQ32s")  # magic, entry offset, sha256 of the rest
_MAGIC = b"thwimg01"


class _Names(string.Template):
    idpattern = r"[A-Za-z_][A-Za-z0-9_.]*"
    flags = re.VERBOSE


def host_arch() -> str:
    """The instruction set of this process, by the name that Targets use."""
    machine = platform.machine()
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def text(arch: str) -> str:
    """The whole IR of the image for one instruction set."""
    _, relax, declarations = ARCHITECTURES[arch]
    names = layout.constants() | {"relax": relax}
    modules = (
        events.TEXT, submission.TEXT, placement.TEXT, pool.TEXT, processor.TEXT, rings.TEXT
    )
    body = declarations + "".join(_Names(module).substitute(names) for module in modules)
    choices = "\n".join(
        f"  %p{i + 1} = select i1 %is{i}, ptr @{name}, ptr %p{i}"
        for i, name in enumerate(EXPORTS)
    )
    tests = "\n".join(f"  %is{i} = icmp eq i32 %which, {i}" for i in range(len(EXPORTS)))
    table = f"""
; The address of the export of that number.
define hidden ptr @export(i32 %which) {{
{tests}
  %p0 = getelementptr i8, ptr null, i64 0
{choices}
  ret ptr %p{len(EXPORTS)}
}}
"""
    return body + table


def cache_folder() -> Path:
    """Where compiled things are kept: XDG_CACHE_HOME/tinyhw or ~/.cache/tinyhw."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "tinyhw"


def _compile(source: str, arch: str) -> tuple[bytes, int]:
    from compiler.elf import link
    from compiler.llvm import compile_ir
    from compiler.target import Target

    target = Target("llvm", arch, cpu=ARCHITECTURES[arch][0], triple=f"{arch}-unknown-linux-gnu")
    image, entry, relocations = link(compile_ir(source, target), "export")
    if relocations:
        raise RuntimeError(f"the native image has {len(relocations)} absolute addresses")
    return image, entry


def _read(path: Path) -> tuple[bytes, int] | None:
    """The cached image, or None if there is none that is whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if len(content) < _HEADER.size:
        return None
    magic, entry, digest = _HEADER.unpack_from(content)
    image = content[_HEADER.size :]
    whole = magic == _MAGIC and hashlib.sha256(image).digest() == digest and entry < len(image)
    return (image, entry) if whole else None


def _write(path: Path, image: bytes, entry: int) -> None:
    """Keeps an image; a folder that cannot be written only costs the next process its time."""
    content = _HEADER.pack(_MAGIC, entry, hashlib.sha256(image).digest()) + image
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(name, path)
        except OSError:
            os.unlink(name)
    except OSError:
        return


def build(arch: str) -> tuple[bytes, int]:
    """The linked image for one instruction set and the offset of its @export."""
    if arch not in ARCHITECTURES:
        raise DeviceNotAvailable(
            f"The processor devices know {', '.join(ARCHITECTURES)}; this process runs on "
            f"{arch or 'an unknown instruction set'}."
        )
    source = text(arch)
    name = hashlib.sha256(f"{arch}\n{source}".encode()).hexdigest()[:32]
    path = cache_folder() / f"native-{name}.bin"
    cached = _read(path)
    if cached is None:
        cached = _compile(source, arch)
        _write(path, *cached)
    return cached


def map_code(
    system: System, image: bytes, relocations: Iterable[Relocation] = ()
) -> tuple[int, int]:
    """Copies machine code into executable memory: its address and mapped size.

    The memory is never writable and executable at once. Raises OSError; nothing stays mapped.
    """
    size = max(4096, (len(image) + 4095) & ~4095)
    address = system.mmap(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    try:
        ctypes.memmove(address, image, len(image))
        for relocation in relocations:
            ctypes.c_uint64.from_address(address + relocation.offset).value = (
                address + relocation.addend
            )
        system.mprotect(address, size, PROT_READ | PROT_EXEC)
    except OSError:
        system.munmap(address, size)
        raise
    return address, size


class NativeImage:
    """The image in memory: the addresses of its functions, and Python callables for some.

    `reached`, `replay` and `submit` keep the GIL and may only be called with a timeout of 0,
    when they never sleep; their twins `wait` and `_blocking` release it.
    """

    def __init__(self, system: System) -> None:
        image, entry = build(host_arch())
        self.address, self.size_bytes = map_code(system, image)
        export = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint32)(self.address + entry)
        self.functions = {name: int(export(i)) for i, name in enumerate(EXPORTS)}
        word, number, signed = ctypes.c_uint64, ctypes.c_int32, ctypes.c_int64
        at = self.functions
        self.wait = ctypes.CFUNCTYPE(number, word, word, signed)(at["timeline_wait"])
        self.reached = ctypes.PYFUNCTYPE(number, word, word, signed)(at["timeline_wait"])
        self.signal = ctypes.PYFUNCTYPE(None, word, word)(at["timeline_signal"])
        self.apply_patches = ctypes.PYFUNCTYPE(signed, word, word, word, word)(at["apply_patches"])
        self.submit = ctypes.PYFUNCTYPE(signed, word, word, word, signed)(at["queue_submit"])
        self.submit_blocking = ctypes.CFUNCTYPE(signed, word, word, word, signed)(
            at["queue_submit"]
        )
        self.replay = ctypes.PYFUNCTYPE(signed, word, signed)(at["queue_replay"])
        self.replay_blocking = ctypes.CFUNCTYPE(signed, word, signed)(at["queue_replay"])
        self.ring_submit = ctypes.PYFUNCTYPE(signed, word, word, word)(at["ring_submit"])
        self.ring_replay = ctypes.PYFUNCTYPE(signed, word)(at["ring_replay"])
        self.run_kernel = ctypes.CFUNCTYPE(None, word, word)(at["run_kernel"])
        self.queue_stop = ctypes.PYFUNCTYPE(None, word)(at["queue_stop"])
        self.pool_stop = ctypes.PYFUNCTYPE(None, word)(at["pool_stop"])


@functools.cache
def native() -> NativeImage:
    """The process's image: mapped at first use and never unmapped, since threads may run it."""
    from drivers.system import RealSystem

    return NativeImage(RealSystem())
