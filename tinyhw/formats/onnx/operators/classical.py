"""Trees, n-grams and thresholds: the domain ai.onnx.ml, as far as it has to do with numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from compiler.dtype import dtypes
from tinyhw.errors import NotSupported, ShapeError
from tinyhw.formats.onnx.registry import Call, operator
from tinyhw.formats.onnx.tensors import Array
from tinyhw.tensor import Tensor

ML = "ai.onnx.ml"


@operator("Binarizer", domain=ML)
def binarizer(call: Call, x: Tensor) -> Tensor:
    """1 above a threshold, else 0."""
    return (x > call.float("threshold", 0.0)).cast(x.dtype)


@operator("TfIdfVectorizer", since=9)
def tf_idf(call: Call, x: Tensor) -> Tensor:
    """How often each n-gram of a pool is there, with skips within it; x (batch, steps)."""
    if call.has("pool_strings"):
        raise NotSupported("TfIdfVectorizer of strings is not supported.")
    pool, places = call.ints("pool_int64s"), call.ints("ngram_indexes")
    starts = [*call.ints("ngram_counts"), len(pool)]
    shortest, longest = call.int("min_gram_length"), call.int("max_gram_length")
    skips, mode = call.int("max_skip_count"), call.string("mode")
    weights = call.floats("weights", [1.0] * len(places))
    rows = (x.unsqueeze(0) if x.ndim == 1 else x).cast(dtypes.int64)
    steps = rows._fixed(1)
    counts: list[Tensor] = []
    first = 0  # the number of the pool's first n-gram of this length
    for n, (start, end) in enumerate(itertools.pairwise(starts), start=1):
        grams = np.array(pool[start:end], np.int64).reshape(-1, n)
        chosen = slice(first, first + len(grams))
        first += len(grams)
        if not shortest <= n <= longest or not len(grams):
            continue
        total: Tensor | None = None
        for skip in range(skips + 1 if n > 1 else 1):
            span = (n - 1) * (skip + 1) + 1
            if span > steps:
                break
            windows = rows.pool_windows([n], 1, skip + 1)  # (batch, windows, n)
            same = windows.unsqueeze(2).eq(Tensor(grams, x.device)).all(-1)
            found = same.sum(1)
            total = found if total is None else total + found
        if total is not None:
            counts.append(_placed(total, places[chosen], weights[chosen], max(places) + 1, mode))
    if not counts:
        shape = (rows._fixed(0), max(places) + 1)
        result = Tensor.zeros(shape, dtype=dtypes.float32, device=x.device)
    else:
        result = counts[0]
        for other in counts[1:]:
            result = result + other
    return result.squeeze(0) if x.ndim == 1 else result


def _placed(
    counts: Tensor, places: list[int], weights: list[float], width: int, mode: str
) -> Tensor:
    """Counts of n-grams (batch, grams), weighted, at their places in the result."""
    if mode not in ("TF", "IDF", "TFIDF"):
        raise NotSupported(f"TfIdfVectorizer has no mode {mode!r}; there are TF, IDF and TFIDF.")
    values = counts.minimum(1) if mode == "IDF" else counts
    table = np.zeros((len(places), width), np.float32)
    table[np.arange(len(places)), places] = 1.0 if mode == "TF" else weights
    return values.cast(dtypes.float32).matmul(Tensor(table, counts.device))


_COMPARE: Final[tuple[Callable[[Tensor, Tensor], Tensor], ...]] = (
    lambda a, b: a <= b, lambda a, b: a < b, lambda a, b: a >= b, lambda a, b: a > b,
    lambda a, b: a.eq(b), lambda a, b: a.ne(b),
)
_MEMBER = 6


@operator("TreeEnsemble", domain=ML, since=5)
def tree_ensemble(call: Call, x: Tensor) -> Tensor:
    """What the leaves that each row of x reaches say, combined for each target."""
    trees = _Trees(call)
    at = trees.table(trees.roots, dtypes.int32).reshape((1, -1)).expand((x._fixed(0), -1))
    mode, split = trees.table(trees.modes), trees.table(trees.splits).cast(x.dtype)
    feature, yes, no = (trees.table(t) for t in (trees.features, trees.yes, trees.no))
    missing = trees.table(trees.missing)
    for _ in range(trees.depth):
        value, limit, kind = x.gather(1, feature[at]), split[at], mode[at]
        holds = kind.eq(_MEMBER) & value.unsqueeze(-1).eq(
            trees.table(trees.members).cast(x.dtype)[at]
        ).any(-1)
        for number, compare in enumerate(_COMPARE):
            holds = holds | (kind.eq(number) & compare(value, limit))
        holds = value.isnan().where(missing[at].ne(0), holds)
        at = holds.where(yes[at], no[at])
    leaf = at - trees.count
    weight = trees.table(trees.weights).cast(x.dtype)[leaf]
    target = trees.table(trees.targets)[leaf]
    targets = call.int("n_targets")
    hit = target.unsqueeze(-1).eq(Tensor.arange(targets, device=x.device))
    how = call.int("aggregate_function", 1)
    if how in (0, 1):
        found = hit.where(weight.unsqueeze(-1), 0).sum(1)
        found = found / len(trees.roots) if how == 0 else found
    elif how in (2, 3):
        nothing = float("inf") if how == 2 else float("-inf")
        found = hit.where(weight.unsqueeze(-1), nothing)
        found = found.min(1) if how == 2 else found.max(1)
    else:
        raise NotSupported(f"TreeEnsemble has no aggregate_function {how}; there are 0 to 3.")
    after = call.int("post_transform", 0)
    if after not in (0, 1, 2):
        raise NotSupported(f"TreeEnsemble's post_transform {after} is not supported; 0 to 2 are.")
    return found if after == 0 else found.softmax(-1) if after == 1 else found.sigmoid()


class _Trees:
    """The nodes of all trees in one table: inner nodes first, then leaves, which stay."""

    def __init__(self, call: Call) -> None:
        self.device = call.run.device
        self.roots = np.array(call.ints("tree_roots"), np.int32)
        self.features = np.array(call.ints("nodes_featureids"), np.int32)
        self.count = n = len(self.features)
        self.modes = self._stored(call, "nodes_modes").astype(np.int32)
        self.splits = self._stored(call, "nodes_splits")
        self.weights = self._stored(call, "leaf_weights")
        self.targets = np.array(call.ints("leaf_targetids"), np.int32)
        self.missing = np.array(call.ints("nodes_missing_value_tracks_true", [0] * n), np.int32)
        branches = []
        for way in ("true", "false"):
            to = np.array(call.ints(f"nodes_{way}nodeids"), np.int32)
            leafs = np.array(call.ints(f"nodes_{way}leafs"), np.int32)
            branches.append(np.where(leafs != 0, to + n, to))
        lengths = {len(t) for t in (self.modes, self.splits, self.missing, *branches)}
        leaves = len(self.weights)
        whole = np.concatenate([self.roots, *branches])
        if lengths != {n} or len(self.targets) != leaves or not n or (
            (whole < 0).any() or (whole >= n + leaves).any()
        ):
            raise ShapeError("The nodes of a TreeEnsemble contradict each other.")
        self.depth = self._depth(branches)
        stay = np.arange(n, n + leaves, dtype=np.int32)
        self.yes, self.no = (np.concatenate([b, stay]) for b in branches)
        self.members = self._members(call)
        for name in ("features", "modes", "missing", "splits"):
            table = getattr(self, name)
            setattr(self, name, np.concatenate([table, np.zeros(leaves, table.dtype)]))

    def table(self, array: Array, dtype: Any = None) -> Tensor:
        """A table on the device."""
        return Tensor(np.ascontiguousarray(array), self.device, dtype)

    @staticmethod
    def _stored(call: Call, name: str) -> Array:
        return call.run.array(call.run.stored(call.attributes[name])).reshape(-1)

    def _depth(self, branches: list[Array]) -> int:
        """The steps from a root to the farthest leaf; refuses trees with a circle."""
        reached = np.unique(self.roots[self.roots < self.count])
        for depth in range(self.count + 1):
            if not len(reached):
                return depth
            following = np.concatenate([b[reached] for b in branches])
            reached = np.unique(following[following < self.count])
        raise ShapeError("The nodes of a TreeEnsemble form a circle.")

    def _members(self, call: Call) -> Array:
        """The values that each node tests for, padded with NaN, (nodes, most)."""
        sets: list[list[float]] = [[]]
        if call.has("membership_values"):
            for value in self._stored(call, "membership_values"):
                if np.isnan(value):
                    sets.append([])
                else:
                    sets[-1].append(float(value))
        width = max(1, *map(len, sets))
        found = np.full((len(self.yes), width), np.nan, np.float32)
        testing = np.flatnonzero(self.modes == _MEMBER)
        if len(testing) > len(sets):
            raise ShapeError("A TreeEnsemble has fewer sets of members than nodes that test them.")
        for node, values in zip(testing, sets, strict=False):
            found[node, : len(values)] = values
        return found
