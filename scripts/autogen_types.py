"""Structures, unions and enumerations of C headers through ctypeslib2, and their true layout."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from autogen_fetch import AutogenError, command
from autogen_macros import Probe, compiler_headers

Layout = dict[str, dict[str, list[int]]]  # "struct x" → {"": [size], "field": [offset, size]}

VERSIONS = {"ctypeslib2": "2.4.0", "clang": "18.1.8", "libclang": "18.1.1"}


def libclang() -> Path:
    """The library of the pinned wheel; raises unless all three packages are the pinned ones."""
    from importlib.metadata import PackageNotFoundError, version

    for package, wanted in VERSIONS.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "none"
        if found != wanted:
            raise AutogenError(
                f"Generating the bindings needs {package} {wanted}, but {sys.executable} has "
                f"{found}. Install it with `pip install -e '.[autogen]'`."
            )

    specification = importlib.util.find_spec("clang")
    assert specification is not None and specification.submodule_search_locations is not None
    return Path(next(iter(specification.submodule_search_locations))) / "native" / "libclang.so"


def types_source(
    headers: Sequence[Path], probe: Probe, only: str = "", first: Sequence[str] = ()
) -> str:
    """What ctypeslib2 makes of the headers, without its preamble and its machine's paths."""
    os.environ["CLANG_LIBRARY_PATH"] = str(libclang())  # else it takes the system's
    folders = [compiler_headers(), *probe.folders]
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "types.py"
        done = command(
            [
                sys.executable, "-c", "from ctypeslib.clang2py import main; main()",
                "-k", "cdestu", "-o", output, *(("-r", only) if only else ()),
                "--clang-args="
                + " ".join(f"-include {name}" for name in ("stdint.h", "stddef.h", *first))
                + " "
                + " ".join(f"-I{folder}" for folder in folders),
                *headers,
            ]
        )  # fmt: skip
        text = output.read_text(encoding="utf-8") if output.exists() else ""
    if done.returncode or "class Structure" not in text:
        raise AutogenError(f"ctypeslib2 cannot read {headers[0].name}:\n{done.stderr[-2000:]}")
    return tidy(text)


def tidy(text: str) -> str:
    """ctypeslib2's output on plain ctypes classes, without helpers that nothing here uses."""
    body = text.split("class Union(ctypes.Union, AsDictMixin):\n    pass\n", 1)[1]
    helpers = "ctypes.cast(string, ctypes.POINTER(ctypes.c_char))\n"
    body = body.rsplit(helpers, 1)[-1].split("\n__all__ = ", 1)[0]
    body = re.sub(r"^c_int128 = .*?\n    c_long_double_t = ctypes.c_ubyte\*16\n", "", body,
                  flags=re.M | re.S)
    body = re.sub(r"\((Structure|Union)\):", r"(ctypes.\1):", body)
    body = body.replace(" # source:False", "").replace(" # enum", "")
    body = re.sub(r"^# values for .*\n", "", body, flags=re.M)
    body = body.replace("-2147483648", "0x80000000")  # 1 << 31; -1 and the like are meant
    if "FIXME_STUB" in body or re.search(r"\bc_u?int128\b|c_long_double_t|string_cast", body):
        found = re.search(r".*(FIXME_STUB|\bc_u?int128\b|c_long_double_t|string_cast).*", body)
        assert found is not None
        raise AutogenError(f"ctypeslib2 made helpers that `tidy` does not know: {found[0]}")
    return re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"


def load(path: Path) -> ModuleType:
    """Imports a generated file that may not be in place yet."""
    specification = importlib.util.spec_from_file_location(f"generated_{path.stem}", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def aggregates(module: ModuleType) -> Iterator[tuple[str, type[ctypes.Structure | ctypes.Union]]]:
    """The C names and ctypes classes of a module's structures and unions."""
    for name, value in vars(module).items():
        kind, _, tag = name.partition("_")
        if isinstance(value, type) and issubclass(value, ctypes.Structure | ctypes.Union):
            if kind in ("struct", "union") and value.__name__ == name:
                yield f"{kind} {tag}", value


def field_paths(aggregate: type[ctypes.Structure | ctypes.Union]) -> Iterator[str]:
    """Every field as C names it, fields of unnamed members and of named ones included."""
    unnamed = getattr(aggregate, "_anonymous_", ())
    for name, kind, *bits in getattr(aggregate, "_fields_", ()):
        if name.startswith("PADDING_"):
            continue
        if bits:
            raise AutogenError(f"{aggregate.__name__}.{name} is a bit field: no probe knows it.")
        inner = list(field_paths(kind)) if issubclass(kind, ctypes.Structure | ctypes.Union) else []
        if name in unnamed:
            yield from inner
        else:
            yield name
            yield from (f"{name}.{path}" for path in inner)


def layouts(module: ModuleType, probe: Probe) -> Layout:
    """Sizes and offsets of a module's types as the C compiler has them.

    Types that only a typedef names are asked by that; those without a name in C are seen
    through the fields that hold them.
    """
    asked: list[tuple[str, str]] = []
    statements: list[str] = []
    for c_name, aggregate in aggregates(module):
        tag = c_name.partition(" ")[2]
        names = (c_name, tag) if getattr(module, tag, None) is aggregate else (c_name,)
        paths = [*field_paths(aggregate)]
        for name in names:
            asked.append((c_name, ""))
            statements.append(f'printf("%zu\\n", sizeof({name}));')
            for path in paths:
                asked.append((c_name, path))
                size = f"sizeof((({name} *)0)->{path})"
                statements.append(f'printf("%zu %zu\\n", offsetof({name}, {path}), {size});')
    found: Layout = {}
    for index, text in sorted(probe.run(statements).items()):
        c_name, path = asked[index]
        found.setdefault(c_name, {})[path] = [int(number) for number in text.split()]
    return found
