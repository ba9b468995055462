"""The operators, a family in each file; importing this registers them."""

from tinyhw.formats.onnx.operators import (
    activations,
    control,
    convolution,
    elementwise,
    indexing,
    movement,
    normalisation,
    pooling,
    products,
    reductions,
    shapes,
)

__all__ = [
    "activations",
    "control",
    "convolution",
    "elementwise",
    "indexing",
    "movement",
    "normalisation",
    "pooling",
    "products",
    "reductions",
    "shapes",
]
