"""Machine code of NVIDIA GPUs for tests: kernels from CUDA C, and nvdisasm's opinion of it."""

from __future__ import annotations

import functools
import importlib.util
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from compiler import cubin, nvrtc
from compiler.code_object import CodeObject
from drivers import open_device
from test.drivers import kernels

ARCHS = ("sm_75", "sm_89", "sm_90")
_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+([^;]*?)\s*;")


@functools.cache
def nvdisasm() -> str:
    """NVIDIA's disassembler, from its own package."""
    specification = importlib.util.find_spec("nvidia")
    folders = specification.submodule_search_locations if specification else None
    for folder in folders or ():
        for path in sorted(Path(folder).glob("*/bin/nvdisasm")):
            return str(path)
    pytest.skip("nvidia-cuda-nvdisasm is not installed")


def _run(words: list[bytes], arch: str) -> tuple[dict[int, str], str]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(words))
        file.flush()
        done = subprocess.run(
            [nvdisasm(), "--binary", arch.upper().replace("_", ""), file.name],
            capture_output=True, text=True, check=False,
        )
    return {int(at, 16): text for at, text in _LINE.findall(done.stdout)}, done.stderr


def judged(words: list[bytes], arch: str) -> list[tuple[int, bytes, str]]:
    """(pc, instruction, text) of those that nvdisasm accepts; it names those that it does not."""
    for _ in range(20):
        texts, said = _run(words, arch)
        refused = {int(at, 16) // 16 for at in re.findall(r"at address (0x[0-9a-f]+)", said)}
        if not refused:
            break
        words = [word for i, word in enumerate(words) if i not in refused]
    return [(16 * i, word, plain(texts[16 * i])) for i, word in enumerate(words)
            if 16 * i in texts]


def plain(text: str) -> str:
    """Without the spaces that nvdisasm puts in for its own reasons."""
    return re.sub(r"\s+", " ", text.replace(" ,", ",").replace("] [", "][")).strip()


@functools.cache
def compiled(source: str, arch: str) -> cubin.Cubin:
    """CUDA C as a cubin, read."""
    return cubin.read(nvrtc.compile_cuda(source, arch))


def launch(
    board: str, source: str, arrays: list[np.ndarray], grid: int, block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs the kernel `k` of CUDA C on an emulated board (`sm_90`, `sm_90,eager`); its arguments
    are the arrays, in which it leaves what it writes."""
    arch = board.partition(",")[0]
    monkeypatch.setenv("EMULATE", board)
    with open_device("NV") as device:
        params = tuple(kernels.buffer(f"p{n}") for n in range(len(arrays)))
        image = nvrtc.compile_cuda(source, arch)
        code = CodeObject("k", arch, image, 0, params, block=(block, 1, 1))
        buffers = [device.alloc(array.nbytes) for array in arrays]
        for buffer, array in zip(buffers, arrays, strict=True):
            buffer.cpu_view()[: array.nbytes] = array.tobytes()
        commands = device.compute_queue().commands()
        commands.exec(device.load(code), tuple(buffers), (grid, 1, 1)).submit().wait(60_000)
        for buffer, array in zip(buffers, arrays, strict=True):
            found = np.frombuffer(bytes(buffer.cpu_view()[: array.nbytes]), array.dtype)
            array[...] = found.reshape(array.shape)
