"""Says so when `drivers`, `compiler` or `autogen` turns out to be somebody else's module."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

LOWER_FLOORS = ("drivers", "compiler", "autogen")


def check_floors() -> None:
    """Raises ImportError unless the lower floors are the packages installed beside tinyhw.

    Their names are plain words, so a program's own `compiler.py` can hide them. Called before
    any of them is imported; imports none of them itself.
    """
    home = Path(__file__).resolve().parents[1]
    for name in LOWER_FLOORS:
        found = _location(name)
        if found is None:
            raise ImportError(
                f"tinyhw's own package `{name}` is missing: it belongs beside tinyhw in {home}. "
                "Install tinyhw again.",
                name=name,
            )
        if found != home / name:
            raise ImportError(
                f"tinyhw needs its own package `{name}` in {home / name}, but `import {name}` "
                f"finds {found}. Rename that one, or take its folder off sys.path.",
                name=name,
                path=str(found),
            )


def _location(name: str) -> Path | None:
    """Where `import name` leads: a package's folder or a module's file; None for nowhere."""
    try:
        spec = find_spec(name)
    except ValueError:  # in sys.modules without a spec: made by hand, or run as a script
        return Path(getattr(sys.modules[name], "__file__", None) or "<made at run time>")
    return None if spec is None else _spec_location(spec)


def _spec_location(spec: ModuleSpec) -> Path:
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin or "<unknown>")
