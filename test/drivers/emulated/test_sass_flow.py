"""Control flow in NVIDIA's machine code: jumps by tables and registers, judged by plain Python.

`eager` boards run kernels as they are where all lanes are together, the others as where some are.
"""

from __future__ import annotations

import numpy as np
import pytest

from compiler import nvrtc
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


@BOARDS
def test_functions_are_called_by_pointers_from_memory(
    board: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sine's slow path reads a table among the cubin's variables."""
    a = np.linspace(-4, 200, THREADS + 1).astype(np.float32)
    a[5] = 1e7
    n, out = np.array([40], np.int32), np.zeros(THREADS, np.float32)
    launch(board, POINTERS, [out, a, n], 1, THREADS, monkeypatch)

    def f2(x: float) -> float:
        return x if x < 1 else 2 * (x + 2)

    functions = (lambda x: x * np.sin(np.float64(x)), lambda x: x + 3, f2)
    wanted = [functions[(i + 40) % 3](a[i]) + functions[1](a[i + 1]) + functions[1 + (i > 40)](a[i])
              for i in range(THREADS)]  # fmt: skip
    np.testing.assert_allclose(out, wanted, rtol=1e-6)
