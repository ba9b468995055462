"""From LLVM IR to host machine code in executable memory, kept on disk between processes.

Translated code is long, and translation, not execution, is what emulation mostly costs. So only
what is used over and over gets all of the compiler's passes.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compiler import cache
from compiler.code_object import CodeObject
from compiler.elf import link
from compiler.llvm import compile_ir, host_target, version
from drivers.emulated.simt.instruction import TranslationFailed
from drivers.system import MAP_ANONYMOUS, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE, System


class Effort(enum.Enum):
    """What is done to make code quick."""

    NONE = "none"
    """No passes, and instructions selected the fast way: for what runs a few times."""
    SHORT = "short"
    """A short list of passes. A higher level of selection would gain nothing."""
    ALL = "all"
    """As a kernel of the processor (`compiler.llvm`)."""


@functools.cache
def _sources() -> str:
    """A digest of this package: another translator makes other code."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _machine(level: int) -> Any:
    import llvmlite.binding as llvm

    target = host_target()  # readies LLVM too
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=level, reloc="pic",
        codemodel="default",
    )


def _optimise(module: Any, machine: Any) -> None:
    import llvmlite.binding as llvm

    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.add_instruction_combine_pass()
    passes.add_sccp_pass()
    passes.add_aggressive_dce_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(1)))


def compile_text(text: str, entry: str, effort: Effort) -> tuple[bytes, int]:
    """The machine code of IR text and the offset of `entry` in it."""
    import llvmlite.binding as llvm

    if effort is Effort.ALL:
        return _linked(compile_ir(text, host_target()), entry)
    machine = _machine(0 if effort is Effort.NONE else 1)
    try:
        module = llvm.parse_assembly(text, llvm.create_context())
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise TranslationFailed(
            f"LLVM does not accept the translation: {error}", operation="translate"
        ) from error
    if effort is Effort.SHORT:
        _optimise(module, machine)
    return _linked(bytes(machine.emit_object(module)), entry)


def _linked(object: bytes, entry: str) -> tuple[bytes, int]:
    image, offset, relocations = link(object, entry)
    if relocations:
        raise TranslationFailed("Translated code holds absolute addresses.", operation="link")
    return image, offset


def compile_cached(
    digest: bytes, entry: str, make: Callable[[], str], effort: Effort
) -> tuple[bytes, int]:
    """`compile_text(make(), entry, effort)`, or what an earlier process got for the same digest."""
    target = host_target()
    name = hashlib.blake2b(digest_size=16)
    for part in (_sources(), repr(target), version(), entry, effort.value):
        name.update(part.encode() + b"\0")
    name.update(digest)
    key = name.hexdigest()
    kept = cache.get(key)
    if kept is not None:
        return kept.image, kept.entry
    image, offset = compile_text(make(), entry, effort)
    with contextlib.suppress(OSError):
        cache.put(key, CodeObject("simt", target.arch, image, offset, (), (1, 1, 1)))
    return image, offset


def map_code(system: System, image: bytes) -> int:
    """Copies machine code into executable memory; returns its address. Raises OSError."""
    size = (len(image) + 4095) & ~4095
    address = system.mmap(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    ctypes.memmove(address, image, len(image))
    system.mprotect(address, size, PROT_READ | PROT_EXEC)
    return address
