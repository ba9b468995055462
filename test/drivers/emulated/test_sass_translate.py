"""Which of the test kernels for NVIDIA GPUs the translator refuses."""

from __future__ import annotations

import pytest

from compiler import nvrtc
from compiler.cubin import Kernel
from drivers.emulated.simt.architecture import ARCHITECTURES
from drivers.emulated.simt.instruction import UnknownInstruction
from drivers.emulated.simt.program import read_program
from test.drivers.emulated.sass import ARCHS, compiled
from test.drivers.emulated.sass_kernels import EVERYTHING, lines, statements

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")
REFUSED = {
    "sm_75": {"r  mov.u32 %0,%%pm0;"}, "sm_89": {"r  mov.u32 %0,%%pm0;"},
    "sm_90": {"r  mov.u32 %0,%%pm0;", "r  mov.u32 %0,%%nwarpid;"},
}


def translated(kernel: Kernel, arch: str) -> str:
    """A kernel's LLVM IR. Raises UnknownInstruction."""
    isa = ARCHITECTURES[arch]
    table = kernel.banks[2].content if 2 in kernel.banks else b""

    def decode(pc: int):
        return isa.decode(kernel.code, pc, 32, 0)

    def flow(i):
        targets, last = isa.flow(i)
        return targets + isa.leads(i, decode, lambda: table), last

    program = read_program(decode, flow)
    accesses = [i.pc for i in program.instructions for _ in isa.memory_kinds(i)]
    slots = {pc: accesses.index(pc) for pc in accesses}
    return isa.translate(program, 32, slots, True)


@pytest.mark.parametrize("arch", ARCHS)
def test_all_but_a_few_kernels_are_translated(arch: str) -> None:
    """Performance counters have no meaning here; how many warps there may be stands nowhere."""
    refused = set()
    for source in (EVERYTHING, statements(arch)):
        for name, kernel in compiled(source, arch).kernels.items():
            try:
                assert "define i32 @wave" in translated(kernel, arch)
            except UnknownInstruction:
                refused.add(name if source is EVERYTHING else lines(arch)[int(name[1:])])
    assert refused == REFUSED[arch]
