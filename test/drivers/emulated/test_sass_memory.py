"""Memory in NVIDIA's machine code: atomics, generic addresses, matrices, judged by NumPy.

`eager` boards run kernels as they are where all lanes are together, the others as where some are.
"""

from __future__ import annotations

import numpy as np
import pytest

from compiler import nvrtc
from test.compiler.linear_interpreter import to_bfloat16
from test.drivers.emulated.sass import ARCHS, launch

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")
HOW = ("", ",eager")
BOARDS = pytest.mark.parametrize("board", [f"{arch}{how}" for arch in ARCHS for how in HOW])
HOPPER = pytest.mark.parametrize("board", [f"sm_90{how}" for how in HOW])
THREADS = 128


@BOARDS
def test_atomics_that_shared_memory_does_by_comparing(
    board: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """extern "C" __global__ void k(float *f, double *d, unsigned long long *l,
      unsigned long long *old, const int *x) {
      __shared__ float sf[8]; __shared__ double sd[8]; __shared__ unsigned long long sl[8], sm[8];
      int i = threadIdx.x; if (i < 8) { sf[i] = i; sd[i] = i; sl[i] = i; sm[i] = 0; }
      __syncthreads();
      atomicAdd(sf + (i & 7), x[i]); if (i % 5) atomicAdd(sd + (i & 3), x[i]);
      old[i] = atomicAdd(sl + (i & 1), x[i]); atomicMax(sm + (i & 7), (1ull << 40) + x[i]);
      __syncthreads();
      if (i < 8) { f[i] = sf[i]; d[i] = sd[i]; l[i] = sl[i]; l[i + 8] = sm[i]; } }"""
    x = np.random.default_rng(2).integers(1, 999, THREADS).astype(np.int32)
    f, d, n = np.zeros(8, np.float32), np.zeros(8), np.arange(THREADS)
    l, old = np.zeros(16, np.uint64), np.zeros(THREADS, np.uint64)  # noqa: E741
    launch(board, source, [f, d, l, old, x], 1, THREADS, monkeypatch)
    assert f.tolist() == [k + x[n % 8 == k].sum() for k in range(8)]
    assert d.tolist() == [k + x[(n % 4 == k) & (n % 5 > 0)].sum() for k in range(8)]
    assert l.tolist() == [
        *(k + int(x[n % 2 == k].sum()) for k in range(8)),
        *((1 << 40) + int(x[n % 8 == k].max()) for k in range(8)),
    ]
    for k in range(2):  # the old values are the sums up to each thread, in some order
        seen = sorted(zip(old[k::2].tolist(), x[k::2].tolist(), strict=True))
        total = k
        for before, added in seen:
            assert before == total
            total += added


@BOARDS
def test_generic_addresses_lead_to_the_memory_that_they_mean(
    board: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """__device__ __noinline__ void add(int *p, int n) { *p += n; atomicAdd(p, 1); }
    extern "C" __global__ void k(int *out, int *in, const int *n) {
      __shared__ int s[128]; int local[4] = {1, 2, 3, 4}, i = threadIdx.x; s[i] = 7 * i;
      add(i < n[0] ? s + i : i < n[1] ? in + i : local + (i & 3), i);
      out[i] = s[i] + local[i & 3] + (__isShared(s + i) ? 1000 : 0) + (__isGlobal(in) ? 5000 : 0)
        + (__isLocal(local + (i & n[2])) ? 10000 : 0) + (__isShared(in) ? 7 : 0); }"""
    n, given = np.array([33, 90, 3], np.int32), np.zeros(THREADS, np.int32)
    out = np.zeros(THREADS, np.int32)
    launch(board, source, [out, given, n], 1, THREADS, monkeypatch)
    i = np.arange(THREADS)
    assert given.tolist() == np.where((i >= 33) & (i < 90), i + 1, 0).tolist()
    own = 7 * i + (i & 3) + 1 + 16000
    assert out.tolist() == (own + np.where((i < 33) | (i >= 90), i + 1, 0)).tolist()


@HOPPER
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("turned", ["", ".trans"])
def test_matrices_are_stored_by_the_rows_that_lanes_name(
    turned: str, count: int, board: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PTX ISA, stmatrix: lane l has of each matrix the row l / 4 and two columns from 2 (l % 4)."""
    words = ", ".join(f'"r"(x[i + {32 * n}])' for n in range(count))
    names = ", ".join(f"%{1 + n}" for n in range(count))
    source = f"""extern "C" __global__ void k(unsigned short *out, const unsigned *x) {{
      __shared__ __align__(16) unsigned short s[1024]; int i = threadIdx.x;
      for (int n = i; n < 1024; n += 32) s[n] = 0xFFFF;
      __syncthreads();
      unsigned at = __cvta_generic_to_shared(s + 24 * ((i * 5) & 31) + 8);
      asm volatile("stmatrix.sync.aligned.m8n8.x{count}{turned}.shared.b16 [%0], {{{names}}};"
        :: "r"(at), {words} : "memory");
      __syncthreads();
      for (int n = i; n < 1024; n += 32) out[n] = s[n]; }}"""
    x = np.random.default_rng(3).integers(0, 1 << 31, (4, 32), np.uint32)
    out = np.zeros(1024, np.uint16)
    launch(board, source, [out, x], 1, 32, monkeypatch)
    wanted = np.full(1024, 0xFFFF, np.uint16)
    for n in range(count):
        matrix = x[n].view(np.uint16).reshape(8, 8)
        for row, content in enumerate(matrix.T if turned else matrix):
            at = 24 * ((8 * n + row) * 5 & 31) + 8
            wanted[at : at + 8] = content
    assert out.tolist() == wanted.tolist()


@HOPPER
def test_two_bfloat16_are_added_at_once(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """extern "C" __global__ void k(unsigned *out, const unsigned *x) {
      int i = threadIdx.x; unsigned old;
      asm volatile("atom.global.add.noftz.bf16x2 %0, [%1], %2;" : "=r"(old)
        : "l"(__cvta_generic_to_global(out + i)), "r"(x[i]) : "memory");
      out[i + 128] = old; }"""
    draw = np.random.default_rng(9)
    a, x = (to_bfloat16((draw.standard_normal(256) * 10.0 ** draw.integers(-3, 4, 256)).astype(
        np.float32)) for _ in range(2))  # fmt: skip
    a[:4], x[:4] = (1.0, np.inf, 3e38, -1.0), (2.0**-8, -np.inf, 3e38, 1.0)
    bits = [(values.view(np.uint32) >> 16).astype(np.uint16) for values in (a, x)]
    out = np.concatenate([bits[0], np.zeros(256, np.uint16)])
    launch(board, source, [out, bits[1]], 1, THREADS, monkeypatch)
    with np.errstate(all="ignore"):
        total = a + x
        wanted = (to_bfloat16(total).view(np.uint32) >> 16).astype(np.uint16)
    wanted[np.isnan(total)] = 0x7FFF
    assert out[:256].tolist() == wanted.tolist() and out[256:].tolist() == bits[0].tolist()


@BOARDS
def test_warps_know_their_number(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """extern "C" __global__ void k(int *out) { int w; __syncthreads();
      asm volatile("mov.u32 %0, %%warpid;" : "=r"(w));
      out[blockIdx.x * 128 + threadIdx.x] = w; }"""
    out = np.full((3, THREADS), -1, np.int32)
    launch(board, source, [out], 3, THREADS, monkeypatch)
    assert out.tolist() == [(np.arange(THREADS) // 32).tolist()] * 3
