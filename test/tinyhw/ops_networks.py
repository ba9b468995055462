"""The op table: products, windows, normalisation, attention, losses."""

from __future__ import annotations

import numpy as np

from test.tinyhw.compare import floats, integers
from test.tinyhw.op_table import F, case, positions, variant, x

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
for _rank, _name in ((1, "conv1d"), (2, "conv2d"), (3, "conv3d")):
    for _padding in (0, 1, "same"):
        for _dilation in (1, 2):
            variant(f"conv over {_rank} axes, padding {_padding}, dilation {_dilation}",
                    lambda t, w, p=_padding, d=_dilation: t.conv2d(w, padding=p, dilation=d),
                    floats(2, 2, *(7, 6, 5)[:_rank]), floats(3, 2, *(3, 2, 2)[:_rank], seed=1),
                    theirs=lambda t, w, n=_name, p=_padding, d=_dilation: getattr(F, n)(
                        t, w, padding=p, dilation=d), atol=3e-5)
    variant(f"transposed conv over {_rank} axes",
            lambda t, w, b: t.conv_transpose2d(w, b, groups=2, stride=2, padding=1, dilation=2,
                                               output_padding=1),
            floats(2, 4, *(5, 4, 3)[:_rank]), floats(4, 3, *(3, 2, 2)[:_rank], seed=1),
            floats(6, seed=2), atol=3e-5,
            theirs=lambda t, w, b, n=_rank: getattr(F, f"conv_transpose{n}d")(
                t, w, b, groups=2, stride=2, padding=1, dilation=2, output_padding=1))
variant("conv2d padded unevenly", lambda t, w: t.conv2d(w, padding=(1, 0, 2, 1)),
        floats(1, 2, 5, 6), floats(3, 2, 3, 3, seed=1),
        theirs=lambda t, w: F.conv2d(F.pad(t, (1, 0, 2, 1)), w), atol=3e-5)
variant("depthwise conv2d", lambda t, w: t.conv2d(w, groups=4, stride=(2, 1)), floats(2, 4, 7, 6),
        floats(4, 1, 3, 2, seed=1), atol=3e-5,
        theirs=lambda t, w: F.conv2d(t, w, groups=4, stride=(2, 1)))
variant("conv2d of halves", lambda t, w: t.conv2d(w), floats(1, 3, 6, 6).astype(np.float16),
        floats(4, 3, 3, 3, seed=1).astype(np.float16), theirs=F.conv2d, gradient=False,
        rtol=4e-3, atol=4e-3)

# ---- pooling ----
for _options in (
    {"stride": 2, "padding": 1}, {"dilation": 2}, {"ceil_mode": True, "stride": 2},
    {"ceil_mode": True, "padding": 1},
):  # fmt: skip
    variant(f"max_pool2d {_options} with positions",
            lambda t, o=_options: t.max_pool2d((3, 2), return_indices=True, **o),
            floats(2, 3, 9, 8), theirs=lambda t, o=_options: positions(
                F.max_pool2d(t, (3, 2), return_indices=True, **o)))
for _options in (
    {"ceil_mode": True, "stride": 2}, {"padding": 1, "count_include_pad": False},
    {"ceil_mode": True, "padding": 1},
    {"ceil_mode": True, "padding": 1, "count_include_pad": False},
):  # fmt: skip
    variant(f"avg_pool2d {_options}", lambda t, o=_options: t.avg_pool2d((3, 2), **o),
            floats(2, 3, 9, 8), theirs=lambda t, o=_options: F.avg_pool2d(t, (3, 2), **o))
for _rank in (1, 3):
    for _kind in ("max", "avg"):
        variant(f"{_kind} pool over {_rank} axes",
                lambda t, k=_kind, r=_rank: getattr(t, f"{k}_pool2d")((2,) * r, stride=2),
                floats(2, 2, *(5, 4, 4)[:_rank]),
                theirs=lambda t, k=_kind, r=_rank: getattr(F, f"{k}_pool{r}d")(t, 2, stride=2))
variant("max_pool2d of infinities and NaN", lambda t: t.max_pool2d(2),
        np.array([[[[1, np.nan, -np.inf, -np.inf], [2, 3, -np.inf, -np.inf]]]], np.float32),
        theirs=lambda t: F.max_pool2d(t, 2), gradient=False)
case("max_unpool2d", lambda t: (lambda r: r[0].max_unpool2d(r[1]))(
         t.max_pool2d(2, return_indices=True)), floats(2, 3, 8, 6),
     theirs=lambda t: F.max_unpool2d(*F.max_pool2d(t, 2, return_indices=True), 2))
variant("max_unpool2d to a size", lambda t: (lambda r: r[0].max_unpool2d(r[1], output_size=(9, 7)))(
            t.max_pool2d(2, return_indices=True)), floats(2, 3, 9, 7),
        theirs=lambda t: F.max_unpool2d(*F.max_pool2d(t, 2, return_indices=True), 2,
                                        output_size=(9, 7)))
case("lp_pool2d", lambda t: t.lp_pool2d(3, 2), floats(2, 3, 8, 7, low=0.1),
     theirs=lambda t: F.lp_pool2d(t, 3, 2), rtol=1e-4)
case("adaptive_avg_pool2d", lambda t: t.adaptive_avg_pool2d((4, 5)), floats(2, 3, 9, 11),
     theirs=lambda t: F.adaptive_avg_pool2d(t, (4, 5)))
case("adaptive_max_pool2d", lambda t: t.adaptive_max_pool2d((None, 2)), floats(2, 3, 9, 11),
     theirs=lambda t: F.adaptive_max_pool2d(t, (None, 2)))

# ---- resampling ----
case("interpolate", lambda t: t.interpolate((5, 17), "bilinear"), floats(2, 3, 9, 11),
     theirs=lambda t: F.interpolate(t, (5, 17), mode="bilinear"))
for _mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area"):
    variant(f"interpolate {_mode}", lambda t, m=_mode: t.interpolate((12, 6), m),
            floats(2, 3, 9, 11), theirs=lambda t, m=_mode: F.interpolate(t, (12, 6), mode=m),
            atol=1e-5)
    variant(f"interpolate {_mode} by a factor",
            lambda t, m=_mode: t.interpolate(mode=m, scale_factor=1.7), floats(1, 2, 5, 4),
            theirs=lambda t, m=_mode: F.interpolate(t, scale_factor=1.7, mode=m), atol=1e-5)
for _mode in ("bilinear", "bicubic"):
    variant(f"interpolate {_mode}, corners aligned",
            lambda t, m=_mode: t.interpolate((12, 1), m, align_corners=True), floats(1, 2, 5, 4),
            theirs=lambda t, m=_mode: F.interpolate(t, (12, 1), mode=m, align_corners=True),
            atol=1e-5)
variant("interpolate linear", lambda t: t.interpolate((7,)), floats(2, 3, 5),
        theirs=lambda t: F.interpolate(t, 7, mode="linear"))
variant("interpolate trilinear", lambda t: t.interpolate((7, 2, 3), "trilinear"),
        floats(2, 1, 5, 3, 2), theirs=lambda t: F.interpolate(t, (7, 2, 3), mode="trilinear"))
case("pixel_shuffle", lambda t: t.pixel_shuffle(2), floats(2, 8, 3, 4),
     theirs=lambda t: F.pixel_shuffle(t, 2))
case("pixel_unshuffle", lambda t: t.pixel_unshuffle(2), floats(2, 2, 6, 4),
     theirs=lambda t: F.pixel_unshuffle(t, 2))

# ---- attention ----
case("scaled_dot_product_attention",
     lambda q, k, v: q.scaled_dot_product_attention(k, v, is_causal=True),
     floats(2, 3, 11, 8), floats(2, 3, 11, 8, seed=1), floats(2, 3, 11, 8, seed=2),
     theirs=lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))

_Q, _K, _V = floats(2, 3, 11, 8), floats(2, 3, 9, 8, seed=1), floats(2, 3, 9, 5, seed=2)
_ATTEND = floats(11, 9, seed=4) > -1
_ATTEND[3] = False
for _label, _options in (
    ("without a mask", {}), ("with a scale", {"scale": 0.1}), ("causal", {"is_causal": True}),
):  # fmt: skip
    variant(f"attention {_label}",
            lambda q, k, v, o=_options: q.scaled_dot_product_attention(k, v, **o), _Q, _K, _V,
            theirs=lambda q, k, v, o=_options: F.scaled_dot_product_attention(q, k, v, **o))
for _label, _mask in (("a bool mask", _ATTEND), ("a float mask", floats(3, 11, 9, seed=5))):
    variant(f"attention with {_label}",
            lambda q, k, v, m: q.scaled_dot_product_attention(k, v, attn_mask=m), _Q, _K, _V, _mask,
            theirs=lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m))
variant("attention of grouped heads",
        lambda q, k, v: q.scaled_dot_product_attention(k, v, enable_gqa=True),
        floats(2, 6, 5, 8), floats(2, 2, 7, 8, seed=1), floats(2, 2, 7, 8, seed=2),
        theirs=lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
variant("attention of halves", lambda q, k, v: q.scaled_dot_product_attention(k, v),
        *(t.astype(np.float16) for t in (_Q, _K, _V)), gradient=False, rtol=4e-3, atol=2e-3,
        theirs=F.scaled_dot_product_attention)

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
_SIGNS = np.where(x(seed=5) > 0, 1, -1).astype(np.float32)
for _reduction in ("mean", "sum", "none"):
    for _name, _call, _theirs, *_inputs in (
        ("mse_loss", "mse_loss", F.mse_loss, x(), x(seed=1)),
        ("smooth_l1_loss", "smooth_l1_loss", F.smooth_l1_loss, x(), x(seed=1)),
        ("huber_loss", "huber_loss", F.huber_loss, x(), x(seed=1)),
        ("kl_div", "kl_div", F.kl_div, x(-3, -0.1), x(0.1, 1, seed=1)),
        ("poisson_nll_loss", "poisson_nll_loss", F.poisson_nll_loss, x(), x(0, 5, seed=1).round()),
        ("hinge_embedding_loss", "hinge_embedding_loss", F.hinge_embedding_loss, x(), _SIGNS),
        ("bce", "binary_crossentropy", F.binary_cross_entropy, x(0.1, 0.9), x(0, 1, seed=1)),
        ("bce of logits", "binary_crossentropy_logits", F.binary_cross_entropy_with_logits, x(),
         x(0, 1, seed=1)),
        ("cross_entropy", "cross_entropy", F.cross_entropy, x(), _LABELS),
        ("gaussian_nll_loss", "gaussian_nll_loss", F.gaussian_nll_loss, x(), x(seed=1),
         x(0.1, 2, seed=2)),
        ("margin_ranking_loss", "margin_ranking_loss", F.margin_ranking_loss, x(), x(seed=1),
         _SIGNS),
        ("triplet_margin_loss", "triplet_margin_loss", F.triplet_margin_loss, x(), x(seed=1),
         x(seed=2)),
        ("cosine_embedding_loss", "cosine_embedding_loss", F.cosine_embedding_loss, x(), x(seed=1),
         _SIGNS[:, 0]),
    ):
        variant(f"{_name}, {_reduction}",
                lambda *t, n=_call, r=_reduction: getattr(t[0], n)(*t[1:], reduction=r), *_inputs,
                theirs=lambda *t, f=_theirs, r=_reduction: f(*t, reduction=r))
for _name, _call, _theirs in (
    ("smooth_l1_loss with beta", lambda a, b: a.smooth_l1_loss(b, beta=0.3),
     lambda a, b: F.smooth_l1_loss(a, b, beta=0.3)),
    ("huber_loss with delta", lambda a, b: a.huber_loss(b, delta=0.3),
     lambda a, b: F.huber_loss(a, b, delta=0.3)),
    ("kl_div of logarithms", lambda a, b: a.kl_div(b, "batchmean", log_target=True),
     lambda a, b: F.kl_div(a, b, reduction="batchmean", log_target=True)),
    ("triplet_margin_loss swapped", lambda a, b: a.triplet_margin_loss(b, b.flip(0), swap=True),
     lambda a, b: F.triplet_margin_loss(a, b, b.flip(0), swap=True)),
    ("bce of logits with weights",
     lambda a, b: a.binary_crossentropy_logits(
         b.abs(), pos_weight=b[0].abs().detach(), weight=a[0].abs().detach()),
     lambda a, b: F.binary_cross_entropy_with_logits(
         a, b.abs(), pos_weight=b[0].abs().detach(), weight=a[0].abs().detach())),
    ("soft_margin_loss", lambda a, b: a.soft_margin_loss(b.detach().sign()) + 0 * b.sum(),
     lambda a, b: F.soft_margin_loss(a, b.detach().sign()) + 0 * b.sum()),
    ("cross_entropy of probabilities",
     lambda a, b: a.cross_entropy(b.softmax(1), label_smoothing=0.1),
     lambda a, b: F.cross_entropy(a, b.softmax(1), label_smoothing=0.1)),
):
    variant(_name, _call, x(), x(seed=1), theirs=_theirs)
variant("poisson_nll_loss in full", lambda a, b: a.poisson_nll_loss(b, log_input=False, full=True),
        x(0.1, 4), x(0, 5, seed=1).round(), gradient=False,
        theirs=lambda a, b: F.poisson_nll_loss(a, b, log_input=False, full=True))
_OF_CLASSES = floats(37, seed=5, low=0.2, high=2)
variant("cross_entropy with smoothing and a weight", lambda a, y, w: a.cross_entropy(
            y, label_smoothing=0.2, weight=w.detach(), ignore_index=1), x(), _LABELS, _OF_CLASSES,
        theirs=lambda a, y, w: F.cross_entropy(
            a, y, w.detach(), label_smoothing=0.2, ignore_index=1))
variant("cross_entropy of probabilities with a weight", lambda a, b, w: a.cross_entropy(
            b.softmax(1), label_smoothing=0.1, weight=w.detach()), x(), x(seed=1), _OF_CLASSES,
        theirs=lambda a, b, w: F.cross_entropy(a, b.softmax(1), w.detach(), label_smoothing=0.1))
variant("cross_entropy with smoothing", lambda a, y: a.cross_entropy(y, label_smoothing=0.2), x(),
        _LABELS, theirs=lambda a, y: F.cross_entropy(a, y, label_smoothing=0.2))
variant("cross_entropy with weights",
        lambda a, y: a.cross_entropy(y, weight=a[0].detach().abs(), ignore_index=int(_LABELS[0])),
        x(), _LABELS, theirs=lambda a, y: F.cross_entropy(
            a, y, weight=a[0].detach().abs(), ignore_index=int(_LABELS[0])))
variant("cross_entropy of images", lambda a, y: a.cross_entropy(y), floats(2, 4, 3, 5),
        integers(2, 3, 5, low=0, high=4, dtype="int64"), theirs=F.cross_entropy)
