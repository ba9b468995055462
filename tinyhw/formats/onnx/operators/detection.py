"""Boxes: which of them to keep, and what is in them."""

from __future__ import annotations

import math

import numpy as np

from tinyhw.errors import NotSupported, ShapeError
from tinyhw.formats.onnx.operators.resampling import between
from tinyhw.formats.onnx.registry import Call, int_list, operator
from tinyhw.formats.onnx.tensors import Array
from tinyhw.tensor import Tensor


@operator("NonMaxSuppression", host=(0, 1, 2, 3, 4))
def non_max_suppression(
    call: Call, boxes: Array, scores: Array, most: Array | None = None,
    overlap: Array | None = None, least: Array | None = None,
) -> Array:
    """The boxes of each class that overlap with none of a higher score, (count, 3).

    Each row is (batch, class, box). How many there are depends on values: they are read, and
    chosen on the host.
    """
    limit = 0 if most is None else int_list(most)[0]
    threshold = 0.0 if overlap is None else float(overlap.reshape(()))
    enough = -math.inf if least is None else float(least.reshape(()))
    if call.int("center_point_box", 0):
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        low, high = centre - half, centre + half
    else:
        low, high = np.minimum(boxes[..., :2], boxes[..., 2:]), np.maximum(
            boxes[..., :2], boxes[..., 2:]
        )
    areas = (high - low).prod(-1)
    chosen: list[tuple[int, int, int]] = []
    for batch, kind in np.ndindex(scores.shape[:2]):
        mine = scores[batch, kind]
        order = np.argsort(-mine, kind="stable")
        order = order[mine[order] > enough]
        kept = 0
        while len(order) and kept < limit:
            best, order = order[0], order[1:]
            chosen.append((batch, kind, int(best)))
            kept += 1
            shared = np.minimum(high[batch, order], high[batch, best]) - np.maximum(
                low[batch, order], low[batch, best]
            )
            both = np.maximum(shared, 0).prod(-1)
            union = areas[batch, order] + areas[batch, best] - both
            order = order[~(both > threshold * union)]
    return np.array(chosen, np.int64).reshape(-1, 3)


@operator("RoiAlign", host=(1, 2))
def roi_align(call: Call, x: Tensor, rois: Array, images: Array) -> Tensor:
    """Each region of interest as a grid of bins, of which each is read at some points."""
    bins = (call.int("output_height", 1), call.int("output_width", 1))
    default = "output_half_pixel" if call.version < 16 else "half_pixel"
    half = call.string("coordinate_transformation_mode", default) == "half_pixel"
    mode, ratio = call.string("mode", "avg"), call.int("sampling_ratio", 0)
    if mode not in ("avg", "max"):
        raise NotSupported(f"RoiAlign has no mode {mode!r}; there are avg and max.")
    spatial = list(x._fixed_shape()[2:])
    if len(spatial) != 2 or rois.ndim != 2 or rois.shape[1] != 4:
        raise ShapeError(f"RoiAlign of {x.shape} with regions of {rois.shape}.")
    parts = []
    for roi, image in zip(rois, int_list(images), strict=True):
        ends = roi.astype(np.float64) * call.float("spatial_scale", 1.0) - (0.5 if half else 0)
        places, inside, counts = [], [], []
        for axis in range(2):  # the region is (x1, y1, x2, y2)
            low, high = ends[1 - axis], ends[3 - axis]
            size = high - low if half else max(high - low, 1.0)
            step = size / bins[axis]
            count = ratio or max(math.ceil(step), 1)
            at = low + (np.arange(bins[axis] * count) + 0.5) * step / count
            counts.append(count)
            inside.append((at >= -1) & (at <= spatial[axis]))
            places.append(np.clip(at, 0, spatial[axis] - 1))
        shape = (1, len(places[0]), len(places[1]))
        rows, columns = np.broadcast_arrays(places[0][:, None], places[1][None])
        taps = [
            between(Tensor(p.astype(np.float32), x.device).cast(x.dtype).reshape(shape))
            for p in (rows, columns)
        ]
        valid = Tensor((inside[0][:, None] & inside[1][None]).reshape((1, 1, *shape[1:])), x.device)
        channels = x._fixed(1)
        cut = (1, channels, bins[0], counts[0], bins[1], counts[1])
        picture = x[image : image + 1]
        if mode == "avg":
            found = valid.where(picture._at_taps(taps, spatial), 0)
            parts.append(found.reshape(cut).mean((3, 5)))
        else:  # the greatest of all weighted neighbours
            each = [
                valid.where(picture._at_taps([[row], [column]], spatial), 0).reshape(cut)
                for row in taps[0] for column in taps[1]
            ]
            best = each[0]
            for other in each[1:]:
                best = best.maximum(other)
            parts.append(best.max((3, 5)))
    if not parts:
        return Tensor.zeros((0, x._fixed(1), *bins), dtype=x.dtype, device=x.device)
    return parts[0].cat(*parts[1:], dim=0)


