"""From a linear kernel to a CodeObject that a driver can load."""

from __future__ import annotations

from compiler import amdgpu, cubin, elf
from compiler.code_object import CodeObject, Param
from compiler.dtype import dtypes
from compiler.errors import CompilerError
from compiler.ir import Node, Op
from compiler.linear import LinearKernel
from compiler.target import Target


def render(kernel: LinearKernel, target: Target) -> str:
    """The kernel's source text in the language of the target's compiler."""
    match target.compiler:
        case "llvm" if not target.is_cpu:
            from compiler.render import amdgpu as renderer

            return renderer.render(kernel, target)
        case "llvm":
            from compiler.render import llvm_ir

            return llvm_ir.render(kernel, target)
        case "clang":
            from compiler.render import c

            return c.render(kernel, target)
        case "nvrtc":
            from compiler.render import cuda

            return cuda.render(kernel, target)
        case "nvptx":
            from compiler.render import nvptx

            return nvptx.render(kernel, target)
        case other:
            raise CompilerError(
                f"There is no compiler called {other!r}; there are 'llvm', 'clang', 'nvrtc' and "
                "'nvptx'.",
                operation="build",
            )


def compile_source(source: str, target: Target) -> bytes:
    """A relocatable object of what `render` wrote."""
    if target.compiler == "llvm":
        from compiler import llvm

        return llvm.compile_ir(source, target)
    if target.compiler == "nvrtc":
        from compiler import nvrtc

        return nvrtc.compile_cuda(source, target.arch)
    if target.compiler == "nvptx":
        from compiler import llvm, nvjitlink

        return nvjitlink.link_ptx(llvm.assembly(source, target), target.arch)
    from compiler import clang

    return clang.compile_c(source, target)


def disassemble(kernel: LinearKernel, target: Target) -> str:
    """The machine code that `build` would make, as assembly to read; of NVIDIA's, PTX or CUDA C."""
    source = render(kernel, target)
    if target.compiler in ("llvm", "nvptx"):
        from compiler import llvm

        return llvm.assembly(source, target)
    if target.compiler == "nvrtc":
        return source  # NVRTC shows none
    from compiler import clang

    return clang.assembly(source, target)


def build(kernel: LinearKernel, target: Target) -> CodeObject:
    """The machine code of `kernel` with everything needed to launch it.

    Raises a CompilerError when the kernel breaks its contract or the compiler is missing.
    """
    source = render(kernel, target)
    object = compile_source(source, target)
    local_bytes = sum(n.dtype.itemsize * n.arg[1] for n in kernel.body if n.op is Op.LOCAL)
    private_bytes = 0
    if target.compiler in ("nvrtc", "nvptx"):
        known = cubin.read(object).kernels[kernel.name]
        local_bytes, private_bytes = known.shared_bytes, known.stack_bytes
        image = elf.Image(object, 0, ())  # a driver places the parts of a cubin itself
    elif target.is_cpu:
        image = elf.link(object, kernel.name)
    else:
        image = elf.link(object, f"{kernel.name}.kd", executable=False)
        descriptor = amdgpu.descriptor_of(image.bytes, image.entry_offset, kernel)
        local_bytes = descriptor.group_segment_fixed_size
        private_bytes = descriptor.private_segment_fixed_size
    return CodeObject(
        name=kernel.name,
        arch=target.arch,
        image=image.bytes,
        entry=image.entry_offset,
        params=tuple(_param(slot, param, kernel) for slot, param in enumerate(kernel.params)),
        grid=kernel.grid,
        block=kernel.block,
        local_bytes=local_bytes,
        private_bytes=private_bytes,
        lane_width=target.lane_width,
        relocations=image.relocations,
        source=source,
        operations=kernel.operations,
        bytes_moved=kernel.bytes_moved,
    )


def _param(slot: int, param: Node, kernel: LinearKernel) -> Param:
    if param.op is Op.PARAM:
        return Param("buffer", param.dtype, f"data{slot}", slot in kernel.written)
    return Param("scalar", dtypes.int64, param.arg[0])
