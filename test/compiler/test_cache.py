"""The disk cache gives back what was put in, or nothing: never a wrong kernel, never an error."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler import cache
from compiler.code_object import CodeObject, Param, Relocation
from compiler.dtype import dtypes
from compiler.errors import InvalidSetting
from compiler.target import Target

TARGET = Target("llvm", "x86_64", cpu="x86-64", triple="x86_64-unknown-linux-gnu")
KEY = "0123456789abcdef"
CODE = CodeObject(
    "E_4",
    "x86_64",
    bytes(range(256)),
    16,
    (
        Param("buffer", dtypes.bfloat16, "data0", True),
        Param("buffer", dtypes.bool, "data1"),
        Param("scalar", dtypes.int64, "n"),
    ),
    grid=(3, 4, 5),
    local_bytes=64,
    relocations=(Relocation(8, 128), Relocation(248, 0)),
    source="define void @E_4() { ret void }\n; ≤",
    operations=12,
    bytes_moved=34,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TINYHW_CACHE", raising=False)
    return tmp_path / "tinyhw" / "kernels"


def test_what_was_put_comes_back(folder: Path) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, CODE)
    assert cache.get(KEY) == CODE
    assert [path.name for path in folder.iterdir()] == [f"{KEY}.kernel"]
    cache.put(KEY, replace(CODE, image=bytes(100) + bytes(200)))
    found = cache.get(KEY)
    assert found is not None
    assert found.image == bytes(300)


def test_only_the_owner_can_read_the_folder(folder: Path) -> None:
    cache.put(KEY, CODE)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_default_place_is_under_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache.directory() == Path("/home/someone/.cache/tinyhw/kernels")


def test_it_can_be_switched_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(KEY, CODE)
    monkeypatch.setenv("TINYHW_CACHE", "0")
    assert cache.get(KEY) is None
    cache.put("other", CODE)
    assert not (folder / "other.kernel").exists()


def test_a_malformed_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYHW_CACHE", "yes")
    with pytest.raises(InvalidSetting, match="TINYHW_CACHE is 'yes'; it can be 0"):
        cache.get(KEY)


def test_every_cut_entry_is_absent_and_removed(folder: Path) -> None:
    cache.put(KEY, CODE)
    path = folder / f"{KEY}.kernel"
    whole = path.read_bytes()
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        assert cache.get(KEY) is None
        assert not path.exists()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_damaged_entry_is_absent(folder: Path, data: st.DataObject) -> None:
    cache.put(KEY, CODE)
    path = folder / f"{KEY}.kernel"
    damaged = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    assert cache.get(KEY) is None


@pytest.mark.parametrize(
    "description",
    [b"", b"{}", b"[1]", b"null", b'{"params": 3}', b"[" * 100000, b"\xff"],
    ids=lambda d: repr(d[:12]),
)
def test_a_foreign_description_with_a_right_checksum_is_absent(
    folder: Path, description: bytes
) -> None:
    folder.mkdir(parents=True)
    header = cache._HEADER.pack(b"tinyhwK1", cache._checksum(description), len(description))
    (folder / f"{KEY}.kernel").write_bytes(header + description)
    assert cache.get(KEY) is None


@pytest.mark.parametrize("wrong", [{"entry": 256}, {"relocations": (Relocation(249, 0),)}])
def test_an_entry_that_points_outside_its_image_is_absent(wrong: dict[str, int]) -> None:
    cache.put(KEY, replace(CODE, **wrong))
    assert cache.get(KEY) is None


def test_a_folder_that_cannot_be_written_costs_only_the_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    cache.put(KEY, CODE)
    assert cache.get(KEY) is None
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no/such/place")
    cache.put(KEY, CODE)


def test_processes_may_write_the_same_entry_at_the_same_time(folder: Path) -> None:
    """Readers meanwhile see a whole entry each time."""
    program = (
        "from compiler import cache\n"
        "from compiler.code_object import CodeObject\n"
        "for i in range(200):\n"
        f"  cache.put({KEY!r}, CodeObject('k', 'x', bytes([i]) * (300 + 50 * i), 0, ()))"
    )
    cache.put(KEY, CODE)
    root = Path(__file__).resolve().parents[2]
    writers = [subprocess.Popen([sys.executable, "-c", program], cwd=root) for _ in range(2)]
    while any(writer.poll() is None for writer in writers):
        found = cache.get(KEY)
        assert found is not None
        assert found.image == CODE.image or len(set(found.image)) == 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(list(folder.iterdir())) == 1


def test_the_oldest_entries_go_first(folder: Path) -> None:
    now = time.time()
    for age in range(10):
        cache.put(f"{age}", CODE)
        os.utime(folder / f"{age}.kernel", (now - age * 60, now - age * 60))
    size = (folder / "0.kernel").stat().st_size
    (folder / "x.1.2.tmp").write_bytes(b"half")
    os.utime(folder / "x.1.2.tmp", (now - 7200, now - 7200))
    cache.clean(folder, limit=8 * size)
    assert sorted(path.name for path in folder.iterdir()) == [f"{i}.kernel" for i in range(6)]


def test_a_read_entry_stays_young(folder: Path) -> None:
    cache.put(KEY, CODE)
    path = folder / f"{KEY}.kernel"
    os.utime(path, (0, 0))
    assert cache.get(KEY) == CODE
    assert path.stat().st_mtime > time.time() - 60


def test_keys_depend_on_kernel_target_and_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {
        cache.key(b"a", TARGET),
        cache.key(b"b", TARGET),
        cache.key(b"a", replace(TARGET, features="+avx2")),
    }
    cache._context.cache_clear()
    monkeypatch.setattr(cache, "_sources", lambda: b"another compiler")
    keys.add(cache.key(b"a", TARGET))
    monkeypatch.undo()
    cache._context.cache_clear()
    assert len(keys) == 4
    assert cache.key(b"a", TARGET) in keys
