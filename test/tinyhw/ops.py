"""Every tensor method: the table of cases that each device and each emulated board runs."""

from __future__ import annotations

from test.tinyhw import (
    ops_edges,
    ops_float8,
    ops_functions,
    ops_further,
    ops_indexing,
    ops_linalg,
    ops_names,
    ops_networks,
    ops_reductions,
    ops_shapes,
)
from test.tinyhw.op_table import OPS, Op

__all__ = [
    "OPS",
    "Op",
    "ops_edges",
    "ops_float8",
    "ops_functions",
    "ops_further",
    "ops_indexing",
    "ops_linalg",
    "ops_names",
    "ops_networks",
    "ops_reductions",
    "ops_shapes",
]
