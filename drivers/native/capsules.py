"""Native functions that end the life of DLPack capsules, and of what they hand over.

A consumer calls a deleter from any thread, with or without the GIL and with an exception on its
way; a destructor gets a capsule that is half gone. Callbacks written in Python stand none of
that, so these are compiled, once in a process: they hold addresses of the interpreter.

    capsule -> DLManagedTensor -> manager_ctx, a Python object that holds one reference to itself

Offsets are those of dlpack.h 1.1 on a 64-bit machine.
"""

from __future__ import annotations

import ctypes
import functools
import string
from dataclasses import dataclass

from compiler.elf import link
from compiler.llvm import compile_ir
from compiler.target import Target
from drivers.native.image import ARCHITECTURES, host_arch, map_code

_EXPORTS = (
    "name", "name_versioned", "used", "used_versioned", "delete", "delete_versioned", "destroy",
    "destroy_versioned",
)
_PYTHON = (
    "Py_IsInitialized", "PyGILState_Ensure", "PyGILState_Release", "Py_DecRef",
    "PyCapsule_IsValid", "PyCapsule_GetPointer",
)
# manager_ctx and deleter in DLManagedTensor, and in DLManagedTensorVersioned.
_OFFSETS = {"": (48, 56), "_versioned": (8, 16)}

_COMMON = string.Template("""
@name = internal constant [9 x i8] c"dltensor\\00"
@name_versioned = internal constant [19 x i8] c"dltensor_versioned\\00"
@used = internal constant [14 x i8] c"used_dltensor\\00"
@used_versioned = internal constant [24 x i8] c"used_dltensor_versioned\\00"

; Gives up one reference to a Python object, unless the interpreter is gone and its objects too.
define internal void @release(ptr %object) {
  %alive = call i32 inttoptr (i64 $Py_IsInitialized to ptr)()
  %gone = icmp eq i32 %alive, 0
  br i1 %gone, label %leave, label %take
take:
  %state = call i32 inttoptr (i64 $PyGILState_Ensure to ptr)()
  call void inttoptr (i64 $Py_DecRef to ptr)(ptr %object)
  call void inttoptr (i64 $PyGILState_Release to ptr)(i32 %state)
  ret void
leave:
  ret void
}

; The address of the export of that number.
define hidden ptr @export(i32 %which) {
$choices
  ret ptr %p0
}
""")

_PER_STRUCTURE = string.Template("""
; The deleter of a structure whose memory belongs to its manager_ctx.
define internal void @delete$kind(ptr %self) {
  %at = getelementptr i8, ptr %self, i64 $manager
  %object = load ptr, ptr %at
  call void @release(ptr %object)
  ret void
}

; The destructor of a capsule: one that nobody consumed, which its name tells, deletes.
define internal void @destroy$kind(ptr %capsule) {
  %valid = call i32 inttoptr (i64 $PyCapsule_IsValid to ptr)(ptr %capsule, ptr @name$kind)
  %used = icmp eq i32 %valid, 0
  br i1 %used, label %leave, label %take
take:
  %self = call ptr inttoptr (i64 $PyCapsule_GetPointer to ptr)(ptr %capsule, ptr @name$kind)
  %at = getelementptr i8, ptr %self, i64 $deleter
  %function = load ptr, ptr %at
  call void %function(ptr %self)
  ret void
leave:
  ret void
}
""")


@dataclass(frozen=True)
class CapsuleFunctions:
    """Addresses: the names of a capsule before and after, the deleter, the destructor."""

    name: int
    used: int
    delete: int
    destroy: int


def _text() -> str:
    addresses = {
        name: ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
        for name in _PYTHON
    }
    # Selected from the last to the first: %p0 is what the number stands for.
    choices = "\n".join(
        f"  %is{i} = icmp eq i32 %which, {i}\n"
        f"  %p{i} = select i1 %is{i}, ptr @{name}, ptr "
        + (f"%p{i + 1}" if i + 1 < len(_EXPORTS) else "null")
        for i, name in reversed(list(enumerate(_EXPORTS)))
    )
    parts = [_COMMON.substitute(addresses, choices=choices)]
    for kind, (manager, deleter) in _OFFSETS.items():
        parts.append(
            _PER_STRUCTURE.substitute(addresses, kind=kind, manager=manager, deleter=deleter)
        )
    return "".join(parts)


@functools.cache
def capsule_functions(versioned: bool) -> CapsuleFunctions:
    """The functions for DLManagedTensor, or DLManagedTensorVersioned; never unmapped."""
    at = _exports()
    kind = "_versioned" if versioned else ""
    names = at[f"name{kind}"], at[f"used{kind}"]
    return CapsuleFunctions(*names, at[f"delete{kind}"], at[f"destroy{kind}"])


@functools.cache
def _exports() -> dict[str, int]:
    from drivers.system import RealSystem

    arch = host_arch()
    target = Target("llvm", arch, cpu=ARCHITECTURES[arch][0], triple=f"{arch}-unknown-linux-gnu")
    image, entry, _ = link(compile_ir(_text(), target), "export")
    address, _ = map_code(RealSystem(), image)
    export = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint32)(address + entry)
    return {name: int(export(i)) for i, name in enumerate(_EXPORTS)}
