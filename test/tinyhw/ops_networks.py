"""The op table: products, windows, normalisation, attention, losses."""

from __future__ import annotations

import numpy as np

from test.tinyhw.compare import floats, integers, torch
from test.tinyhw.op_table import F, case, x
from tinyhw import Tensor

# ---- products ----
case("matmul", lambda a, b: a.matmul(b), floats(33, 37), floats(37, 41, seed=1), atol=2e-5)
case("matmul of one tile", lambda a, b: a @ b, floats(64, 64), floats(64, 64, seed=1), atol=2e-5)
case("matmul through local memory", lambda a, b: a @ b, floats(130, 150),
     floats(150, 140, seed=1), gradient=False, atol=5e-5)
case("matmul of batches", lambda a, b: a @ b, floats(3, 5, 17), floats(3, 17, 9, seed=1), atol=2e-5)
case("matmul of halves", lambda a, b: a @ b, floats(48, 64).astype(np.float16),
     floats(64, 32, seed=1).astype(np.float16), gradient=False, rtol=4e-3, atol=4e-3)
case("matrix by vector", lambda a, b: a @ b, floats(33, 300), floats(300, seed=1), atol=5e-5)
case("dot", lambda a, b: a.dot(b), floats(300), floats(300, seed=1), atol=5e-5)
case("linear", lambda t, w, b: t.linear(w, b), floats(5, 7), floats(7, 9, seed=1),
     floats(9, seed=2), theirs=lambda t, w, b: F.linear(t, w.T, b))
case("einsum", lambda a, b: Tensor.einsum("bij,bjk->bik", a, b), floats(3, 5, 7),
     floats(3, 7, 4, seed=1), theirs=lambda a, b: torch.einsum("bij,bjk->bik", a, b))
case("conv2d", lambda t, w, b: t.conv2d(w, b, padding=1, stride=2), floats(2, 3, 9, 11),
     floats(4, 3, 3, 3, seed=1), floats(4, seed=2),
     theirs=lambda t, w, b: F.conv2d(t, w, b, padding=1, stride=2), atol=3e-5)
case("grouped conv2d", lambda t, w: t.conv2d(w, groups=2, dilation=2), floats(2, 4, 9, 9),
     floats(6, 2, 3, 3, seed=1),
     theirs=lambda t, w: F.conv2d(t, w, groups=2, dilation=2), atol=3e-5)
case("conv_transpose2d", lambda t, w: t.conv_transpose2d(w, stride=2), floats(2, 3, 5, 5),
     floats(3, 4, 3, 3, seed=1), theirs=lambda t, w: F.conv_transpose2d(t, w, stride=2), atol=3e-5)
case("max_pool2d", lambda t: t.max_pool2d((2, 2)), floats(2, 3, 9, 11),
     theirs=lambda t: F.max_pool2d(t, 2))
case("avg_pool2d", lambda t: t.avg_pool2d((3, 3), stride=2, padding=1), floats(2, 3, 9, 11),
     theirs=lambda t: F.avg_pool2d(t, 3, stride=2, padding=1))
case("scaled_dot_product_attention",
     lambda q, k, v: q.scaled_dot_product_attention(k, v, is_causal=True),
     floats(2, 3, 11, 8), floats(2, 3, 11, 8, seed=1), floats(2, 3, 11, 8, seed=2),
     theirs=lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))

# ---- normalisation and losses ----
case("layernorm", lambda t: t.layernorm(), x(), theirs=lambda t: F.layer_norm(t, (37,)),
     rtol=1e-4, atol=1e-5)
case("batchnorm", lambda t, w, b, m, v: t.batchnorm(w, b, m, (v + 1e-5).rsqrt()),
     floats(4, 3, 5, 5), floats(3, seed=1), floats(3, seed=2), floats(3, seed=3),
     floats(3, low=0.5, high=2, seed=4),
     theirs=lambda t, w, b, m, v: F.batch_norm(t, m, v, w, b), gradient=False)
_LABELS = integers(5, low=0, high=37, dtype="int64")
case("cross_entropy", lambda t, y: t.cross_entropy(y), x(), _LABELS, theirs=F.cross_entropy)
case("sparse_categorical_crossentropy", lambda t, y: t.sparse_categorical_crossentropy(y), x(),
     _LABELS, theirs=F.cross_entropy)
case("nll_loss", lambda t, y: t.log_softmax(1).nll_loss(y), x(), _LABELS,
     theirs=lambda t, y: F.nll_loss(t.log_softmax(1), y))
case("mse_loss", lambda a, b: a.mse_loss(b), x(), x(seed=1), theirs=F.mse_loss)
case("l1_loss", lambda a, b: a.l1_loss(b), x(), x(seed=1), theirs=F.l1_loss)
case("binary_crossentropy", lambda a, b: a.binary_crossentropy(b), x(0.1, 0.9),
     x(0, 1, seed=1), theirs=F.binary_cross_entropy)
case("binary_crossentropy_logits", lambda a, b: a.binary_crossentropy_logits(b), x(),
     x(0, 1, seed=1), theirs=F.binary_cross_entropy_with_logits)
