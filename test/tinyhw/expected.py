"""What PyTorch gave, kept in a file for machines that have no PyTorch.

`TINYHW_EXPECTED=FILE.npz pytest test/tinyhw/test_ops.py` writes the file where PyTorch is
installed, and reads it where it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Expected:
    """The results of a computation and its gradients."""

    several: bool
    """Whether it gave a tuple."""
    results: list[Array]
    smooth: list[bool]
    """Of which results gradients were asked for."""
    gradients: dict[int, Array | None]
    """By the number of the input; None for one that has none."""


class Nothing:
    """Stands where PyTorch is named and not used: all that is asked of it is nothing."""

    def __getattr__(self, name: str) -> Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *arguments: Any, **options: Any) -> Nothing:
        return self


def save(path: str, known: dict[str, Expected]) -> None:
    """Writes results by their names."""
    arrays: dict[str, Array] = {"names": np.array(list(known))}
    for number, one in enumerate(known.values()):
        arrays[f"{number} several"] = np.array([one.several])
        arrays[f"{number} smooth"] = np.array(one.smooth, bool)
        arrays[f"{number} none"] = np.array([at for at, it in one.gradients.items() if it is None])
        arrays |= {f"{number} result {at}": array for at, array in enumerate(one.results)}
        arrays |= {
            f"{number} gradient {at}": it for at, it in one.gradients.items() if it is not None
        }
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def load(path: str) -> dict[str, Expected]:
    """Reads them again."""
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    known = {}
    for number, name in enumerate(arrays["names"]):
        smooth = [bool(value) for value in arrays[f"{number} smooth"]]
        gradients: dict[int, Array | None] = {int(at): None for at in arrays[f"{number} none"]}
        prefix = f"{number} gradient "
        gradients |= {
            int(key.removeprefix(prefix)): array
            for key, array in arrays.items() if key.startswith(prefix)
        }
        results = [arrays[f"{number} result {at}"] for at in range(len(smooth))]
        several = bool(arrays[f"{number} several"][0])
        known[str(name)] = Expected(several, results, smooth, dict(sorted(gradients.items())))
    return known
