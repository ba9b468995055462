"""The linker against objects that LLVM makes, against an aarch64 oracle, and against damage."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.elf import IMAGE_LIMIT, Image, link
from compiler.errors import CompilerError, MalformedObject, UndefinedSymbol, UnsupportedObject
from compiler.llvm import compile_ir, host_target
from compiler.target import Target

X86 = Target("llvm", "x86_64", cpu="x86-64", triple="x86_64-unknown-linux-gnu")
ARM = Target("llvm", "aarch64", cpu="generic", triple="aarch64-unknown-linux-gnu")

LEAF = "define i32 @leaf(i32 %x) nounwind { %r = mul i32 %x, 3\n ret i32 %r }\n"
CALLS = """
@table = private constant [4 x i32] [i32 11, i32 22, i32 33, i32 44]
@outside = global i32 5
define i32 @helper(i32 %x) nounwind noinline { %r = mul i32 %x, 3\n ret i32 %r }
define i32 @entry(i64 %i) nounwind {
  %p = getelementptr i32, ptr @table, i64 %i
  %v = load volatile i32, ptr %p
  %r = call i32 @helper(i32 %v)
  %o = load volatile i32, ptr @outside
  %s = add i32 %r, %o
  ret i32 %s
}
"""
POINTERS = """
@number = private constant i32 7
@pointers = constant [2 x ptr] [ptr @number, ptr getelementptr (i8, ptr @number, i64 3)]
define ptr @entry() nounwind { ret ptr @pointers }
"""


def calls(target: Target) -> bytes:
    return compile_ir(CALLS, target)


def test_a_function_alone_becomes_its_own_bytes() -> None:
    image = link(compile_ir(LEAF, X86), "leaf")
    assert image.entry_offset == 0
    assert image.relocations == ()
    assert image.bytes[:4] == bytes.fromhex("8d047fc3")  # lea eax, [rdi+2*rdi]; ret


def test_the_entry_is_found_where_it_lies() -> None:
    image = link(calls(X86), "entry")
    assert image.entry_offset == 16  # after `helper`, functions are aligned to 16


def test_absolute_addresses_are_left_to_the_loader() -> None:
    image = link(compile_ir(POINTERS, X86), "entry")
    first, second, slot = image.relocations
    assert slot.addend == first.offset  # `entry` reaches the table through it
    assert second.offset == first.offset + 8
    assert second.addend == first.addend + 3
    assert struct.unpack_from("<i", image.bytes, first.addend) == (7,)


def test_a_global_is_reached_through_a_slot_that_the_loader_fills() -> None:
    image = link(calls(X86), "entry")
    (slot,) = image.relocations
    assert slot.offset == len(image.bytes) - 8
    assert struct.unpack_from("<i", image.bytes, slot.addend) == (5,)


def test_arm_code_reaches_its_table_and_its_helper() -> None:
    image = link(calls(ARM), "entry")
    words = struct.unpack(f"<{len(image.bytes) // 4}I", image.bytes[: len(image.bytes) & ~3])
    start = image.entry_offset // 4
    (call,) = (
        (i, w) for i, w in enumerate(words[start : start + 20], start) if w >> 26 == 0b100101
    )
    assert 4 * call[0] + sign_extend(call[1] & 0x3FFFFFF, 26) * 4 == 0  # `helper` is first
    at, adrp = next(
        (i, w) for i, w in enumerate(words[start:], start) if w & 0x9F000000 == 0x90000000
    )
    add = next(
        w for w in words[at + 1 :] if w & 0xFFC00000 == 0x91000000 and (w >> 5) & 31 == adrp & 31
    )
    page = (4 * at >> 12) + sign_extend((adrp >> 5 & 0x7FFFF) << 2 | adrp >> 29 & 3, 21)
    table = (page << 12) + (add >> 10 & 0xFFF)
    assert struct.unpack_from("<4i", image.bytes, table) == (11, 22, 33, 44)


def sign_extend(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def test_a_missing_function_is_named() -> None:
    text = "declare float @sinf(float)\ndefine float @f(float %x) {\n"
    text += "%r = call float @sinf(float %x)\n%s = fadd float %r, 1.0\nret float %s }"
    with pytest.raises(UndefinedSymbol, match="'sinf', which its object does not define"):
        link(compile_ir(text, X86), "f")


def test_a_missing_entry_is_named() -> None:
    with pytest.raises(UndefinedSymbol, match="defines no function 'other'"):
        link(calls(X86), "other")
    with pytest.raises(UndefinedSymbol, match="'outside'"):  # a variable is no function
        link(calls(X86), "outside")


def test_thread_local_data_is_refused() -> None:
    text = "@t = thread_local global i32 0\ndefine ptr @f() { ret ptr @t }"
    with pytest.raises(UnsupportedObject, match="thread-local"):
        link(compile_ir(text, X86), "f")


def test_other_machines_are_refused() -> None:
    target = Target("llvm", "riscv64", cpu="generic-rv64", triple="riscv64-unknown-linux-gnu")
    with pytest.raises(UnsupportedObject, match="EM_RISCV"):
        link(compile_ir(LEAF, target), "leaf")


def test_a_giant_section_is_refused_before_memory_is_taken() -> None:
    text = f"@big = global [{IMAGE_LIMIT + 1} x i8] zeroinitializer\n{LEAF}"
    with pytest.raises(MalformedObject, match=str(IMAGE_LIMIT)):
        link(compile_ir(text, X86), "leaf")


@pytest.mark.parametrize("target", [X86, ARM], ids=lambda t: t.arch)
def test_no_cut_makes_the_linker_crash(target: Target) -> None:
    whole = calls(target)
    for length in range(0, len(whole), 7):
        with pytest.raises(CompilerError, match="object"):
            link(whole[:length], "entry")


def _links_or_says_why(damaged: bytes) -> None:
    try:
        image = link(damaged, "entry")
    except CompilerError as error:
        assert str(error).endswith(".")
    else:
        assert isinstance(image, Image)
        assert 0 <= image.entry_offset < len(image.bytes) <= 2 * IMAGE_LIMIT
        assert all(0 <= r.offset <= len(image.bytes) - 8 for r in image.relocations)


@settings(max_examples=400)
@given(st.data())
def test_no_flipped_byte_makes_the_linker_crash(data: st.DataObject) -> None:
    whole = bytearray(calls_of[data.draw(st.sampled_from(["x86_64", "aarch64"]))])
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(whole) - 1))
        whole[position] = data.draw(st.integers(0, 255))
    _links_or_says_why(bytes(whole))


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_no_bytes_make_the_linker_crash(tail: bytes) -> None:
    _links_or_says_why(calls_of["x86_64"][:64] + tail)


calls_of = {target.arch: calls(target) for target in (X86, ARM)}


def test_the_host_is_a_machine_that_the_linker_knows() -> None:
    assert link(compile_ir(LEAF, host_target()), "leaf").bytes
