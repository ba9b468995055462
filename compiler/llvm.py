"""LLVM inside this process: IR text in, a relocatable ELF object out.

llvmlite is imported at first use, because importing it takes longer than most kernels. It holds
one lock around all of LLVM, so compiling in several threads is safe and gains nothing.
"""

from __future__ import annotations

import functools
import platform
from typing import Any

from compiler.errors import InvalidKernel, ToolFailed, ToolMissing
from compiler.target import Target

OPTIMISATION_LEVEL = 2
"""For the passes and for instruction selection. Level 3 gave the same code for our kernels."""

_AVX512 = ("avx512f", "avx512vl", "avx512bw", "avx512dq")
"""What 512-bit code needs: without all of these, lanes of bytes or masks are missing."""


@functools.cache
def _llvm() -> Any:
    """The llvmlite binding with its targets ready."""
    try:
        import llvmlite.binding as llvm
    except ImportError as error:
        raise ToolMissing(
            "LLVM is missing: llvmlite is not installed.",
            operation="import llvmlite",
            remedy="Run `pip install llvmlite`.",
        ) from error
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm


def version() -> str:
    """The versions of llvmlite and LLVM, for cache keys and reports."""
    import llvmlite

    return f"llvmlite {llvmlite.__version__}, LLVM {'.'.join(map(str, _llvm().llvm_version_info))}"


@functools.cache
def host_target(compiler: str = "llvm", threads: int = 1) -> Target:
    """This machine's processor as a Target; its features are detected, never guessed by name."""
    llvm = _llvm()
    detected = llvm.get_host_cpu_features()
    arch = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    if all(detected.get(name) for name in _AVX512):
        vector_bits, vector_registers = 512, 32
    else:
        vector_bits = 256 if detected.get("avx2") else 128
        vector_registers = 32 if arch == "aarch64" else 16
    return Target(
        compiler,
        arch,
        cpu=llvm.get_host_cpu_name(),
        features=detected.flatten(),
        vector_bits=vector_bits,
        vector_registers=vector_registers,
        threads=threads,
        # Objects are ELF with the System V calling convention, whatever system runs them.
        triple=f"{arch}-unknown-linux-gnu",
    )


@functools.cache
def _machine(target: Target) -> Any:
    """LLVM's own description of `target`; made once, it keeps no state between kernels."""
    llvm = _llvm()
    triple = target.triple or f"{target.arch}-unknown-linux-gnu"
    try:
        return llvm.Target.from_triple(triple).create_target_machine(
            cpu=target.cpu,
            features=target.features,
            opt=OPTIMISATION_LEVEL,
            reloc="pic",
            codemodel="default",
        )
    except RuntimeError as error:
        raise ToolFailed(
            f"LLVM has no target machine for {triple}, processor {target.cpu!r}: "
            f"{str(error).strip()}.",
            operation="create_target_machine",
        ) from error


def _optimised(text: str, target: Target) -> tuple[Any, Any]:
    """The optimised module of `text` and the target machine that will print it."""
    llvm, machine = _llvm(), _machine(target)
    try:
        module = llvm.parse_assembly(text, llvm.create_context())
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise InvalidKernel(
            f"LLVM does not accept the IR of {_first_function(text)}: {str(error).strip()}",
            operation="parse_assembly",
        ) from error
    options = llvm.create_pipeline_tuning_options(OPTIMISATION_LEVEL)
    options.loop_vectorization = options.loop_interleaving = options.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module, machine


def _first_function(text: str) -> str:
    """Names the kernel in an error message: the first function that the text defines."""
    for line in text.splitlines():
        if line.startswith("define "):
            return line.partition("@")[2].partition("(")[0]
    return "a text that defines no function"


def compile_ir(text: str, target: Target) -> bytes:
    """A relocatable ELF object of the IR in `text`, optimised for `target`.

    The triple and data layout are set here; attributes of functions are the text's business.
    Raises InvalidKernel when LLVM does not accept the text.
    """
    module, machine = _optimised(text, target)
    return bytes(machine.emit_object(module))


def assembly(text: str, target: Target) -> str:
    """The machine code that `compile_ir` would give, as assembly to read."""
    module, machine = _optimised(text, target)
    return str(machine.emit_assembly(module))


def optimised_ir(text: str, target: Target) -> str:
    """The IR after optimisation, to read."""
    return str(_optimised(text, target)[0])
