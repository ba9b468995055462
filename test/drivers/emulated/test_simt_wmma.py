"""WMMA as LLVM selects it, on the translator, against products of whole matrices."""

from __future__ import annotations

import numpy as np
import pytest

from test.drivers.emulated import gpu

rng = np.random.default_rng(11)

KERNEL = """
define amdgpu_kernel void @k(ptr addrspace(1) %o, ptr addrspace(1) %a, ptr addrspace(1) %b,
                             ptr addrspace(1) %c) #0 {{
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %pa = getelementptr {factor}, ptr addrspace(1) %a, i32 %t
  %pb = getelementptr {factor}, ptr addrspace(1) %b, i32 %t
  %pc = getelementptr {result}, ptr addrspace(1) %c, i32 %t
  %po = getelementptr {result}, ptr addrspace(1) %o, i32 %t
  %va = load {factor}, ptr addrspace(1) %pa
  %vb = load {factor}, ptr addrspace(1) %pb
  %vc = load {result}, ptr addrspace(1) %pc
  %d = call {result} @{function}({arguments})
  store {result} %d, ptr addrspace(1) %po
  ret void
}}
declare {result} @{function}({kinds})
"""


def run(name: str, factor: str, result: str, a, b, c, signs=None, half=None, clamp=None):
    """One wave's matrix product; a, b, c hold each lane's registers in its row."""
    letters = {"float": "f32", "half": "f16", "i32": "i32", "i16": "i16", "bfloat": "bf16"}

    def short(type: str) -> str:
        count, _, element = type.strip("<>").partition(" x ")
        return f"v{count}{letters[element]}" if element else letters[type]

    function = f"llvm.amdgcn.wmma.{name}.{short(result)}.{short(factor)}"
    arguments, kinds = [f"{factor} %va", f"{factor} %vb"], [factor, factor]
    if signs:
        arguments = [f"i1 {int(signs[0])}", arguments[0], f"i1 {int(signs[1])}", arguments[1]]
        kinds = ["i1", factor, "i1", factor]
    arguments.append(f"{result} %vc")
    kinds.append(result)
    for flag in (half, clamp):
        if flag is not None:
            arguments.append(f"i1 {int(flag)}")
            kinds.append("i1")
    kernel = gpu.compile_kernel(KERNEL.format(
        factor=factor, result=result, function=function, arguments=", ".join(arguments),
        kinds=", ".join(kinds),
    ))
    assert "v_wmma_" in kernel.assembly
    out = np.zeros_like(c)
    assert gpu.launch(kernel, (1, 1, 1), (32, 1, 1), out, a, b, c) is None
    return out


def rows_twice(matrix):
    """RDNA3's factors: lane l and lane l + 16 hold row l."""
    return np.ascontiguousarray(np.concatenate([matrix, matrix]))


def rows_alternating(matrix):
    """RDNA3's results: register i of lane l is row 2i + l // 16, column l % 16."""
    lanes = np.arange(32)
    return np.ascontiguousarray(
        np.stack([matrix[2 * i + lanes // 16, lanes % 16] for i in range(8)], axis=1)
    )


def bfloat16(values):
    """The upper halves of float32 numbers that have nothing below."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


SMALL = [rng.integers(-8, 9, (16, 16)) for _ in range(3)]


@pytest.mark.parametrize("factor", ["half", "i16"])
def test_rdna3_sums_in_float32(factor):
    a, b, c = SMALL
    narrow = np.float16 if factor == "half" else bfloat16
    convert = narrow if factor == "i16" else (lambda m: m.astype(np.float16))
    name = "f32.16x16x16." + ("f16" if factor == "half" else "bf16")
    got = run(name, f"<16 x {factor}>", "<8 x float>", rows_twice(convert(a)),
              rows_twice(convert(b.T)), rows_alternating(c.astype(np.float32)))
    assert np.array_equal(got, rows_alternating((a @ b + c).astype(np.float32)))


@pytest.mark.parametrize("upper", [False, True])
def test_rdna3_results_of_16_bits_are_the_halves_of_registers(upper):
    a, b, c = SMALL
    wide = np.zeros((32, 16), np.float16)
    wide[:, upper::2] = rows_alternating(c.astype(np.float16))
    wide[:, 1 - upper::2] = 9  # the other halves stay what they were
    got = run("f16.16x16x16.f16", "<16 x half>", "<16 x half>", rows_twice(a.astype(np.float16)),
              rows_twice(b.T.astype(np.float16)), wide, half=upper)
    assert np.array_equal(got[:, upper::2], rows_alternating((a @ b + c).astype(np.float16)))
    got = run("bf16.16x16x16.bf16", "<16 x i16>", "<16 x i16>", rows_twice(bfloat16(a)),
              rows_twice(bfloat16(b.T)), bfloat16(wide), half=upper)
    exact = (a @ b + c).astype(np.float32)
    error = np.abs((got[:, upper::2].astype(np.uint32) << 16).view(np.float32)
                   - rows_alternating(exact))
    assert (error <= np.abs(rows_alternating(exact)) * 2**-8).all()


@pytest.mark.parametrize("signs", [(True, True), (False, False), (True, False)])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("clamp", [False, True])
def test_rdna3_sums_of_small_integers(bits, signs, clamp):
    low = [-(1 << bits - 1) if sign else 0 for sign in signs]
    a, b = (rng.integers(first, first + (1 << bits), (16, 16)) for first in low)
    c = rng.integers(-(2**31), 2**31, (16, 16))

    def packed(matrix):
        fields = (rows_twice(matrix) & (1 << bits) - 1).astype(np.uint32)
        per = 32 // bits
        words = sum(fields[:, j::per] << np.uint32(bits * j) for j in range(per))
        return np.ascontiguousarray(words.astype(np.uint32))

    total = a.astype(np.int64) @ b + c
    want = np.clip(total, -(2**31), 2**31 - 1) if clamp else total
    got = run(f"i32.16x16x16.iu{bits}", f"<{bits // 2} x i32>", "<8 x i32>", packed(a), packed(b.T),
              rows_alternating(c.astype(np.int32)), signs=signs, clamp=clamp)
    assert np.array_equal(got, rows_alternating(want.astype(np.uint64).astype(np.uint32)
                                                .view(np.int32)))
