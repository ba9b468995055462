"""The decoder of NVIDIA's machine code, judged by nvdisasm."""

from __future__ import annotations

import functools
import os

import pytest

from compiler import cubin, nvrtc
from compiler.compile import compile_kernel
from compiler.nvidia import gpu_target
from drivers.emulated.simt.instruction import UnknownInstruction
from drivers.emulated.simt.sass_decode import decode
from drivers.emulated.simt.sass_print import text
from test.compiler.test_amdgpu import REAL, TAKES, assign, one_op
from test.drivers.emulated.sass import ARCHS, compiled, judged
from test.drivers.emulated.sass_kernels import EVERYTHING

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")
FULL = os.environ.get("TINYHW_FULL") == "1"


@functools.cache
def instructions(arch: str) -> tuple[bytes, ...]:
    """All instructions of the test kernels, each once."""
    images = [compile_kernel(assign(make()), gpu_target(arch)).image for make in REAL.values()]
    if FULL:
        images += [compile_kernel(assign(one_op(op, dtype)), gpu_target(arch)).image
                   for op in TAKES for dtype in TAKES[op]]
    kernels = [k for image in images for k in cubin.read(image).kernels.values()]
    kernels += compiled(EVERYTHING, arch).kernels.values()
    words = (k.code[at : at + 16] for k in kernels for at in range(0, len(k.code), 16))
    return tuple(dict.fromkeys(words))


@pytest.mark.parametrize("arch", ARCHS)
def test_every_instruction_of_the_test_kernels_reads_as_nvdisasm_has_it(arch: str) -> None:
    words = list(instructions(arch))
    found = judged(words, arch)
    assert len(found) == len(words)
    for pc, word, theirs in found:
        assert text(decode(word, 0, arch, pc)) == theirs


def test_an_unknown_instruction_is_named_with_its_place_and_bytes() -> None:
    word = bytes(range(16))
    with pytest.raises(UnknownInstruction, match=r"sm_90 instruction at pc 0x40: 00010203 04"):
        decode(bytes(64) + word, 64, "sm_90")
    with pytest.raises(UnknownInstruction, match="at pc 0x10"):
        decode(bytes(24), 16, "sm_75")
