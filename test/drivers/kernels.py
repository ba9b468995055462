"""Hand-written kernels in LLVM IR, as code objects for whatever device is under test."""

from __future__ import annotations

import functools

from compiler.code_object import CodeObject, Param
from compiler.dtype import dtypes
from compiler.elf import link
from compiler.llvm import compile_ir
from compiler.target import Target

BUFFER = ("buffer", dtypes.int64)
INT = ("scalar", dtypes.int64)


@functools.cache
def kernel(name: str, target: Target, body: str, *params: tuple[str, object, str]) -> CodeObject:
    """A kernel whose `body` sees %kernarg, %x, %y and %z, and each argument as %name."""
    loads = []
    for index, (kind, dtype, argument) in enumerate(params):
        loads.append(f"%{argument}.at = getelementptr i8, ptr %kernarg, i64 {8 * index}")
        if kind == "buffer":
            loads.append(f"%{argument} = load ptr, ptr %{argument}.at")
        else:
            form = {"float32": "float", "int64": "i64", "int32": "i32", "uint8": "i8",
                    "float16": "half", "bfloat16": "bfloat", "float64": "double",
                    "uint64": "i64"}[dtype.name]
            loads.append(f"%{argument} = load {form}, ptr %{argument}.at")
    text = (
        f"define void @{name}(ptr %kernarg, i32 %x, i32 %y, i32 %z) {{\nentry:\n"
        + "\n".join(loads)
        + body
        + "\n}\n"
    )
    image, entry, relocations = link(compile_ir(text, target), name)
    return CodeObject(
        name, target.arch, image, entry,
        tuple(Param(kind, dtype, argument) for kind, dtype, argument in params),
        relocations=relocations, source=text,
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
  ret void""", (*BUFFER, "out"), (*BUFFER, "in"), (*INT, "n"))
