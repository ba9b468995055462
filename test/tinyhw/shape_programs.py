"""Random chains of movements of a Tensor beside NumPy's: for tests and for scripts/fuzz.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from compiler.ir import upper
from tinyhw import Tensor, Variable

Array = np.ndarray[Any, Any]
Both = tuple[Tensor, Array]
Step = Callable[[st.DataObject, Tensor, Array, int], Both]
MOST = 600
"""Elements."""

PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _at(array: Array, axis: int, part: Any) -> tuple[Any, ...]:
    return tuple(part if a == axis else slice(None) for a in range(array.ndim))


# Each of these moves along one axis, whose extent may be decided by a Variable.


def permute(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    order = data.draw(st.permutations(range(x.ndim)))
    return t.permute(*order), x.transpose(order)


def flip(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    return t.flip(axis), np.flip(x, axis)


def unsqueeze(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    return t.unsqueeze(axis), np.expand_dims(x, axis)


def flatten(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    end = data.draw(st.integers(axis, x.ndim - 1))
    shape = (*x.shape[:axis], int(np.prod(x.shape[axis : end + 1])), *x.shape[end + 1 :])
    return t.flatten(axis, end), x.reshape(shape)


def repeat(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    times = [2 if a == axis else 1 for a in range(x.ndim)]
    return t.repeat(*times), np.tile(x, times)


def interleave(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    return t.repeat_interleave(2, axis), x.repeat(2, axis)


def pad(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    before, after, value = (data.draw(st.integers(0, 2)) for _ in range(3))
    amounts = [(before, after) if a == axis else (0, 0) for a in range(x.ndim)]
    return t.pad(amounts, value=value), np.pad(x, amounts, constant_values=value)


def drop_first(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    if not x.shape[axis]:
        return t, x
    return t[_at(x, axis, slice(1, None))], x[_at(x, axis, slice(1, None))]


def last(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    if not x.shape[axis] or x.ndim == 1:
        return t, x
    return t[_at(x, axis, -1)], x[_at(x, axis, -1)]


def cat(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    return t.cat(t.flip(axis), dim=axis), np.concatenate((x, np.flip(x, axis)), axis)


def stack(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    return t.stack(t + 1, dim=axis), np.stack((x, x + 1), axis)


def triangle(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    if x.ndim < 2:
        return t, x
    diagonal = data.draw(st.integers(-2, 2))
    return t.tril(diagonal), np.tril(x, diagonal)


def store(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    return t.contiguous(), x


# And these where the extents are numbers.


def split_axis(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    n = x.shape[axis]
    by = data.draw(st.sampled_from([d for d in range(1, max(n, 1) + 1) if n % d == 0]))
    shape = (*x.shape[:axis], by, n // by, *x.shape[axis + 1 :])
    return t.unflatten(axis, (by, -1)) if n else t.reshape(shape), x.reshape(shape)


def pad_from_itself(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    mode = data.draw(st.sampled_from(sorted(PAD_MODES)))
    amounts = [(0, 0)] * x.ndim
    most = min(2, x.shape[axis] - (mode == "reflect"))
    if x.shape[axis]:
        amounts[axis] = data.draw(st.tuples(st.integers(0, most), st.integers(0, most)))
    return t.pad(amounts, mode), np.pad(x, amounts, PAD_MODES[mode])  # type: ignore[call-overload]


def crop(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    before, after = (-data.draw(st.integers(0, x.shape[axis] // 2)) for _ in range(2))
    amounts = [(before, after) if a == axis else (0, 0) for a in range(x.ndim)]
    return t.pad(amounts), x[_at(x, axis, slice(-before, x.shape[axis] + after))]


def roll(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    by = data.draw(st.integers(-7, 7))
    return t.roll(by, axis), np.roll(x, by, axis)


def stride(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    limit = st.none() | st.integers(-7, 7)
    step = data.draw(st.sampled_from([-3, -2, -1, 1, 2, 3]))
    part = _at(x, axis, slice(data.draw(limit), data.draw(limit), step))
    return t[part], x[part]


def positions(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    n = x.shape[axis]
    if not n:
        return t, x
    part = _at(x, axis, data.draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=4)))
    return t[part], x[part]


def windows(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    n = x.shape[axis]
    if not n:
        return t, x
    size, step = data.draw(st.integers(1, n)), data.draw(st.integers(1, 3))
    wide = np.lib.stride_tricks.sliding_window_view(x, size, axis)
    return t.unfold(axis, size, step), wide[_at(wide, axis, slice(None, None, step))]


def diagonal(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    if x.ndim < 2:
        return t, x
    other = (axis + 1) % x.ndim
    offset = data.draw(st.integers(-2, 2))
    return t.diagonal(offset, axis, other), np.diagonal(x, offset, axis, other)


def chunk(data: st.DataObject, t: Tensor, x: Array, axis: int) -> Both:
    n = x.shape[axis]
    size = data.draw(st.integers(1, max(n, 1)))
    which = data.draw(st.integers(0, max(0, -(-n // size) - 1)))
    return t.split(size, axis)[which], x[_at(x, axis, slice(which * size, (which + 1) * size))]


ALONG_ANY: list[Step] = [permute, flip, unsqueeze, flatten, repeat, interleave, pad, drop_first,
                         last, cat, stack, triangle, store]  # fmt: skip
ALONG_FIXED: list[Step] = [split_axis, pad_from_itself, crop, roll, stride, positions, windows,
                           diagonal, chunk]  # fmt: skip
VIEWS: list[Step] = [permute, flip, unsqueeze, flatten, drop_first, last, split_axis, stride, chunk]


def moved(data: st.DataObject, both: Both, steps: list[Step]) -> Both:
    """Some steps further."""
    for _ in range(data.draw(st.integers(1, 6))):
        t, x = both
        if not x.ndim or x.size > MOST:
            break
        both = data.draw(st.sampled_from(steps))(data, t, x, data.draw(st.integers(0, x.ndim - 1)))
    return both


def drawn(data: st.DataObject) -> Array:
    """Numbers that tell where they came from."""
    shape = data.draw(st.lists(st.integers(0, 5) | st.integers(1, 5), min_size=1, max_size=4))
    return np.arange(1, 1 + np.prod(shape), dtype=np.int32).reshape(shape)


def movements_are_numpys(data: st.DataObject) -> None:
    """Any chain gives what NumPy's gives."""
    x = drawn(data)
    t, expected = moved(data, (Tensor(x), x), ALONG_ANY + ALONG_FIXED)
    assert t.shape == expected.shape
    np.testing.assert_array_equal(t.numpy(), expected)


def variable_movements_are_numpys(data: st.DataObject) -> None:
    """One chain over a part gives what NumPy's gives, for several lengths of the part."""
    x = drawn(data)
    axis = data.draw(st.integers(0, x.ndim - 1))
    low = min(1, x.shape[axis])
    length = Variable("length", low, x.shape[axis])
    value = data.draw(st.integers(low, x.shape[axis]))
    t, expected = moved(
        data,
        (Tensor(x)[_at(x, axis, slice(0, length.bind(value)))], x[_at(x, axis, slice(0, value))]),
        ALONG_ANY,
    )
    whole = t.pad([(0, upper(n) - n) for n in t.shape]).numpy()
    np.testing.assert_array_equal(whole[tuple(map(slice, expected.shape))], expected)
    assert np.count_nonzero(whole) == np.count_nonzero(expected)


def writes_are_numpys(data: st.DataObject) -> None:
    """A write through any view changes what it changes in NumPy."""
    x = drawn(data)
    t = Tensor(x)
    view, expected = moved(data, (t, x), VIEWS)
    if expected.size and not np.shares_memory(x, expected):
        return  # NumPy's reshape has copied
    view.assign(view * 3 - 1)
    expected[...] = expected * 3 - 1
    np.testing.assert_array_equal(t.numpy(), x)
