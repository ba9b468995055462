"""The native image: its cache, and the tables that Python and native code share."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

import drivers
from drivers.errors import DeviceNotAvailable
from drivers.native import image, layout


def test_every_architecture_has_its_text():
    for arch in image.ARCHITECTURES:
        text = image.text(arch)
        assert "$" not in text
        for name in image.EXPORTS:
            assert f"@{name}(" in text


def test_the_text_compiles_for_both_architectures():
    from compiler.llvm import compile_ir
    from compiler.target import Target

    for arch, (cpu, _, _) in image.ARCHITECTURES.items():
        target = Target("llvm", arch, cpu=cpu, triple=f"{arch}-unknown-linux-gnu")
        assert compile_ir(image.text(arch), target)[:4] == b"\x7fELF"


def test_an_unknown_architecture_is_refused():
    with pytest.raises(DeviceNotAvailable, match="x86_64, aarch64; this process runs on m68k"):
        image.build("m68k")


def test_the_image_is_kept_and_a_damaged_one_made_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arch = image.host_arch()
    built = image.build(arch)
    (path,) = (tmp_path / "tinyhw").iterdir()
    whole = path.read_bytes()
    assert image.build(arch) == built
    for damaged in (b"", whole[:20], whole[:-1], whole[:-1] + b"\x00\x01", b"x" + whole[1:]):
        path.write_bytes(damaged)
        assert image.build(arch) == built
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(whole).digest()


def test_a_cache_folder_that_cannot_be_written_does_not_matter(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert image.build(image.host_arch())[0]


def test_concurrent_first_openings_do_not_disturb_each_other(tmp_path):
    program = """
from drivers import open_device
with open_device("LLVM") as device:
    device.compute_queue().commands().barrier().submit().wait()
"""
    root = Path(drivers.__file__).parents[1]
    import os

    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    children = [
        subprocess.Popen([sys.executable, "-c", program], cwd=root, env=environment)
        for _ in range(4)
    ]
    assert [child.wait(timeout=60) for child in children] == [0] * 4
    assert len(list((tmp_path / "tinyhw").iterdir())) == 1


def test_fields_of_records_do_not_overlap():
    sizes = {"I": 4, "Q": 8}
    for opcode, fields in layout.FIELDS.items():
        used = set(range(4))
        for name, (offset, form) in fields.items():
            span = set(range(offset, offset + sizes[form]))
            assert not span & used, (opcode, name)
            assert offset % sizes[form] == 0
            used |= span
        assert max(used) < layout.RECORD_BYTES


def test_what_different_threads_write_is_in_different_lines():
    queue = layout.QueueState
    lines = [getattr(queue, name).offset // 64 for name in ("ring", "head", "tail", "doorbell")]
    assert len(set(lines)) == 4
    assert layout.Job.state.offset // 64 != layout.Job.next.offset // 64
    assert ctypes.sizeof(layout.Pool) % 64 == 0
