"""Hand-written kernels in LLVM IR, as code objects for whatever device is under test."""

from __future__ import annotations

import functools

from compiler.code_object import CodeObject, Param
from compiler.dtype import DType, dtypes
from compiler.elf import link
from compiler.llvm import compile_ir
from compiler.target import Target

IR_TYPES = {
    "int8": "i8", "uint8": "i8", "int16": "i16", "uint16": "i16", "int32": "i32",
    "uint32": "i32", "int64": "i64", "uint64": "i64", "float16": "half", "bfloat16": "bfloat",
    "float32": "float", "float64": "double", "bool": "i8",
}


def buffer(name: str) -> Param:
    return Param("buffer", dtypes.int64, name)


def scalar(name: str, dtype: DType = dtypes.int64) -> Param:
    return Param("scalar", dtype, name)


@functools.cache
def kernel(name: str, target: Target, body: str, *params: Param) -> CodeObject:
    """A kernel whose `body` sees %kernarg, the block %x %y %z, and each argument as %name.

    NVIDIA's GPUs get CUDA[name] instead, in CUDA C++.
    """
    if target.compiler == "nvrtc":
        return cuda_kernel(name, target, *params)
    if not target.is_cpu:
        return gpu_kernel(name, target, body, *params)
    lines = []
    for index, param in enumerate(params):
        kind = "ptr" if param.kind == "buffer" else IR_TYPES[param.dtype.name]
        lines.append(f"  %{param.name}.at = getelementptr i8, ptr %kernarg, i64 {8 * index}")
        lines.append(f"  %{param.name} = load {kind}, ptr %{param.name}.at")
    text = f"define void @{name}(ptr %kernarg, i32 %x, i32 %y, i32 %z) {{\nentry:\n"
    text += "\n".join(lines) + body + "\n}\n"
    image, entry, relocations = link(compile_ir(text, target), name)
    return CodeObject(
        name, target.arch, image, entry, params, relocations=relocations, source=text
    )


CUDA_TYPES = {
    "int8": "signed char", "uint8": "unsigned char", "int16": "short", "uint16": "unsigned short",
    "int32": "int", "uint32": "unsigned", "int64": "long long", "uint64": "unsigned long long",
    "float16": "unsigned short", "bfloat16": "unsigned short", "float32": "float",
    "float64": "double", "bool": "unsigned char",
}
CUDA = {
    "add_number": "out[x] = in[x] + n;",
    "store_at": "out[index] = value;",
    "count_block":
        "atomicAdd((unsigned long long *)&out[x + width * (y + height * (long long)z)], 1ULL);",
    "multiply": "*(float *)out = a * b;",
    "busy": "for (long long i = 0; i < turns; i++) *(volatile long long *)out;",
} | {f"keep_{name}": f"*({kind} *)out = value;" for name, kind in CUDA_TYPES.items()}


def cuda_kernel(name: str, target: Target, *params: Param) -> CodeObject:
    """The same for an NVIDIA GPU: one thread a block, and slots of 8 bytes for parameters."""
    from compiler.nvrtc import compile_cuda

    lines = ["unsigned x = blockIdx.x, y = blockIdx.y, z = blockIdx.z;"]
    for param in params:
        kind = "long long *" if param.kind == "buffer" else CUDA_TYPES[param.dtype.name]
        lines.append(f"{kind} {param.name} = *({kind} *)&{param.name}_slot;")
    slots = ", ".join(f"long long {param.name}_slot" for param in params)
    text = (
        f'extern "C" __global__ void __launch_bounds__(1) {name}({slots}) {{\n  '
        + "\n  ".join([*lines, CUDA[name]]) + "\n}\n"
    )
    image = compile_cuda(text, target.arch)
    return CodeObject(name, target.arch, image, 0, params, source=text,
                      lane_width=target.lane_width)  # fmt: skip


def gpu_kernel(name: str, target: Target, body: str, *params: Param) -> CodeObject:
    """The same for an AMD GPU: one thread a block, pointers to global memory."""
    lines = [f"  %{axis} = call i32 @llvm.amdgcn.workgroup.id.{axis}()" for axis in "xyz"]
    for param in params:
        if param.kind == "buffer":
            lines.append(f"  %{param.name} = addrspacecast ptr addrspace(1) %{param.name}.g to ptr")
        elif IR_TYPES[param.dtype.name] == "i64":
            lines.append(f"  %{param.name} = add i64 %{param.name}.g, 0")
        else:
            kind = IR_TYPES[param.dtype.name]
            bits = 8 * param.dtype.itemsize
            cut = f"%{param.name}.g" if bits == 64 else f"%{param.name}.i"
            if bits < 64:
                lines.append(f"  {cut} = trunc i64 %{param.name}.g to i{bits}")
            lines.append(f"  %{param.name} = bitcast i{bits} {cut} to {kind}")
    signature = ", ".join(
        f"{'ptr addrspace(1)' if param.kind == 'buffer' else 'i64'} %{param.name}.g"
        for param in params
    )
    declarations = "".join(
        f"declare i32 @llvm.amdgcn.workgroup.id.{axis}()\n" for axis in "xyz"
    )
    text = (
        f"{declarations}define amdgpu_kernel void @{name}({signature}) #0 {{\nentry:\n"
        + "\n".join(lines) + body + "\n}\n"
        + 'attributes #0 = { nounwind "amdgpu-flat-work-group-size"="1,1" '
        + '"uniform-work-group-size"="true" "amdgpu-no-implicitarg-ptr" "amdgpu-no-dispatch-ptr" '
        + '"amdgpu-no-queue-ptr" "amdgpu-no-dispatch-id" }\n'
        + '!llvm.module.flags = !{!0}\n!0 = !{i32 1, !"amdhsa_code_object_version", i32 500}\n'
    )
    image, entry, relocations = link(compile_ir(text, target), f"{name}.kd", executable=False)
    return CodeObject(
        name, target.arch, image, entry, params, relocations=relocations, source=text,
        lane_width=target.lane_width,
    )


def add_number(target: Target) -> CodeObject:
    """out[x] = in[x] + n, for int64; one block adds one element."""
    return kernel("add_number", target, """
  %wide = zext i32 %x to i64
  %from = getelementptr i64, ptr %in, i64 %wide
  %to = getelementptr i64, ptr %out, i64 %wide
  %value = load i64, ptr %from
  %sum = add i64 %value, %n
  store i64 %sum, ptr %to
  ret void""", buffer("out"), buffer("in"), scalar("n"))


def store_at(target: Target) -> CodeObject:
    """out[index] = value."""
    return kernel("store_at", target, """
  %to = getelementptr i64, ptr %out, i64 %index
  store i64 %value, ptr %to
  ret void""", buffer("out"), scalar("index"), scalar("value"))


def count_block(target: Target) -> CodeObject:
    """out[x + width * (y + height * z)] += 1: each block must run once."""
    return kernel("count_block", target, """
  %wide.x = zext i32 %x to i64
  %wide.y = zext i32 %y to i64
  %wide.z = zext i32 %z to i64
  %plane = mul i64 %wide.z, %height
  %row = add i64 %plane, %wide.y
  %start = mul i64 %row, %width
  %index = add i64 %start, %wide.x
  %to = getelementptr i64, ptr %out, i64 %index
  %old = atomicrmw add ptr %to, i64 1 monotonic
  ret void""", buffer("out"), scalar("width"), scalar("height"))


def multiply(target: Target) -> CodeObject:
    """out[0] = a * b, for float32, each a scalar argument."""
    return kernel("multiply", target, """
  %product = fmul float %a, %b
  store float %product, ptr %out
  ret void""", buffer("out"), scalar("a", dtypes.float32), scalar("b", dtypes.float32))


def keep(target: Target, dtype: DType) -> CodeObject:
    """out[0] = value, of one element type."""
    kind = IR_TYPES[dtype.name]
    return kernel(f"keep_{dtype.name}", target, f"""
  store {kind} %value, ptr %out
  ret void""", buffer("out"), scalar("value", dtype))


def meet(target: Target) -> CodeObject:
    """Counts itself in out[0], then waits until every block of the grid has done so."""
    return kernel("meet", target, """
  %old = atomicrmw add ptr %out, i64 1 seq_cst
  br label %look
look:
  %seen = load atomic i64, ptr %out seq_cst, align 8
  %all = icmp uge i64 %seen, %blocks
  br i1 %all, label %done, label %look
done:
  ret void""", buffer("out"), scalar("blocks"))


def busy(target: Target) -> CodeObject:
    """Reads out[0] `turns` times."""
    return kernel("busy", target, """
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %seen = load volatile i64, ptr %out
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %turns
  br i1 %more, label %loop, label %done
done:
  ret void""", buffer("out"), scalar("turns"))


def hold_one(target: Target) -> CodeObject:
    """Counts itself in out[0], waits for all blocks, then block `held` waits for out[1] != 0."""
    return kernel("hold_one", target, """
  %old = atomicrmw add ptr %out, i64 1 seq_cst
  %flag = getelementptr i64, ptr %out, i64 1
  %wide = zext i32 %x to i64
  %mine = icmp eq i64 %wide, %held
  br label %look
look:
  %seen = load atomic i64, ptr %out seq_cst, align 8
  %all = icmp uge i64 %seen, %blocks
  br i1 %all, label %met, label %look
met:
  br i1 %mine, label %hold, label %done
hold:
  %free = load atomic i64, ptr %flag seq_cst, align 8
  %go = icmp ne i64 %free, 0
  br i1 %go, label %done, label %hold
done:
  ret void""", buffer("out"), scalar("blocks"), scalar("held"))


def big_stack(target: Target) -> CodeObject:
    """Writes a local array of 1 MiB and stores the sum of two of its ends."""
    return kernel("big_stack", target, """
  %local = alloca [131072 x i64], align 64
  %far = getelementptr i64, ptr %local, i64 131071
  store volatile i64 40, ptr %local
  store volatile i64 2, ptr %far
  %a = load volatile i64, ptr %local
  %b = load volatile i64, ptr %far
  %sum = add i64 %a, %b
  %wide = zext i32 %x to i64
  %to = getelementptr i64, ptr %out, i64 %wide
  store i64 %sum, ptr %to
  ret void""", buffer("out"))
