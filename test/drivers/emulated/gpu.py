"""Small kernels from LLVM IR for AMD GPUs, and their launch on the translator."""

from __future__ import annotations

import ctypes
import functools
import io
import struct
from dataclasses import dataclass
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
from elftools.elf.elffile import ELFFile

from drivers.emulated.simt.dispatch import Dispatch, Fault, MemoryRange
from drivers.emulated.simt.engine import Engine
from drivers.system import RealSystem

PRELUDE = """
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workitem.id.y()
declare i32 @llvm.amdgcn.workgroup.id.x()
declare i32 @llvm.amdgcn.workgroup.id.y()
declare void @llvm.amdgcn.s.barrier()
"""


class Target(NamedTuple):
    """What kernels are compiled for."""

    gfx: str
    wave_size: int


target = Target("gfx1100", 32)
"""The one that `compile_kernel` takes when it is given none."""


@dataclass
class Kernel:
    """Machine code with its descriptor's figures; kept at a fixed place in memory."""

    code: ctypes.Array
    scalars: int
    lds_bytes: int
    scratch_bytes: int
    group_ids: tuple[int, int, int]
    scratch_register: int
    float_mode: int
    properties: int
    assembly: str
    target: Target

    @property
    def entry(self) -> int:
        return (ctypes.addressof(self.code) + 255) & ~255


def placed(gfx: str, rsrc2: int) -> tuple[tuple[int, int, int], int]:
    """The registers of the workgroup's numbers and of the wave's offset in scratch."""
    following = iter(range(rsrc2 >> 1 & 31, 128))
    ids = tuple(next(following) if rsrc2 >> bit & 1 else -1 for bit in (7, 8, 9))
    if gfx.startswith("gfx12"):
        ids = (117, 115, 115)  # ttmp9, ttmp7
    return ids, next(following) if rsrc2 & 1 else -1


def user_scalars(
    properties: int, kernarg: int, scratch: int, wave_size: int = 32
) -> tuple[int, ...]:
    """The initial scalar registers that a kernel descriptor's properties ask for."""
    words: list[int] = []
    if properties & 1:  # private segment buffer: swizzled by thread, as gfx10's drivers have it
        last = 0x20C14000 | (wave_size == 64) << 21  # INDEX_STRIDE
        words += [scratch & 0xFFFFFFFF, scratch >> 32 | 1 << 31, 0xFFFFFFFF, last]
    words += [0, 0] * (properties >> 1 & 1) + [0, 0] * (properties >> 2 & 1)
    words += [kernarg & 0xFFFFFFFF, kernarg >> 32]
    words += [0, 0] * (properties >> 4 & 1)
    if properties >> 5 & 1:
        words += [scratch & 0xFFFFFFFF, scratch >> 32]
    return tuple(words)


@functools.cache
def _machine(target: Target):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple("amdgcn-amd-amdhsa").create_target_machine(
        cpu=target.gfx, features=f"+wavefrontsize{target.wave_size}", opt=3, reloc="pic"
    )


def compile_kernel(text: str, attributes: str = "", level: int = 3) -> Kernel:
    """Compiles the one kernel of `text`, whose attribute group #0 is made here."""
    return _compile(text, attributes, level, target)


@functools.cache
def _compile(text: str, attributes: str, level: int, target: Target) -> Kernel:
    machine = _machine(target)
    text += PRELUDE + f'attributes #0 = {{ "uniform-work-group-size"="true" {attributes} }}\n'
    module = llvm.parse_assembly(text, llvm.create_context())
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(level))
    builder.getModulePassManager().run(module, builder)
    assembly = machine.emit_assembly(module.clone())
    elf = ELFFile(io.BytesIO(machine.emit_object(module)))
    symbols = {s.name: s for s in elf.get_section_by_name(".symtab").iter_symbols()}
    (name,) = [n[:-3] for n in symbols if n.endswith(".kd")]
    text_section = elf.get_section_by_name(".text")
    symbol = symbols[name]
    code = bytearray(text_section.data())
    start, size = symbol.entry.st_value, symbol.entry.st_size
    relocations = elf.get_section_by_name(".rela.text")
    assert relocations is None, "the test kernels have no constant tables"
    descriptor = elf.get_section_by_name(".rodata").data()[symbols[name + ".kd"].entry.st_value:]
    lds, scratch = struct.unpack_from("<II", descriptor, 0)
    rsrc1, rsrc2 = struct.unpack_from("<II", descriptor, 48)
    user = rsrc2 >> 1 & 31
    (properties,) = struct.unpack_from("<H", descriptor, 56)
    buffer = ctypes.create_string_buffer(size + 512)
    kernel = Kernel(buffer, user, lds, scratch, *placed(target.gfx, rsrc2),
                    rsrc1 >> 12 & 0xFF, properties, assembly, target)
    ctypes.memmove(kernel.entry, bytes(code[start : start + size]), size)
    return kernel


@functools.cache
def engine() -> Engine:
    return Engine(RealSystem(), eager=True)


def arguments(*values) -> bytes:
    """Arrays as addresses, ints as i32 or (tagged) i64, floats as f32, naturally aligned."""
    data = b""
    for value in values:
        form, item = {
            np.ndarray: lambda v: ("Q", v.ctypes.data), int: lambda v: ("i", v),
            float: lambda v: ("f", v),
        }[type(value)](value)
        size = struct.calcsize(form)
        data += bytes(-len(data) % size) + struct.pack(form, item)
    return data


def launch(
    kernel: Kernel, grid, block, *values, memory=None, on: Engine | None = None, **fields
) -> Fault | None:
    """Runs a kernel over arrays (buffers) and numbers; only their memory may be touched."""
    data = ctypes.create_string_buffer(arguments(*values), 256)
    kernarg = ctypes.addressof(data)
    ranges = [MemoryRange(v.ctypes.data, v.ctypes.data + v.nbytes)
              for v in values if isinstance(v, np.ndarray)] if memory is None else list(memory)
    start = ctypes.addressof(kernel.code)
    ranges += [MemoryRange(kernarg, kernarg + 256), MemoryRange(start, start + len(kernel.code))]
    waves = -(-block[0] * block[1] * block[2] // kernel.target.wave_size)
    allotted = np.zeros(kernel.scratch_bytes * 64 * waves * engine().threads + 64, np.uint8)
    ranges.append(MemoryRange(allotted.ctypes.data, allotted.ctypes.data + allotted.nbytes))
    dispatch = Dispatch(
        entry=kernel.entry,
        scalars=user_scalars(
            kernel.properties, kernarg, allotted.ctypes.data, kernel.target.wave_size
        ),
        scratch_register=kernel.scratch_register,
        thread_ids="separate" if kernel.target.gfx.startswith("gfx10") else "packed",
        group_ids=kernel.group_ids, block=block, grid=grid, memory=tuple(ranges),
        lds_bytes=kernel.lds_bytes, scratch_bytes=kernel.scratch_bytes,
        float_mode=kernel.float_mode, **kernel.target._asdict(), **fields,
    )
    return (on or engine()).run(dispatch)
