"""The op table: linear algebra and einsum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from test.tinyhw.compare import floats, torch
from test.tinyhw.op_table import F, case, variant
from tinyhw import Tensor

_BATCH = floats(3, 4, 4, seed=5)
_DEFINITE = _BATCH @ _BATCH.transpose(0, 2, 1) + np.eye(4, dtype=np.float32)
_LOOSE: dict[str, Any] = {"rtol": 3e-4, "atol": 3e-4}


def _einsum(formula: str) -> Any:
    def run(*operands: Any) -> Any:
        library = Tensor if isinstance(operands[0], Tensor) else torch
        return library.einsum(formula, *operands)

    return run


case("einsum", _einsum("bij,bjk->bik"), floats(3, 5, 7), floats(3, 7, 4, seed=1))
for _formula, *_shapes in (
    ("ij->ji", (5, 7)), ("ij->", (5, 7)), ("ii->i", (5, 5)), ("bii", (3, 4, 4)),
    ("i,j", (5,), (7,)), ("ij,kj->ik", (5, 7), (3, 7)), ("ij,j,i->", (5, 7), (7,), (5,)),
    ("...ij,...jk->i...k", (2, 3, 4), (5, 1, 4, 3)), ("...ii->...i", (2, 3, 3)),
    ("i...,i...->...", (3, 2, 5), (3, 5)), ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("ab,bc,cd->da", (2, 3), (3, 4), (4, 5)),
):  # fmt: skip
    variant(f"einsum {_formula}", _einsum(_formula),
            *(floats(*s, seed=i) for i, s in enumerate(_shapes)))

# ---- products ----
case("outer", lambda a, b: a.outer(b), floats(5), floats(37, seed=1))
case("inner", lambda a, b: a.inner(b), floats(3, 5), floats(4, 5, seed=1))
case("tensordot", lambda a, b: a.tensordot(b, 2), floats(3, 4, 5), floats(4, 5, 2, seed=1),
     theirs=lambda a, b: torch.tensordot(a, b, 2))
variant("tensordot of pairs", lambda a, b: a.tensordot(b, ([0, 1], [2, 1])), floats(3, 4, 5),
        floats(2, 4, 3, seed=1), theirs=lambda a, b: torch.tensordot(a, b, ([0, 1], [2, 1])))
case("addmm", lambda t, a, b: t.addmm(a, b, beta=0.5, alpha=2), floats(5, 7), floats(5, 3, seed=1),
     floats(3, 7, seed=2))
case("kron", lambda a, b: a.kron(b), floats(3, 5), floats(2, 4, seed=1))
variant("kron of other ranks", lambda a, b: a.kron(b), floats(3), floats(2, 4, seed=1))
case("cross", lambda a, b: a.cross(b, 0), floats(3, 5), floats(3, 5, seed=1))
case("trace", lambda t: t.trace(), floats(5, 7))
case("matrix_power", lambda t: t.matrix_power(5), _BATCH, rtol=1e-4, atol=1e-3)
variant("matrix_power below 0", lambda t: t.matrix_power(-2), _BATCH, rtol=1e-3, atol=1e-3)
variant("matrix_power of 0", lambda t: t.matrix_power(0), _BATCH, gradient=False)

# ---- norms and distances ----
case("norm", lambda t: t.norm(), floats(5, 37))
for _p in (0, 1, 2, 3, math.inf, -math.inf, "fro"):
    variant(f"norm {_p}", lambda t, p=_p: t.norm(p, 1, keepdim=True), floats(5, 37),
            gradient=_p != 0)
variant("norm of zeros", lambda t: t.norm(), np.zeros(3, np.float32))
case("cosine_similarity", lambda a, b: a.cosine_similarity(b), floats(5, 7), floats(5, 7, seed=1),
     theirs=F.cosine_similarity)
case("pairwise_distance", lambda a, b: a.pairwise_distance(b), floats(5, 7), floats(5, 7, seed=1),
     theirs=F.pairwise_distance)
case("cdist", lambda a, b: a.cdist(b), floats(5, 7), floats(4, 7, seed=1), theirs=torch.cdist,
     **_LOOSE)

# ---- factorisations and inverses ----
variant("qr", lambda t: t.qr(), _BATCH, theirs=lambda t: torch.linalg.qr(t, "complete"), **_LOOSE)
variant("qr of few columns", lambda t: t.qr("reduced"), floats(6, 3), theirs=torch.linalg.qr,
        **_LOOSE)
variant("qr of few rows", lambda t: t.qr(), floats(3, 5), gradient=False,
        theirs=lambda t: torch.linalg.qr(t, "complete"), **_LOOSE)


def _svd(t: Any) -> Any:
    """Singular vectors have no sign of their own."""
    svd = t.svd if isinstance(t, Tensor) else lambda **options: torch.linalg.svd(t, **options)
    u, s, v = svd(full_matrices=False)
    return u.abs(), s, v.abs()


variant("svd", _svd, floats(5, 3), **_LOOSE)
variant("svd of few rows", _svd, floats(2, 3, 4), **_LOOSE)
variant("svd put together", lambda t: (lambda u, s, v: (u[:, :3] * s) @ v)(*t.svd()), floats(5, 3),
        theirs=lambda t: t, **_LOOSE)
variant("svd's orthogonal matrices", lambda t: [m @ m.T for m in t.svd()[::2]], floats(5, 3),
        theirs=lambda t: (torch.eye(5), torch.eye(3)), gradient=False, **_LOOSE)
variant("svd of rank 1", lambda t: (lambda u, s, v: (s, u @ u.T))(*t.svd(full_matrices=False)),
        np.outer(floats(3), floats(3, seed=1)), gradient=False,
        theirs=lambda t: (torch.linalg.svdvals(t), torch.eye(3)), **_LOOSE)
variant("cholesky", lambda t: t.cholesky(), _DEFINITE, theirs=torch.linalg.cholesky, **_LOOSE)
variant("cholesky, upper", lambda t: t.cholesky(upper=True), _DEFINITE,
        theirs=lambda t: torch.linalg.cholesky(t, upper=True), **_LOOSE)
case("inverse", lambda t: t.inverse(), _BATCH, **_LOOSE)
case("solve", lambda t, b: t.solve(b), _BATCH, floats(3, 4, 2, seed=6), theirs=torch.linalg.solve,
     **_LOOSE)
variant("solve for a vector", lambda t, b: t.solve(b), _BATCH[0], floats(4, seed=6),
        theirs=torch.linalg.solve, **_LOOSE)
case("det", lambda t: t.det(), _BATCH, **_LOOSE)
variant("det of a singular matrix", lambda t: t.det(), np.ones((3, 3), np.float32), gradient=False)
case("slogdet", lambda t: t.slogdet(), _BATCH, **_LOOSE,
     theirs=lambda t: (lambda sign, size: (sign.detach(), size))(*t.slogdet()))
case("logdet", lambda t: t.logdet(), _DEFINITE, **_LOOSE)
variant("pinverse", lambda t: t.pinverse(), floats(5, 3), **_LOOSE)


def _newton_schulz(t: Any) -> Any:
    if isinstance(t, Tensor):
        return t.newton_schulz(2, (2, -1.5, 0.5))
    x = t / (torch.linalg.norm(t) + 1e-7)
    for _ in range(2):
        a = x @ x.T
        x = 2 * x - 1.5 * a @ x + 0.5 * a @ a @ x
    return x


case("newton_schulz", _newton_schulz, floats(3, 5), **_LOOSE)
