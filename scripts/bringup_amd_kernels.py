"""The kernels of a bring-up, written in LLVM IR, one fact of the hardware each."""

from __future__ import annotations

from bringup_high import THREADS
from compiler.code_object import CodeObject, Param
from compiler.dtype import dtypes
from compiler.elf import link
from compiler.llvm import compile_ir
from compiler.target import Target

_ATTRIBUTES = (
    '"uniform-work-group-size"="true" "amdgpu-no-implicitarg-ptr" "amdgpu-no-dispatch-ptr" '
    '"amdgpu-no-queue-ptr" "amdgpu-no-dispatch-id"'
)


def _kernel(
    name: str, target: Target, body: str, buffers: tuple[str, ...], scalars: tuple[str, ...] = (),
    globals_text: str = "", local_bytes: int = 0,
) -> CodeObject:
    """A kernel of blocks of THREADS, whose `body` sees %thread, %block and %item (both, as i64)."""
    params = [f"ptr addrspace(1) %{name}" for name in buffers]
    params += [f"i64 %{name}" for name in scalars]
    text = f"""
declare i32 @llvm.amdgcn.workgroup.id.x()
declare i32 @llvm.amdgcn.workitem.id.x()
declare void @llvm.amdgcn.s.barrier()
{globals_text}
define amdgpu_kernel void @{name}({", ".join(params)}) #0 {{
  %block = call i32 @llvm.amdgcn.workgroup.id.x()
  %thread = call i32 @llvm.amdgcn.workitem.id.x()
  %block.wide = zext i32 %block to i64
  %thread.wide = zext i32 %thread to i64
  %start = mul i64 %block.wide, {THREADS}
  %item = add i64 %start, %thread.wide
{body}
  ret void
}}
attributes #0 = {{ nounwind "amdgpu-flat-work-group-size"="{THREADS},{THREADS}" {_ATTRIBUTES} }}
!llvm.module.flags = !{{!0}}
!0 = !{{i32 1, !"amdhsa_code_object_version", i32 500}}
"""
    image, entry, relocations = link(compile_ir(text, target), f"{name}.kd", executable=False)
    arguments = [Param("buffer", dtypes.int32, each) for each in buffers]
    arguments += [Param("scalar", dtypes.int64, each) for each in scalars]
    return CodeObject(
        name, target.arch, image, entry, tuple(arguments), block=(THREADS, 1, 1),
        local_bytes=local_bytes, relocations=relocations, source=text,
        lane_width=target.lane_width,
    )


def number_items(target: Target) -> CodeObject:
    """out[item] = 3 * item + 7, for int32."""
    return _kernel("number_items", target, """
  %narrow = trunc i64 %item to i32
  %three = mul i32 %narrow, 3
  %value = add i32 %three, 7
  %to = getelementptr i32, ptr addrspace(1) %out, i64 %item
  store i32 %value, ptr addrspace(1) %to""", ("out",))


def reverse_blocks(target: Target) -> CodeObject:
    """Reverses each block of `in` through local memory, with a barrier between."""
    return _kernel("reverse_blocks", target, f"""
  %from = getelementptr i32, ptr addrspace(1) %in, i64 %item
  %value = load i32, ptr addrspace(1) %from
  %own = getelementptr [{THREADS} x i32], ptr addrspace(3) @shared, i32 0, i32 %thread
  store i32 %value, ptr addrspace(3) %own
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  %mirror = sub i32 {THREADS - 1}, %thread
  %other = getelementptr [{THREADS} x i32], ptr addrspace(3) @shared, i32 0, i32 %mirror
  %back = load i32, ptr addrspace(3) %other
  %to = getelementptr i32, ptr addrspace(1) %out, i64 %item
  store i32 %back, ptr addrspace(1) %to""", ("out", "in"),
        globals_text=f"@shared = internal addrspace(3) global [{THREADS} x i32] poison, align 16",
        local_bytes=4 * THREADS)  # fmt: skip


def through_scratch(target: Target) -> CodeObject:
    """out[item] = item, kept on the way in a private array whose index nobody knows before."""
    return _kernel("through_scratch", target, """
  %array = alloca [64 x i64], align 8, addrspace(5)
  %place = and i32 %block, 63
  %at = getelementptr i64, ptr addrspace(5) %array, i32 %place
  store volatile i64 %item, ptr addrspace(5) %at
  %value = load volatile i64, ptr addrspace(5) %at
  %narrow = trunc i64 %value to i32
  %to = getelementptr i32, ptr addrspace(1) %out, i64 %item
  store i32 %narrow, ptr addrspace(1) %to""", ("out",))


def store_far(target: Target) -> CodeObject:
    """out[distance + item] = 1: faults where nothing is mapped."""
    return _kernel("store_far", target, """
  %place = add i64 %item, %distance
  %to = getelementptr i32, ptr addrspace(1) %out, i64 %place
  store i32 1, ptr addrspace(1) %to""", ("out",), ("distance",))


def copy_lines(target: Target) -> CodeObject:
    """Copies 16 bytes a thread."""
    return _kernel("copy_lines", target, """
  %from = getelementptr <4 x i32>, ptr addrspace(1) %in, i64 %item
  %value = load <4 x i32>, ptr addrspace(1) %from, align 16
  %to = getelementptr <4 x i32>, ptr addrspace(1) %out, i64 %item
  store <4 x i32> %value, ptr addrspace(1) %to, align 16""", ("out", "in"))


def nothing(target: Target) -> CodeObject:
    """Ends at once."""
    return _kernel("nothing", target, "", ("out",))
