"""Tensor programs as NVIDIA's machine code on emulated boards, judged by NumPy.

Each board's program is a process of its own, as a device is chosen once in a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compiler import nvrtc
from test.drivers.emulated.sass import ARCHS

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")

PROGRAM = """
import numpy as np
from tinyhw import Tensor, dtypes

random = np.random.default_rng(1)
a = random.standard_normal((64, 48)).astype(np.float32)
b = random.standard_normal((48, 32)).astype(np.float32)
i = random.integers(-1000, 1000, (64, 48)).astype(np.int32)
large = random.standard_normal((256, 256)).astype(np.float32)
exponents = np.exp(a - a.max(1, keepdims=True))
half, double, long = a.astype(np.float16), a.astype(np.float64), i.astype(np.int64)
cases = {
    "a sum of columns": (Tensor(a).sum(axis=0), a.sum(axis=0)),
    "a sum of rows": (Tensor(a).sum(axis=1), a.sum(axis=1)),
    "a sum of all": (Tensor(large).sum(), large.sum()),
    "a product of matrices": (Tensor(large) @ Tensor(large), large @ large),
    "one of halves": ((Tensor(half) @ Tensor(half).T).float(),
                      half.astype(np.float32) @ half.astype(np.float32).T),
    "one of 8-bit floats": (
        Tensor(np.round(a)).cast(dtypes.fp8e4m3).dot(
            Tensor(np.round(b)).cast(dtypes.fp8e4m3), dtype=dtypes.float32),
        np.round(a) @ np.round(b)),
    "the largest": (Tensor(large).max(axis=1), large.max(axis=1)),
    "softmax": (Tensor(a).softmax(), exponents / exponents.sum(1, keepdims=True)),
    "a division": (Tensor(a) / (Tensor(a) * Tensor(a) + 0.1), a / (a * a + np.float32(0.1))),
    "integers": (Tensor(i) // 7 + Tensor(i) % (Tensor(i).abs() + 3), i // 7 + i % (abs(i) + 3)),
    "longs": (Tensor(long) * 12345678901 // 77, long * 12345678901 // 77),
    "doubles": ((Tensor(double).exp() / 3).sqrt(), np.sqrt(np.exp(double) / 3)),
    "choices": ((Tensor(i) > 3).where(Tensor(i), -1), np.where(i > 3, i, -1)),
    "few threads": (Tensor(a[:3, :5]).exp2(), np.exp2(a[:3, :5])),
}
for name, (found, wanted) in cases.items():
    tolerance = 2e-2 if "halves" in name else 1e-4
    np.testing.assert_allclose(found.numpy(), wanted, rtol=tolerance, atol=tolerance, err_msg=name)
print("all equal on", Tensor(a).device)
"""


FULL = os.environ.get("TINYHW_FULL") == "1"


@pytest.mark.parametrize("arch", ARCHS if FULL else ARCHS[:1])
def test_tensor_programs_have_numpys_results(arch: str) -> None:
    variables = {**os.environ, "NV": "1", "EMULATE": f"{arch},eager"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True, timeout=600,
        env=variables, cwd=Path(__file__).resolve().parents[3],
    )
    assert done.stdout.strip() == "all equal on NV", done.stdout + done.stderr
