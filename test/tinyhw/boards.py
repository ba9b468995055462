"""The emulated boards that one machine of tests has: of each vendor, a GPU of each generation."""

from __future__ import annotations

AMD = ("gfx1100", "gfx1030", "gfx1201", "gfx90a", "gfx942")
NVIDIA = ("sm_90", "sm_89")
