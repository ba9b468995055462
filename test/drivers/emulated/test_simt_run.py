"""Kernels for AMD GPUs run on the translator, judged by NumPy."""

from __future__ import annotations

import ctypes
import os
from fractions import Fraction

import numpy as np
import pytest

from drivers.emulated.simt.architecture import architecture
from drivers.emulated.simt.dispatch import MemoryRange
from drivers.emulated.simt.engine import Engine
from drivers.emulated.simt.instruction import UnknownInstruction
from drivers.emulated.simt.jit import Effort
from drivers.system import RealSystem
from test.drivers.emulated import gpu

TARGETS = (
    gpu.Target("gfx1100", 32), gpu.Target("gfx1100", 64), gpu.Target("gfx1030", 32),
    gpu.Target("gfx1201", 32), gpu.Target("gfx90a", 64), gpu.Target("gfx942", 64),
)


@pytest.fixture(params=TARGETS, ids=lambda t: f"{t.gfx}-wave{t.wave_size}", autouse=True)
def target(request, monkeypatch):
    """What the kernels of a test are compiled for."""
    monkeypatch.setattr(gpu, "target", request.param)
    return request.param


HEAD = """
define amdgpu_kernel void @k({params}) #0 {{
entry:
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %g = call i32 @llvm.amdgcn.workgroup.id.x()
  %g2 = mul i32 %g, {block}
  %i = add i32 %g2, %t
"""
GUARD = """
  %in = icmp slt i32 %i, %n
  br i1 %in, label %x, label %y
x:
"""
END = """
  br label %y
y:
  ret void
}
"""


def elementwise(body: str, inputs: list[str], output: str, block=64, declarations="") -> str:
    """A guarded kernel over %a0, %a1, … that leaves its result in %r."""
    params = [f"ptr addrspace(1) %p{j}" for j in range(len(inputs))]
    text = HEAD.format(params=", ".join(["ptr addrspace(1) %o", *params, "i32 %n"]), block=block)
    text += GUARD
    for j, type in enumerate(inputs):
        text += f"  %q{j} = getelementptr {type}, ptr addrspace(1) %p{j}, i32 %i\n"
        text += f"  %a{j} = load {type}, ptr addrspace(1) %q{j}\n"
    text += body
    text += f"  %out = getelementptr {output}, ptr addrspace(1) %o, i32 %i\n"
    text += f"  store {output} %r, ptr addrspace(1) %out\n" + END + declarations
    return text


NUMPY = {"float": np.float32, "double": np.float64, "half": np.float16, "i32": np.int32,
         "i64": np.int64, "i16": np.int16, "i8": np.uint8}


def run_elementwise(body, inputs, output, *arrays, declarations="", block=64, attributes=""):
    text = elementwise(body, inputs, output, block, declarations)
    n = len(arrays[0])
    out = np.zeros(n, NUMPY[output])
    kernel = gpu.compile_kernel(text, attributes)
    fault = gpu.launch(kernel, (-(-n // block), 1, 1), (block, 1, 1), out, *arrays, n)
    assert fault is None
    return out


rng = np.random.default_rng(5)
N = 1000
F = (rng.standard_normal(N) * 3).astype(np.float32)
G = (rng.standard_normal(N) * 3).astype(np.float32)
POSITIVE = np.abs(F) + np.float32(0.01)
INTS = rng.integers(-(2**31), 2**31, N, dtype=np.int64).astype(np.int32)
J = rng.integers(-(2**31), 2**31, N, dtype=np.int64).astype(np.int32)
SMALL = rng.integers(1, 1000, N, dtype=np.int32)
L = rng.integers(-(2**62), 2**62, N, dtype=np.int64)
M = rng.integers(-(2**62), 2**62, N, dtype=np.int64)
H = rng.standard_normal(N).astype(np.float16)
D = rng.standard_normal(N) * 100
FMATH = "declare float @llvm.{0}.f32({1})\n"


def test_sum_of_vectors():
    assert np.array_equal(
        run_elementwise("%r = fadd float %a0, %a1\n", ["float", "float"], "float", F, G), F + G
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%r = fsub float %a0, %a1\n", lambda: F - G),
        ("%r = fmul float %a0, %a1\n", lambda: F * G),
        ("%r = fneg float %a0\n", lambda: -F),
        ("%c = fcmp olt float %a0, %a1\n%r = select i1 %c, float %a0, float 2.5\n",
         lambda: np.where(F < G, F, np.float32(2.5))),
        ("%c = fcmp une float %a0, %a1\n%r = select i1 %c, float %a1, float 1.0\n",
         lambda: np.where(F != G, G, np.float32(1))),
        ("%s = fadd float %a0, 0.5\n%i0 = fptosi float %s to i32\n%r = sitofp i32 %i0 to float\n",
         lambda: (F + np.float32(0.5)).astype(np.int32).astype(np.float32)),
        ("%i0 = bitcast float %a0 to i32\n%b = and i32 %i0, 255\n%r = uitofp i32 %b to float\n",
         lambda: (F.view(np.int32) & 255).astype(np.float32)),
    ],
)
def test_arithmetic_of_floats(body, expected):
    assert np.array_equal(run_elementwise(body, ["float", "float"], "float", F, G), expected())


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        ("fma", "float %a0, float %a1, float 3.0",
         lambda: (F.astype(np.float64) * G + 3).astype(np.float32)),
        ("floor", "float %a0", lambda: np.floor(F)),
        ("ceil", "float %a0", lambda: np.ceil(F)),
        ("trunc", "float %a0", lambda: np.trunc(F)),
        ("rint", "float %a0", lambda: np.rint(F)),
        ("fabs", "float %a0", lambda: np.abs(F)),
        ("maxnum", "float %a0, float %a1", lambda: np.maximum(F, G)),
        ("minnum", "float %a0, float %a1", lambda: np.minimum(F, G)),
        ("copysign", "float %a0, float %a1", lambda: np.copysign(F, G)),
    ],
)
def test_exact_functions_of_floats(function, arguments, expected):
    kinds = ", ".join(["float"] * arguments.count("float"))
    got = run_elementwise(
        f"%r = call float @llvm.{function}.f32({arguments})\n", ["float", "float"], "float", F, G,
        declarations=FMATH.format(function, kinds),
    )
    assert np.array_equal(got, expected())


@pytest.mark.parametrize(
    ("function", "x", "reference"),
    [
        ("exp2", F * 10, np.exp2), ("exp", F, np.exp), ("log2", POSITIVE, np.log2),
        ("log", POSITIVE, np.log), ("sqrt", POSITIVE, np.sqrt), ("sin", F, np.sin),
        ("cos", F, np.cos), ("log10", POSITIVE, np.log10),
    ],
)
def test_elementary_functions_within_two_ulp_of_their_range(function, x, reference):
    got = run_elementwise(
        f"%r = call float @llvm.{function}.f32(float %a0)\n", ["float"], "float", x,
        declarations=FMATH.format(function, "float"),
    )
    exact = reference(x.astype(np.float64))
    if function in ("sin", "cos"):  # of x / 2π, which float32 has already rounded
        assert np.max(np.abs(got - exact)) <= 1e-6
    else:
        unit = np.spacing(np.abs(exact).astype(np.float32))
        assert np.max(np.abs(got - exact) / unit) <= 2.5


@pytest.mark.parametrize("attributes", ["", '"denormal-fp-math-f32"="preserve-sign"'])
def test_division_is_rounded_correctly(attributes):
    y = G.copy()
    y[:8] = [1, -3, 1e30, 1e-30, 3e38, 1e-38, 7, np.inf]
    x = F.copy()
    x[:8] = [np.inf, 0, 1e-5, 1e20, 2e38, 2e-38, np.nan, 4]
    got = run_elementwise("%r = fdiv float %a0, %a1\n", ["float", "float"], "float", x, y,
                          attributes=attributes)
    with np.errstate(over="ignore"):
        want = x / y
    # Where denormals are flushed, GPUs differ on operands and results that are close to them.
    plain = (np.abs(want) > 1e-30) & (np.abs(y) > 1e-30) if attributes else np.isnan(want) | True
    assert plain.sum() > N - 20
    assert np.array_equal(got[plain], want[plain], equal_nan=True)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%r = fadd double %a0, %a1\n", lambda: D + D[::-1]),
        ("%r = fmul double %a0, %a1\n", lambda: D * D[::-1]),
        ("%r = fdiv double %a0, %a1\n", lambda: D / D[::-1]),
        ("%f = fptrunc double %a0 to float\n%r = fpext float %f to double\n",
         lambda: D.astype(np.float32).astype(np.float64)),
        ("%c = fcmp ogt double %a0, %a1\n%r = select i1 %c, double %a0, double -1.5\n",
         lambda: np.where(D > D[::-1], D, -1.5)),
        ("%f = fptosi double %a0 to i32\n%r = sitofp i32 %f to double\n",
         lambda: np.trunc(D)),
        ("%r = call double @llvm.sqrt.f64(double 2.0)\n", lambda: np.full(N, np.sqrt(2.0))),
    ],
)
def test_arithmetic_of_doubles(body, expected):
    got = run_elementwise(body, ["double", "double"], "double", D, np.ascontiguousarray(D[::-1]),
                          declarations="declare double @llvm.sqrt.f64(double)\n")
    want = expected()
    assert np.array_equal(got, want + 0.0)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%r = mul i32 %a0, %a1\n", lambda: INTS * J),
        ("%s = and i32 %a1, 31\n%r = shl i32 %a0, %s\n", lambda: INTS << (J & 31)),
        ("%s = and i32 %a1, 31\n%r = ashr i32 %a0, %s\n", lambda: INTS >> (J & 31)),
        ("%s = and i32 %a1, 31\n%r = lshr i32 %a0, %s\n",
         lambda: (INTS.view(np.uint32) >> (J & 31).view(np.uint32)).view(np.int32)),
        ("%d = or i32 %a1, 1\n%r = udiv i32 %a0, %d\n",
         lambda: (INTS.view(np.uint32) // (J | 1).view(np.uint32)).view(np.int32)),
        ("%d = or i32 %a1, 1\n%r = srem i32 %a0, %d\n",
         lambda: np.fmod(INTS.astype(np.int64), (J | 1).astype(np.int64)).astype(np.int32)),
        ("%r = call i32 @llvm.smax.i32(i32 %a0, i32 %a1)\n", lambda: np.maximum(INTS, J)),
        ("%r = call i32 @llvm.umin.i32(i32 %a0, i32 %a1)\n",
         lambda: np.minimum(INTS.view(np.uint32), J.view(np.uint32)).view(np.int32)),
        ("%r = call i32 @llvm.ctpop.i32(i32 %a0)\n",
         lambda: np.array([bin(int(v) & 0xFFFFFFFF).count("1") for v in INTS], np.int32)),
        ("%r = call i32 @llvm.bitreverse.i32(i32 %a0)\n",
         lambda: np.array([int(f"{int(v) & 0xFFFFFFFF:032b}"[::-1], 2) for v in INTS],
                          np.uint32).view(np.int32)),
        ("%r = call i32 @llvm.bswap.i32(i32 %a0)\n", lambda: INTS.byteswap()),
        ("%r = call i32 @llvm.ctlz.i32(i32 %a0, i1 false)\n",
         lambda: np.array([32 - (int(v) & 0xFFFFFFFF).bit_length() for v in INTS], np.int32)),
        ("%r = call i32 @llvm.fshl.i32(i32 %a0, i32 %a1, i32 7)\n",
         lambda: ((INTS.view(np.uint32) << np.uint32(7)) |
                  (J.view(np.uint32) >> np.uint32(25))).view(np.int32)),
        ("%s = shl i32 %a0, 5\n%b = ashr i32 %s, 20\n%r = add i32 %b, %a1\n",
         lambda: ((INTS << 5) >> 20) + J),
    ],
)
def test_arithmetic_of_integers(body, expected):
    declarations = "".join(
        f"declare i32 @llvm.{name}.i32({kinds})\n"
        for name, kinds in (("smax", "i32, i32"), ("umin", "i32, i32"), ("ctpop", "i32"),
                            ("bitreverse", "i32"), ("bswap", "i32"), ("ctlz", "i32, i1"),
                            ("fshl", "i32, i32, i32"))
    )
    with np.errstate(over="ignore"):
        want = expected()
    got = run_elementwise(body, ["i32", "i32"], "i32", INTS, J, declarations=declarations)
    assert np.array_equal(got, want)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%r = add i64 %a0, %a1\n", lambda: L + M),
        ("%r = sub i64 %a0, %a1\n", lambda: L - M),
        ("%r = mul i64 %a0, %a1\n", lambda: L * M),
        ("%s = and i64 %a1, 63\n%r = ashr i64 %a0, %s\n", lambda: L >> (M & 63)),
        ("%c = icmp slt i64 %a0, %a1\n%r = select i1 %c, i64 %a0, i64 7\n",
         lambda: np.where(L < M, L, 7)),
        ("%r = sdiv i64 %a0, 1000003\n", lambda: (np.sign(L) * (np.abs(L) // 1000003))),
        ("%d = or i64 %a1, 1\n%r = udiv i64 %a0, %d\n",
         lambda: (L.view(np.uint64) // (M | 1).view(np.uint64)).view(np.int64)),
        ("%w = trunc i64 %a0 to i32\n%f = sitofp i32 %w to float\n%r = fptosi float %f to i64\n",
         lambda: L.astype(np.int32).astype(np.float32).astype(np.int64)),
        ("%f = sitofp i64 %a0 to float\n%b = bitcast float %f to i32\n%r = sext i32 %b to i64\n",
         lambda: L.astype(np.float32).view(np.int32).astype(np.int64)),
    ],
)
def test_arithmetic_of_64_bit_integers(body, expected):
    with np.errstate(over="ignore"):
        want = expected()
    assert np.array_equal(run_elementwise(body, ["i64", "i64"], "i64", L, M), want)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%r = fadd half %a0, %a1\n", lambda: H + H[::-1]),
        ("%r = fmul half %a0, %a1\n", lambda: H * H[::-1]),
        ("%f = fpext half %a0 to float\n%s = fmul float %f, 3.0\n%r = fptrunc float %s to half\n",
         lambda: (H.astype(np.float32) * np.float32(3)).astype(np.float16)),
        ("%c = fcmp olt half %a0, %a1\n%r = select i1 %c, half %a0, half %a1\n",
         lambda: np.minimum(H, H[::-1])),
    ],
)
def test_arithmetic_of_halves(body, expected):
    got = run_elementwise(body, ["half", "half"], "half", H, np.ascontiguousarray(H[::-1]))
    assert np.array_equal(got, expected())


def test_packed_halves():
    text = HEAD.format(params="ptr addrspace(1) %o, ptr addrspace(1) %a, i32 %n", block=32) + """
  %p = getelementptr <2 x half>, ptr addrspace(1) %a, i32 %i
  %q = getelementptr <2 x half>, ptr addrspace(1) %o, i32 %i
  %v = load <2 x half>, ptr addrspace(1) %p
  %s = shufflevector <2 x half> %v, <2 x half> poison, <2 x i32> <i32 1, i32 0>
  %m = call <2 x half> @llvm.fma.v2f16(<2 x half> %v, <2 x half> %s,
                                       <2 x half> <half 1.0, half 2.0>)
  %w = fadd <2 x half> %m, %v
  store <2 x half> %w, ptr addrspace(1) %q
  ret void
}
declare <2 x half> @llvm.fma.v2f16(<2 x half>, <2 x half>, <2 x half>)
"""
    x = rng.standard_normal((64, 2)).astype(np.float16)
    out = np.zeros_like(x)
    assert gpu.launch(gpu.compile_kernel(text), (2, 1, 1), (32, 1, 1), out, x, 64) is None
    wide = x.astype(np.float64)
    product = (wide * wide[:, ::-1] + np.array([1, 2])).astype(np.float16)
    assert np.array_equal(out, product + x)


def test_a_fused_half_is_rounded_once():
    # Products of halves plus a tie of the result: what lies below the tie decides.
    text = HEAD.format(
        params="ptr addrspace(1) %o, ptr addrspace(1) %a, ptr addrspace(1) %b, "
        "ptr addrspace(1) %c, i32 %n", block=64,
    ) + "".join(
        f"  %p{x} = getelementptr half, ptr addrspace(1) %{x}, i32 %i\n"
        + (f"  %v{x} = load half, ptr addrspace(1) %p{x}\n" if x != "o" else "")
        for x in "abco"
    ) + """  %r = call half @llvm.fma.f16(half %va, half %vb, half %vc)
  store half %r, ptr addrspace(1) %po
  ret void
}
declare half @llvm.fma.f16(half, half, half)
"""
    bits = np.random.default_rng(3)
    a, b, c = (bits.integers(0, 0x7C00, 4096).astype(np.uint16).view(np.float16) for _ in "abc")
    b[::2], c[::2] = np.float16(2.0**-12), (1 + bits.integers(0, 1024, 2048) / 1024)
    c[1::4] = -c[1::4]
    out = np.zeros_like(a)
    kernel = gpu.compile_kernel(text)
    assert gpu.launch(kernel, (64, 1, 1), (64, 1, 1), out, a, b, c, 4096) is None
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
             for x, y, z in zip(a, b, c, strict=True)]
    for got, want in zip(out.astype(np.float64), exact, strict=True):
        if np.isinf(got):
            assert abs(want) >= 65520
            continue
        gap = Fraction(float(np.spacing(np.float16(abs(got))))) / 2
        assert abs(Fraction(got) - want) <= gap


def test_bytes_and_sixteen_bit_integers():
    bytes_in = rng.integers(0, 256, N, dtype=np.uint8)
    got = run_elementwise(
        "%w = zext i8 %a0 to i16\n%r = add i16 %w, %a1\n", ["i8", "i16"], "i16",
        bytes_in, (INTS & 0xFFFF).astype(np.int16),
    )
    assert np.array_equal(got, bytes_in.astype(np.int16) + (INTS & 0xFFFF).astype(np.int16))
    got = run_elementwise(
        "%w = sext i8 %a0 to i32\n%m = mul i32 %w, 3\n%r = trunc i32 %m to i8\n", ["i8"], "i8",
        bytes_in,
    )
    assert np.array_equal(got, (bytes_in.astype(np.int32) * 3).astype(np.uint8))


def test_gather_through_indices():
    index = rng.integers(0, N, N, dtype=np.int32)
    text = elementwise(
        "%e = sext i32 %a0 to i64\n%h = getelementptr float, ptr addrspace(1) %p1, i64 %e\n"
        "%r = load float, ptr addrspace(1) %h\n", ["i32", "float"], "float",
    )
    out = np.zeros(N, np.float32)
    assert gpu.launch(gpu.compile_kernel(text), (16, 1, 1), (64, 1, 1), out, index, F, N) is None
    assert np.array_equal(out, F[index])


COLLATZ = HEAD.format(params="ptr addrspace(1) %o, ptr addrspace(1) %a, i32 %n", block=64) + """
  %p = getelementptr i32, ptr addrspace(1) %a, i32 %i
  %v = load i32, ptr addrspace(1) %p
  br label %loop
loop:
  %x = phi i32 [ %v, %entry ], [ %nx, %next ]
  %c = phi i32 [ 0, %entry ], [ %nc, %next ]
  %done = icmp eq i32 %x, 1
  br i1 %done, label %out, label %step
step:
  %odd = and i32 %x, 1
  %iso = icmp ne i32 %odd, 0
  br i1 %iso, label %o3, label %e2
o3:
  %m = mul i32 %x, 3
  %m1 = add i32 %m, 1
  br label %next
e2:
  %h = lshr i32 %x, 1
  br label %next
next:
  %nx = phi i32 [ %m1, %o3 ], [ %h, %e2 ]
  %nc = add i32 %c, 1
  br label %loop
out:
  %q = getelementptr i32, ptr addrspace(1) %o, i32 %i
  store i32 %c, ptr addrspace(1) %q
  ret void
}
"""


def collatz(value: int) -> int:
    steps = 0
    while value != 1:
        value = 3 * value + 1 if value & 1 else value // 2
        steps += 1
    return steps


def test_divergent_loop():
    out = np.zeros(960, np.int32)
    start = np.ascontiguousarray(SMALL[:960])
    assert gpu.launch(gpu.compile_kernel(COLLATZ), (15, 1, 1), (64, 1, 1), out, start, 960) is None
    assert out.tolist() == [collatz(int(v)) for v in start]


ROW_SUM = HEAD.format(params="ptr addrspace(1) %o, ptr addrspace(1) %a, i32 %n", block=64) + """
  br label %loop
loop:
  %k = phi i32 [ 0, %entry ], [ %nk, %loop ]
  %s = phi float [ 0.0, %entry ], [ %ns, %loop ]
  %row = mul i32 %k, 512
  %at = add i32 %row, %i
  %p = getelementptr float, ptr addrspace(1) %a, i32 %at
  %v = load float, ptr addrspace(1) %p
  %ns = fadd float %s, %v
  %nk = add i32 %k, 1
  %c = icmp slt i32 %nk, %n
  br i1 %c, label %loop, label %out
out:
  %q = getelementptr float, ptr addrspace(1) %o, i32 %i
  store float %ns, ptr addrspace(1) %q
  ret void
}
"""


def test_sum_of_rows():
    a = rng.integers(-9, 9, (100, 512)).astype(np.float32)
    out = np.zeros(512, np.float32)
    assert gpu.launch(gpu.compile_kernel(ROW_SUM), (8, 1, 1), (64, 1, 1), out, a, 100) is None
    assert np.array_equal(out, a.sum(0))


def matmul(size: int) -> str:
    """C = A B with one thread for each element, workgroups of 16 × 16."""
    return f"""
define amdgpu_kernel void @k(ptr addrspace(1) %o, ptr addrspace(1) %a, ptr addrspace(1) %b) #0 {{
entry:
  %tx = call i32 @llvm.amdgcn.workitem.id.x()
  %ty = call i32 @llvm.amdgcn.workitem.id.y()
  %gx = call i32 @llvm.amdgcn.workgroup.id.x()
  %gy = call i32 @llvm.amdgcn.workgroup.id.y()
  %x0 = mul i32 %gx, 16
  %x = add i32 %x0, %tx
  %y0 = mul i32 %gy, 16
  %y = add i32 %y0, %ty
  %row = mul i32 %y, {size}
  br label %loop
loop:
  %k = phi i32 [ 0, %entry ], [ %nk, %loop ]
  %s = phi float [ 0.0, %entry ], [ %ns, %loop ]
  %ai = add i32 %row, %k
  %bk = mul i32 %k, {size}
  %bi = add i32 %bk, %x
  %p = getelementptr float, ptr addrspace(1) %a, i32 %ai
  %q = getelementptr float, ptr addrspace(1) %b, i32 %bi
  %u = load float, ptr addrspace(1) %p
  %v = load float, ptr addrspace(1) %q
  %ns = call float @llvm.fma.f32(float %u, float %v, float %s)
  %nk = add i32 %k, 1
  %c = icmp slt i32 %nk, {size}
  br i1 %c, label %loop, label %out
out:
  %oi = add i32 %row, %x
  %r = getelementptr float, ptr addrspace(1) %o, i32 %oi
  store float %ns, ptr addrspace(1) %r
  ret void
}}
declare float @llvm.fma.f32(float, float, float)
"""


def tiled(size: int) -> str:
    """The same through local memory, with two barriers for each tile of 16."""
    return f"""
@ta = internal addrspace(3) global [256 x float] undef
@tb = internal addrspace(3) global [256 x float] undef
define amdgpu_kernel void @k(ptr addrspace(1) %o, ptr addrspace(1) %a, ptr addrspace(1) %b) #0 {{
entry:
  %tx = call i32 @llvm.amdgcn.workitem.id.x()
  %ty = call i32 @llvm.amdgcn.workitem.id.y()
  %gx = call i32 @llvm.amdgcn.workgroup.id.x()
  %gy = call i32 @llvm.amdgcn.workgroup.id.y()
  %x0 = mul i32 %gx, 16
  %x = add i32 %x0, %tx
  %y0 = mul i32 %gy, 16
  %y = add i32 %y0, %ty
  %row = mul i32 %y, {size}
  %ty16 = mul i32 %ty, 16
  %own = add i32 %ty16, %tx
  %la = getelementptr [256 x float], ptr addrspace(3) @ta, i32 0, i32 %own
  %lb = getelementptr [256 x float], ptr addrspace(3) @tb, i32 0, i32 %own
  br label %loop
loop:
  %k = phi i32 [ 0, %entry ], [ %nk, %end ]
  %s = phi float [ 0.0, %entry ], [ %ns, %end ]
  %ak = add i32 %k, %tx
  %ai = add i32 %row, %ak
  %bk = add i32 %k, %ty
  %br = mul i32 %bk, {size}
  %bi = add i32 %br, %x
  %p = getelementptr float, ptr addrspace(1) %a, i32 %ai
  %q = getelementptr float, ptr addrspace(1) %b, i32 %bi
  %u = load float, ptr addrspace(1) %p
  %v = load float, ptr addrspace(1) %q
  store float %u, ptr addrspace(3) %la
  store float %v, ptr addrspace(3) %lb
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  br label %inner
inner:
  %j = phi i32 [ 0, %loop ], [ %nj, %inner ]
  %is = phi float [ %s, %loop ], [ %ns, %inner ]
  %ia = add i32 %ty16, %j
  %j16 = mul i32 %j, 16
  %ib = add i32 %j16, %tx
  %pa = getelementptr [256 x float], ptr addrspace(3) @ta, i32 0, i32 %ia
  %pb = getelementptr [256 x float], ptr addrspace(3) @tb, i32 0, i32 %ib
  %va = load float, ptr addrspace(3) %pa
  %vb = load float, ptr addrspace(3) %pb
  %ns = call float @llvm.fma.f32(float %va, float %vb, float %is)
  %nj = add i32 %j, 1
  %cj = icmp slt i32 %nj, 16
  br i1 %cj, label %inner, label %end
end:
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  %nk = add i32 %k, 16
  %c = icmp slt i32 %nk, {size}
  br i1 %c, label %loop, label %out
out:
  %oi = add i32 %row, %x
  %r = getelementptr float, ptr addrspace(1) %o, i32 %oi
  store float %ns, ptr addrspace(1) %r
  ret void
}}
declare float @llvm.fma.f32(float, float, float)
"""


@pytest.mark.parametrize("make", [matmul, tiled])
@pytest.mark.parametrize("size", [64, 128])
def test_matrix_product(make, size):
    a, b = (rng.integers(-4, 5, (size, size)).astype(np.float32) for _ in range(2))
    out = np.zeros_like(a)
    kernel = gpu.compile_kernel(make(size))
    groups = (size // 16, size // 16, 1)
    assert gpu.launch(kernel, groups, (16, 16, 1), out, a, b) is None
    assert np.array_equal(out, a @ b)


def test_atomics_count_every_lane_and_return_what_was_there():
    text = HEAD.format(params="ptr addrspace(1) %o, ptr addrspace(1) %c, i32 %n", block=64) + GUARD
    text += """
  %m = and i32 %i, 7
  %p = getelementptr i32, ptr addrspace(1) %c, i32 %m
  %old = atomicrmw add ptr addrspace(1) %p, i32 1 syncscope("agent") monotonic
  %q = getelementptr i32, ptr addrspace(1) %o, i32 %i
  store i32 %old, ptr addrspace(1) %q
""" + END
    counters, out = np.zeros(8, np.int32), np.zeros(1000, np.int32)
    kernel = gpu.compile_kernel(text)
    assert gpu.launch(kernel, (16, 1, 1), (64, 1, 1), out, counters, 1000) is None
    assert counters.tolist() == [125] * 8
    for m in range(8):
        assert sorted(out[m::8]) == list(range(125))


@pytest.mark.parametrize("block", [1, 5, 31, 33, 64, 100])
def test_waves_that_lack_lanes(block):
    n = 3 * block - 1 if block > 1 else 3
    out = np.full(n + 4, -1, np.float32)
    x = F[: n + 4].copy()
    text = elementwise("%r = fadd float %a0, 1.0\n", ["float"], "float", block)
    grid = (-(-n // block), 1, 1)
    assert gpu.launch(gpu.compile_kernel(text), grid, (block, 1, 1), out, x, n) is None
    assert np.array_equal(out[:n], x[:n] + 1)
    assert (out[n:] == -1).all()


def test_scratch_memory_is_private_to_each_lane():
    text = HEAD.format(params="ptr addrspace(1) %o, ptr addrspace(1) %a, i32 %n", block=64) + """
  %s = alloca [16 x i32], addrspace(5)
  br label %fill
fill:
  %j = phi i32 [ 0, %entry ], [ %nj, %fill ]
  %p = getelementptr [16 x i32], ptr addrspace(5) %s, i32 0, i32 %j
  %v = mul i32 %i, %j
  store volatile i32 %v, ptr addrspace(5) %p
  %nj = add i32 %j, 1
  %c = icmp slt i32 %nj, 16
  br i1 %c, label %fill, label %out
out:
  %x = getelementptr i32, ptr addrspace(1) %a, i32 %i
  %k = load i32, ptr addrspace(1) %x
  %pk = getelementptr [16 x i32], ptr addrspace(5) %s, i32 0, i32 %k
  %w = load volatile i32, ptr addrspace(5) %pk
  %q = getelementptr i32, ptr addrspace(1) %o, i32 %i
  store i32 %w, ptr addrspace(1) %q
  ret void
}
"""
    which = rng.integers(0, 16, 256, dtype=np.int32)
    out = np.zeros(256, np.int32)
    kernel = gpu.compile_kernel(text)
    assert kernel.scratch_bytes
    assert gpu.launch(kernel, (4, 1, 1), (64, 1, 1), out, which, 256) is None
    assert np.array_equal(out, np.arange(256) * which)


# ---- what runs is what lies in memory ----
def opcode(name: str) -> int:
    """The number of a VOP2 instruction in the generation under test."""
    rows = architecture(gpu.target.gfx, gpu.target.wave_size).opcodes["VOP2"]
    return next(number for number, own in rows.items() if own == name)


ADD = elementwise("%r = fadd float %a0, %a1\n", ["float", "float"], "float")


def flip(kernel: gpu.Kernel, old: int, new: int, mask: int) -> None:
    """Changes the one instruction whose first word matches."""
    words = (ctypes.c_uint32 * 64).from_address(kernel.entry)
    (place,) = [i for i, w in enumerate(words) if w & mask == old]
    words[place] = words[place] & ~mask | new


def test_a_changed_opcode_changes_the_result():
    kernel = gpu.compile_kernel(ADD + "; a copy of its own\n")
    out = np.zeros(N, np.float32)
    assert gpu.launch(kernel, (16, 1, 1), (64, 1, 1), out, F, G, N) is None
    assert np.array_equal(out, F + G)
    flip(kernel, opcode("v_add_f32") << 25, opcode("v_mul_f32") << 25, 0xFE000000)
    assert gpu.launch(kernel, (16, 1, 1), (64, 1, 1), out, F, G, N) is None
    assert np.array_equal(out, F * G)


def test_an_unknown_opcode_is_named_with_pc_and_bytes():
    kernel = gpu.compile_kernel(ADD + "; another copy\n")
    flip(kernel, opcode("v_add_f32") << 25, 62 << 25, 0xFE000000)  # VOPC, with those operands
    words = (ctypes.c_uint32 * 64).from_address(kernel.entry)
    place = next(i for i, w in enumerate(words) if w >> 25 == 62)
    words[place] = 0xE8000000
    out = np.zeros(N, np.float32)
    with pytest.raises(UnknownInstruction, match=rf"pc 0x{4 * place:x} \(bytes 000000e8"):
        gpu.launch(kernel, (16, 1, 1), (64, 1, 1), out, F, G, N)


def test_an_access_out_of_range_is_a_fault_with_its_address():
    kernel = gpu.compile_kernel(ADD)
    out, x, y = np.zeros(N, np.float32), F.copy(), G.copy()

    def ranges(short):
        return [MemoryRange(v.ctypes.data, v.ctypes.data + v.nbytes - (512 if v is short else 0))
                for v in (out, x, y)]

    for short, access in ((x, "read"), (out, "write")):
        assert gpu.launch(kernel, (16, 1, 1), (64, 1, 1), out, x, y, N) is None
        fault = gpu.launch(kernel, (16, 1, 1), (64, 1, 1), out, x, y, N, memory=ranges(short))
        assert (fault.kind, fault.access) == ("memory", access)
        assert fault.address == short.ctypes.data + short.nbytes - 512
        assert fault.wave == (N - 128) // gpu.target.wave_size
        assert kernel.entry <= fault.pc < kernel.entry + 256
    assert gpu.launch(kernel, (16, 1, 1), (64, 1, 1), out, x, y, N) is None


def test_a_range_that_may_only_be_read_refuses_a_store():
    kernel = gpu.compile_kernel(ADD)
    out = np.zeros(N, np.float32)
    memory = [MemoryRange(v.ctypes.data, v.ctypes.data + v.nbytes, 1) for v in (out, F, G)]
    fault = gpu.launch(kernel, (16, 1, 1), (64, 1, 1), out, F, G, N, memory=memory)
    assert (fault.kind, fault.access, fault.address) == ("memory", "write", out.ctypes.data)
    assert not out.any()


def test_an_endless_loop_is_reported_as_a_hang():
    out = np.zeros(64, np.int32)
    start = np.zeros(64, np.int32)  # 0 never becomes 1
    kernel = gpu.compile_kernel(COLLATZ)
    fault = gpu.launch(kernel, (1, 1, 1), (64, 1, 1), out, start, 64, loop_budget=10_000)
    assert fault.kind == "hang"
    assert kernel.entry <= fault.pc


def test_code_that_may_not_be_executed_is_a_fault():
    kernel = gpu.compile_kernel(ADD)
    out = np.zeros(N, np.float32)
    engine = Engine(RealSystem())
    from drivers.emulated.simt.dispatch import Dispatch

    fault = engine.run(Dispatch(
        kernel.entry, (0, 0), kernel.group_ids, (64, 1, 1), (1, 1, 1),
        (MemoryRange(kernel.entry, kernel.entry + 4096, 3),),
    ))
    assert (fault.kind, fault.access, fault.address) == ("memory", "execute", kernel.entry)
    assert not out.any()


def test_threads_share_a_large_dispatch_and_end_with_the_engine():
    engine = Engine(RealSystem(), threads=4)
    before = os.listdir("/proc/self/task")
    n = 64 * 400
    x = np.arange(n, dtype=np.float32)
    out = np.zeros(n, np.float32)
    kernel = gpu.compile_kernel(ADD)
    for _ in range(5):
        out[:] = 0
        assert gpu.launch(kernel, (400, 1, 1), (64, 1, 1), out, x, x, n, on=engine) is None
        assert np.array_equal(out, 2 * x)
    assert len(os.listdir("/proc/self/task")) == len(before) + 3
    engine.close()
    assert os.listdir("/proc/self/task") == before


@pytest.mark.parametrize("kernel", [ADD, COLLATZ], ids=["no loop", "loop"])
def test_kernels_that_turn_out_to_be_used_are_translated_well(kernel):
    engine = Engine(RealSystem(), threads=1)
    engine.worthwhile = 40
    n = 200  # three waves of 64 lanes or six of 32, and one that lacks some
    start = np.arange(1, n + 1, dtype=np.float32 if kernel is ADD else np.int32)
    given = (start, start, n) if kernel is ADD else (start, n)
    compiled, results, versions = gpu.compile_kernel(kernel), [], []
    for _ in range(12):
        out = np.zeros(n, start.dtype)
        assert gpu.launch(compiled, (1, 1, 1), (n, 1, 1), out, *given, on=engine) is None
        results.append(out)
        ((known,),) = engine.kernels.values()
        versions.append({effort for _, effort in known.versions})
    assert results[0].any()
    assert all(np.array_equal(out, results[0]) for out in results)
    assert versions[0] == {Effort.NONE}
    assert versions[-1] == set(Effort) - {Effort.ALL}
    assert versions[1] == versions[0 if kernel is ADD else -1], "a loop counts as much as waves"
