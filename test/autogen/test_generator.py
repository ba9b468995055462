"""The generator's own rules: what becomes of a macro, of a table, of a pin that is gone."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

import autogen_bindings
import autogen_fetch
from autogen_bindings import as_json, main
from autogen_fetch import Archive, AutogenError, Pin, extract, read_pins
from autogen_macros import Function, Macro, as_constant, translate
from autogen_modules import MODULES
from autogen_tables import as_field, mesa_registers, registers, sdma_packets, segments
from autogen_types import tidy

PIN = Pin("headers", "deb", "trixie", "1.0-1", "headers_1.0-1_all.deb", "0" * 64)


@pytest.mark.parametrize(
    ("parameters", "body", "expected"),
    [
        (("x",), "((x) << 8)", "(x << 8)"),
        (("op", "n"), "(HEAD | (((op) & 0xFFu) << 8))", "(HEAD | ((op & 0xFF) << 8))"),
        (("h",), "(((unsigned)(h) >> 30UL) & 3)", "((h >> 30) & 3)"),
        (("v",), "(HEAD | ~(v))", "(HEAD | ~v)"),
        (("x",), "(UNKNOWN << (x))", None),
        (("x",), "((x) ? 1 : 2)", None),
        (("field", "x"), "(field##_SHIFT + x)", None),
        (("x",), "do_something(x);", None),
    ],
)
def test_function_like_macros(parameters: tuple[str, ...], body: str, expected: str | None) -> None:
    assert translate(Macro("M", parameters, body), {"HEAD": 3 << 30}) == expected


def test_a_function_is_cut_to_the_width_of_its_c_type() -> None:
    scope: dict[str, object] = {}
    exec(Function("F", ("x",), "(x << 29)", 0xFFFF_FFFF).source(), scope)
    assert eval("F(7)", scope) == 0xE000_0000 and eval("F(8)", scope) == 0


@pytest.mark.parametrize(
    ("value", "signed", "size", "body", "expected"),
    [
        (-(1 << 31), True, 4, "(1 << 31)", 0x8000_0000),
        (-1023, True, 4, "-1023", -1023),
        (-1, False, 8, "~0ULL", 0xFFFF_FFFF_FFFF_FFFF),
        (75, True, 4, "'K'", 75),
    ],
)
def test_signs_of_constants(value: int, signed: bool, size: int, body: str, expected: int) -> None:
    assert as_constant(value, signed, size, body) == expected


def packet_field(packet: str, word: str, field: str, offset: int, mask: int, shift: int) -> str:
    name = f"#define {packet}_{word}_{field}"
    return (
        f"/*define for {word} word*/\n/*define for {field} field*/\n"
        f"{name}_offset {offset}\n{name}_mask {mask:#010X}\n{name}_shift {shift}\n"
    ).replace("0X", "0x")


def test_sdma_fields_with_one_name_in_two_words_are_told_apart() -> None:
    packet = "SDMA_PKT_COPY"
    text = f"** Definitions for {packet} packet\n"
    text += packet_field(packet, "HEADER", "op", 0, 0xFF, 8)
    text += packet_field(packet, "LO", "addr", 1, 0xFFFFFFFF, 0)
    text += packet_field(packet, "HI", "addr", 2, 0xFFFF, 0)
    expected = {"op": (0, 8, 8), "LO.addr": (1, 0, 32), "HI.addr": (2, 0, 16)}
    assert sdma_packets(text) == {"COPY": expected}


@pytest.mark.parametrize(("shift", "mask"), [(0, 0b101), (0, 0), (28, 0xFF)])
def test_a_mask_that_is_no_field_is_refused(shift: int, mask: int) -> None:
    with pytest.raises(AutogenError, match="no bit field"):
        as_field("X", shift, mask)


def test_only_declared_registers_are_kept() -> None:
    text = "".join(
        f"#define {prefix}{name} 0x1bac\n#define {prefix}{name}_BASE_IDX 1\n"
        for prefix, name in (("reg", "COMPUTE_PGM_LO"), ("mm", "COMPUTE_DIM_X"), ("reg", "CP_ME"))
    )
    assert registers(text, ["COMPUTE_.*"]) == {
        "COMPUTE_PGM_LO": (0x1BAC, 1),
        "COMPUTE_DIM_X": (0x1BAC, 1),
    }


def test_instances_without_a_base_are_left_out() -> None:
    rows = [(0, 0, "0x2000"), (0, 1, "0xA000"), (1, 0, "0"), (1, 1, "0")]
    text = "".join(f"#define GC_BASE__INST{i}_SEG{s} {base}\n" for i, s, base in rows)
    assert segments(text, ["GC"]) == {"GC": [(0x2000, 0xA000)]}


def test_mesa_registers() -> None:
    field = {"bits": [12, 17], "name": "FORMAT"}
    enumeration = {"entries": [{"name": "A", "value": 3}]}
    text = json.dumps({"register_types": {"R": {"fields": [field]}, "S": {"fields": []}},
                       "enums": {"F": enumeration}})  # fmt: skip
    assert mesa_registers(text, ["R", "F"]) == ({"R": {"FORMAT": (12, 6)}}, {"F": {"A": 3}})


def test_ctypeslibs_preamble_and_list_of_names_go() -> None:
    text = (
        "# TARGET arch is: ['-I/somewhere']\nimport ctypes\nclass AsDictMixin: ...\n"
        "class Union(ctypes.Union, AsDictMixin):\n    pass\n\n\n\n"
        "class struct_x(Structure):\n    pass\n\nstruct_x._pack_ = 1 # source:False\n"
        "BIT = -2147483648\nMINUS = -1\n\n__all__ = \\\n    ['struct_x']\n"
    )
    assert tidy(text) == (
        "class struct_x(ctypes.Structure):\n    pass\n\nstruct_x._pack_ = 1\n"
        "BIT = 0x80000000\nMINUS = -1\n"
    )


def test_ctypeslib_output_that_is_not_understood_is_refused() -> None:
    preamble = "class Union(ctypes.Union, AsDictMixin):\n    pass\n"
    with pytest.raises(AutogenError, match="helpers"):
        tidy(preamble + "_libraries['FIXME_STUB'] = FunctionFactoryStub()\n")


def test_the_record_is_sorted_and_small() -> None:
    text = as_json({"b": {"x": [0, 4]}, "a": [8], "c": ["n"]})
    assert json.loads(text) == {"a": [8], "b": {"x": [0, 4]}, "c": ["n"]}
    assert '"x": [0, 4]\n' in text and text.index('"a"') < text.index('"b"')


# Pins and packages


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Archive, "versions", lambda self, pin: ["2.0-1"])
    return Archive(["trixie"])


def test_a_pin_that_is_gone_says_how_to_move_it(archive: Archive) -> None:
    with pytest.raises(AutogenError, match=r"1\.0-1 is pinned, .* offers 2\.0-1.*--repin"):
        archive.fetch(PIN)


def test_a_package_with_another_digest_is_thrown_away(archive: Archive) -> None:
    path = archive.home / "packages" / PIN.file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    with pytest.raises(AutogenError, match="thrown away"):
        archive.fetch(PIN)
    assert not path.exists()


def test_repinning_takes_the_newest_and_its_digest(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = tmp_path / "headers_2.0-1_all.deb"
    fresh.write_bytes(b"new")
    monkeypatch.setattr(Archive, "_into_empty_folder", lambda self, pin: fresh)
    pin = archive.newest(PIN)
    assert (pin.version, pin.file) == ("2.0-1", "headers_2.0-1_all.deb")
    assert pin.sha256 == hashlib.sha256(b"new").hexdigest()
    assert archive.fetch(pin).read_bytes() == b"new"


def tarball(*names: str) -> tarfile.TarFile:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    data.seek(0)
    return tarfile.open(fileobj=data)


def test_unpacking_takes_what_is_asked_for_and_stays_in_its_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    extract(tarball("top/a/x.h", "top/a/y.c", "top/../../z.h"), home, ["*.h"], strip=True)
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.?")] == [Path("home/a/x.h")]


def test_a_header_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(AutogenError, match=r"no file b\.h"):
        extract(tarball("a.h"), tmp_path, ["a.h", "b.h"], strip=False)


# The command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one generated file, which a generation would change."""
    (tmp_path / "kfd.py").write_text("A = 1\n")
    manifest = {"modules": {}, "packages": autogen_fetch.pins_as_json({"headers": PIN})}
    (tmp_path / "manifest.json").write_text(as_json(manifest))
    monkeypatch.setattr(autogen_bindings, "HOME", tmp_path)
    monkeypatch.setattr(autogen_bindings, "MANIFEST", tmp_path / "manifest.json")

    def build(pins: dict[str, Pin], only: list[str]) -> dict[Path, str]:
        return {
            tmp_path / "kfd.py": f'A = "{pins["headers"].version}"\n',
            tmp_path / "manifest.json": as_json(
                {"modules": {}, "packages": autogen_fetch.pins_as_json(pins)}
            ),
        }

    monkeypatch.setattr(autogen_bindings, "build", build)
    return tmp_path


def test_check_shows_the_difference_and_writes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check"]) == 1
    assert '+A = "1.0-1"' in capsys.readouterr().out
    assert (home / "kfd.py").read_text() == "A = 1\n"
    assert main([]) == 0 and main(["--check"]) == 0


def test_repin_shows_the_difference_and_writes_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Archive, "newest", lambda self, pin: replace(pin, version="2.0-1"))
    assert main(["--repin"]) == 0
    output = capsys.readouterr().out
    assert '-A = 1\n+A = "2.0-1"' in output and '+   "version": "2.0-1"' in output
    assert read_pins(home / "manifest.json")["headers"].version == "2.0-1"


def test_an_unknown_module_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "nonsense"]) == 1
    assert "no module nonsense" in capsys.readouterr().err


def test_a_module_stands_once_in_the_list() -> None:
    names = [module.name for module in MODULES]
    assert len(names) == len(set(names))
