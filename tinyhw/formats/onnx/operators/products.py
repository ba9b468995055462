"""Sums of products: matrices, einsum."""

from __future__ import annotations

from compiler.dtype import dtypes
from tinyhw.formats.onnx.registry import Call, operator
from tinyhw.tensor import Tensor


@operator("MatMul")
def matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """The product of matrices, or of stacks of them."""
    return a.matmul(b).cast(a.dtype)


@operator("Gemm")
def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha · a @ b + beta · c, either transposed first."""
    a = a.transpose(0, 1) if call.int("transA", 0) else a
    b = b.transpose(0, 1) if call.int("transB", 0) else b
    product = a.matmul(b)
    alpha, beta = call.float("alpha", 1.0), call.float("beta", 1.0)
    if alpha != 1:
        product = product * alpha
    if c is not None and beta:
        product = product + (c if beta == 1 else c * beta)
    return product.cast(a.dtype)


@operator("Einsum")
def einsum(call: Call, *operands: Tensor) -> Tensor:
    """Sums of products by a formula."""
    formula = call.string("equation").replace(" ", "")
    return Tensor.einsum(formula, *operands).cast(operands[0].dtype)


@operator("Det")
def det(call: Call, x: Tensor) -> Tensor:
    """The determinant of each matrix."""
    return x.cast(dtypes.float64).det().cast(x.dtype)
