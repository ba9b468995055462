"""Control flow in NVIDIA's machine code: tables, pointers, barriers, judged by plain Python.

`eager` boards run kernels as they are where all lanes are together, the others as where some are.
"""

from __future__ import annotations

import numpy as np
import pytest

from compiler import nvrtc
from drivers.errors import DeviceFault
from test.drivers.emulated.sass import ARCHS, launch

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")
BOARDS = pytest.mark.parametrize(
    "board", [f"{arch}{how}" for arch in ARCHS for how in ("", ",eager")]
)
THREADS = 128

SWITCH = """extern "C" __global__ void k(int *out, const int *a, const int *n) {
  int i = threadIdx.x, x = a[i], m = n[0];
  switch (x) {
    case 0: x = 3 * m; break;
    case 1: x = m / 3; break;
    case 2: x = a[m & 63]; break;
    case 3: x = m ^ 5; break;
    case 4: x = a[2 * m & 63];
    case 5: x += m * m; break;
    case 6: return;
    case 7: x = a[7] * 3; break;
    case 8: x = a[5] / m; break;
    case 9: for (int k = 0; k < i; k++) x ^= a[k] + k; break;
    case 10: atomicAdd(out + 128, m); break;
    default: x = ~x;
  }
  out[i] = x; }"""


def switched(a: np.ndarray, m: int) -> np.ndarray:
    out = np.zeros(THREADS + 1, np.int32)
    for i in range(THREADS):
        x = int(a[i])
        cases = {0: 3 * m, 1: m // 3, 2: a[m & 63], 3: m ^ 5, 4: a[2 * m & 63] + m * m,
                 5: 5 + m * m, 7: a[7] * 3, 8: a[5] // m, 10: 10}  # fmt: skip
        if x == 6:
            continue
        if x == 9:
            for k in range(i):
                x ^= int(a[k]) + k
        elif x == 10:
            out[THREADS] += m
        out[i] = cases.get(int(a[i]), ~x) if int(a[i]) != 9 else x
    return out


@BOARDS
@pytest.mark.parametrize("apart", [True, False], ids=["apart", "together"])
def test_a_switch_leads_each_lane_to_its_case(
    apart: bool, board: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = (np.arange(THREADS) * 7 % 13 if apart else np.arange(THREADS) // 32 * 3 + 1)
    a = a.astype(np.int32)
    m, out = np.array([21], np.int32), np.zeros(THREADS + 1, np.int32)
    launch(board, SWITCH, [out, a, m], 1, THREADS, monkeypatch)
    assert out.tolist() == switched(a, 21).tolist()


MACHINE = """extern "C" __global__ void k(int *out, const int *a, const char *code) {
  int x = 0, y = 1, i = threadIdx.x;
  for (int at = 0; at < 64; at++) switch (code[at + (i & 3)]) {
    case 'a': x += y; break;
    case 'b': x -= y; break;
    case 'c': x *= y; break;
    case 'd': y = x; break;
    case 'e': y += a[i]; break;
    case 'f': y ^= x; break;
    case 'g': x = a[x & 31]; break;
    case 'h': x = ~x;
    case 'i': y = -y; break;
    case 'j': if (i & 8) goto end; break;
    default: x = y = at;
  }
  end: out[i] = x; }"""


@BOARDS
def test_a_loop_of_switches_with_lanes_apart(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(3)
    code = np.frombuffer(bytes(draw.choice(list(b"aabbccdeeffgghiz"), 68)), np.int8).copy()
    code[50] = ord("j")
    a = draw.integers(-99, 99, THREADS).astype(np.int32)
    out = np.zeros(THREADS, np.int32)
    launch(board, MACHINE, [out, a, code], 1, THREADS, monkeypatch)

    def run(i: int) -> int:
        x, y = 0, 1
        for at in range(64):
            letter = chr(code[at + (i & 3)])
            if letter == "a":
                x += y
            elif letter == "b":
                x -= y
            elif letter == "c":
                x *= y
            elif letter == "d":
                y = x
            elif letter == "e":
                y += int(a[i])
            elif letter == "f":
                y ^= x
            elif letter == "g":
                x = int(a[x & 31])
            elif letter in "hi":
                x, y = (~x if letter == "h" else x), -y
            elif letter == "j":
                if i & 8:
                    break
            else:
                x = y = at
        return (x + (1 << 31)) % (1 << 32) - (1 << 31)

    assert out.tolist() == [run(i) for i in range(THREADS)]


POINTERS = """__device__ __noinline__ float f0(float x) { return x * sinf(x); }
__device__ __noinline__ float f1(float x) { return x + 3; }
__device__ __noinline__ float f2(float x) { return x < 1 ? x : 2 * f1(x - 1); }
__device__ float (*table[3])(float) = {f0, f1, f2};
extern "C" __global__ void k(float *out, const float *a, const int *n) {
  int i = threadIdx.x; float (*f)(float) = i > n[0] ? f2 : f1;
  out[i] = table[(i + n[0]) % 3](a[i]) + table[n[0] % 3](a[i + 1]) + f(a[i]); }"""


OTHER = """extern "C" __global__ void other(float *out) { out[0] = table[threadIdx.x & 1](3); }"""


@BOARDS
@pytest.mark.parametrize("other", ["", OTHER], ids=["one kernel", "two kernels"])
def test_functions_are_called_by_pointers_from_memory(
    other: str, board: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sine's slow path reads a table among the cubin's variables. Where kernels have functions
    in common, a pointer is a place in constant bank 2, which says where the function is."""
    a = np.linspace(-4, 200, THREADS + 1).astype(np.float32)
    a[5] = 1e7
    n, out = np.array([40], np.int32), np.zeros(THREADS, np.float32)
    launch(board, POINTERS + other, [out, a, n], 1, THREADS, monkeypatch)

    def f2(x: float) -> float:
        return x if x < 1 else 2 * (x + 2)

    functions = (lambda x: x * np.sin(np.float64(x)), lambda x: x + 3, f2)
    wanted = [functions[(i + 40) % 3](a[i]) + functions[1](a[i + 1]) + functions[1 + (i > 40)](a[i])
              for i in range(THREADS)]  # fmt: skip
    np.testing.assert_allclose(out, wanted, rtol=1e-6)


VOTES = """extern "C" __global__ void k(int *out, const int *a, const int *n) {
  int i = threadIdx.x, b = blockIdx.x * 96;
  out[b + i] = __syncthreads_count(a[b + i] > n[0]);
  for (int k = 0; k < 5; k++)
    out[b + i] += (__syncthreads_and(a[b + (i + 32 * k) % 96] > k) + 2 * __syncthreads_or(
      a[b + i] > 90 + k)) << 8 + 2 * k; }"""


@BOARDS
@pytest.mark.parametrize("threads", [96, 75], ids=["whole warps", "part of a warp"])
def test_votes_at_barriers(threads: int, board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = 12
    a = np.random.default_rng(5).integers(0, 94, (blocks, 96)).astype(np.int32)
    a[:4] += 3
    a[2:9, 70:] = 3
    n, out = np.array([50], np.int32), np.zeros((blocks, 96), np.int32)
    launch(board, VOTES, [out, a, n], blocks, threads, monkeypatch)
    for row, given in zip(out, a, strict=True):
        total = int((given[:threads] > 50).sum())
        for k in range(5):
            turned = given[(np.arange(threads) + 32 * k) % 96]
            both = bool((turned > k).all()) + 2 * bool((given[:threads] > 90 + k).any())
            total += both << 8 + 2 * k
        assert row[:threads].tolist() == [total] * threads and not row[threads:].any()


PIPELINE = """extern "C" __global__ void k(int *out, const int *a, const int *n) {
  __shared__ int box[2][64]; int i = threadIdx.x, sum = 0;
  if (i < 64) for (int k = 0; k < n[0]; k++) {
    asm volatile("bar.sync %0, 192;" :: "r"(1 + (k & 1)) : "memory");
    box[k & 1][i] = a[(64 * k + i) % 999];
    asm volatile("bar.arrive %0, 192;" :: "r"(3 + (k & 1)) : "memory");
  } else {
    asm volatile("bar.arrive 1, 192; bar.arrive 2, 192;" ::: "memory");
    for (int k = 0; k < n[0]; k++) {
      asm volatile("bar.sync %0, %1;" :: "r"(3 + (k & 1)), "r"(n[1]) : "memory");
      sum = sum * 3 + box[k & 1][i & 63] + box[k & 1][63 - (i & 63)];
      if (k + 2 < n[0])
        asm volatile("bar.arrive %0, %1;" :: "r"(1 + (k & 1)), "r"(n[1]) : "memory");
      if (i >= 128) asm volatile("bar.sync 9, %0;" :: "r"(n[2]));
    } }
  asm volatile("bar.sync 15;" ::: "memory");
  out[i] = sum; }"""


@BOARDS
def test_some_warps_fill_what_others_read(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two boxes in turn, each full or empty: barriers with counts, at which some only arrive."""
    a = np.random.default_rng(6).integers(0, 99, 999).astype(np.int32)
    n, out = np.array([37, 192, 64], np.int32), np.full(192, -1, np.int32)
    launch(board, PIPELINE, [out, a, n], 1, 192, monkeypatch)
    wanted = [0] * 192
    for i in range(64, 192):
        for k in range(37):
            box = [int(a[(64 * k + j) % 999]) for j in range(64)]
            wanted[i] = wanted[i] * 3 + box[i & 63] + box[63 - (i & 63)]
    assert [value % (1 << 32) for value in out.tolist()] == [w % (1 << 32) for w in wanted]


def test_a_barrier_to_which_too_few_come_is_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """extern "C" __global__ void k(int *out) {
      if (threadIdx.x < 32) asm volatile("bar.sync 1, 64;"); out[threadIdx.x] = 1; }"""
    with pytest.raises(DeviceFault, match="the kernel never ends"):
        launch("sm_90", source, [np.zeros(64, np.int32)], 1, 64, monkeypatch)
