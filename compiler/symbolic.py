"""Integer index arithmetic: every expression is kept in one simplified form as it is built.

An index is a sum of terms with integer coefficients and a constant (`linear`). Division and
remainder are towards minus infinity with a positive divisor. Conditions are bool nodes.
`bounds` gives the interval in which a node's value lies; most simplifications follow from it.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

from compiler.dtype import dtypes
from compiler.ir import Extent, Node, Op, index, toposort

Terms: TypeAlias = dict[Node, int]

TRUE = Node(Op.CONST, dtypes.bool, (), True)
FALSE = Node(Op.CONST, dtypes.bool, (), False)


# ---- the interval of a value ----


def bounds(node: Node) -> tuple[int, int]:
    """The least and greatest value of an integer or bool node (what its dtype holds, at most)."""
    try:
        return node._bounds
    except AttributeError:
        pass
    for below in toposort(node, lambda n: not hasattr(n, "_bounds")):
        if not hasattr(below, "_bounds"):
            below._bounds = _bounds_of(below)
    return node._bounds


def _bounds_of(node: Node) -> tuple[int, int]:
    match node.op:
        case Op.CONST:
            if isinstance(node.arg, float):
                return (0, 0)
            return (int(node.arg), int(node.arg))
        case Op.VARIABLE:
            return (node.arg[1], node.arg[2])
        case Op.RANGE | Op.LOOP:
            stop = node.src[0] if node.op is Op.RANGE else node.src[1]
            low = 0 if node.op is Op.RANGE else node.src[0]._bounds[0]
            return (low, max(low, stop._bounds[1] - 1))
        case Op.IOTA:
            return (0, max(0, (node.arg if isinstance(node.arg, int) else bounds(node.arg)[1]) - 1))
        case Op.GRID | Op.THREAD:
            return (0, node.src[0]._bounds[1] - 1 if node.src else (1 << 32) - 1)
        case Op.BIND | Op.BROADCAST | Op.DETACH:
            return node.src[0]._bounds
        case _ if node.dtype.kind == "f" or node.dtype is dtypes.void:
            return (0, 0)
        case Op.ADD | Op.MUL | Op.IDIV | Op.MOD | Op.MAX if node.dtype is dtypes.index:
            return _arithmetic_bounds(node.op, node.src[0]._bounds, node.src[1]._bounds)
        case Op.WHERE:
            _, (a, b), (c, d) = (s._bounds for s in node.src)
            return (min(a, c), max(b, d))
        case Op.CAST if node.src[0].dtype.kind != "f":
            low, high = node.src[0]._bounds
            if node.dtype.min <= low and high <= node.dtype.max:
                return (low, high)
        case _:
            pass
    return (int(node.dtype.min), int(node.dtype.max))


def _arithmetic_bounds(op: Op, a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    match op:
        case Op.ADD:
            return (a[0] + b[0], a[1] + b[1])
        case Op.MUL:
            corners = [x * y for x in a for y in b]
            return (min(corners), max(corners))
        case Op.MAX:
            return (max(a[0], b[0]), max(a[1], b[1]))
        case Op.IDIV:
            divisors = (max(1, b[0]), max(1, b[1]))
            corners = [x // y for x in a for y in divisors]
            return (min(corners), max(corners))
        case _:
            if a[0] >= 0 and a[1] < b[0]:
                return a
            return (0, max(0, b[1] - 1))


# ---- sums of terms ----


def linear(node: Node) -> tuple[Terms, int]:
    """The node as {term: coefficient} and a constant; do not change the result."""
    try:
        return node._linear
    except AttributeError:
        pass
    terms: Terms = {}
    constant = 0
    for part in _addends(node):
        if part.op is Op.CONST:
            constant += int(part.arg)
        elif part.op is Op.MUL and part.src[1].op is Op.CONST:
            _accumulate(terms, part.src[0], int(part.src[1].arg))
        else:
            _accumulate(terms, part, 1)
    node._linear = (terms, constant)
    return node._linear


def _addends(node: Node) -> list[Node]:
    found, todo = [], [node]
    while todo:
        n = todo.pop()
        if n.op is Op.ADD and n.dtype is dtypes.index:
            todo.extend((n.src[1], n.src[0]))
        else:
            found.append(n)
    return found


def _accumulate(terms: Terms, term: Node, coefficient: int) -> None:
    total = terms.get(term, 0) + coefficient
    if total:
        terms[term] = total
    else:
        terms.pop(term, None)


def _order(term: Node) -> tuple[int, int, bytes]:
    """A sorting key that is the same in every process."""
    if term.op is Op.RANGE:
        return (0, term.arg[0], b"")
    if term.op is Op.LOOP:
        return (1, term.arg, b"")
    return (2, 0, term.digest)


def from_linear(terms: Mapping[Node, int], constant: int) -> Node:
    """The node of a sum, in the order that makes equal sums one node."""
    terms, constant = _recombine(terms, constant)
    result: Node | None = None
    for term in sorted(terms, key=_order):
        factor = terms[term]
        part = term if factor == 1 else Node(Op.MUL, dtypes.index, (term, index(factor)))
        result = part if result is None else Node(Op.ADD, dtypes.index, (result, part))
    if result is None:
        return index(constant)
    if constant:
        result = Node(Op.ADD, dtypes.index, (result, index(constant)))
    if not hasattr(result, "_linear"):
        result._linear = (dict(terms), constant)
    return result


def _recombine(terms: Mapping[Node, int], constant: int) -> tuple[Mapping[Node, int], int]:
    """(x // d)*d*c + (x % d)*c is x*c."""
    for term, factor in terms.items():
        if term.op is not Op.MOD or term.src[1].op is not Op.CONST:
            continue
        x, d = term.src[0], int(term.src[1].arg)
        parts, added = linear(idiv(x, index(d)))
        if len(parts) != 1:
            continue
        ((whole, scale),) = parts.items()
        if terms.get(whole) == factor * d * scale:
            rest = {t: f for t, f in terms.items() if t is not term and t is not whole}
            x_terms, x_constant = linear(x)
            for t, f in x_terms.items():
                _accumulate(rest, t, f * factor)
            return _recombine(rest, constant + factor * (x_constant - d * added))
    return terms, constant


def add(a: Node, b: Node) -> Node:
    """a + b."""
    if a.op is Op.CONST and b.op is Op.CONST:
        return index(a.arg + b.arg)
    (ta, ca), (tb, cb) = linear(a), linear(b)
    terms = dict(ta)
    for term, factor in tb.items():
        _accumulate(terms, term, factor)
    return from_linear(terms, ca + cb)


def mul(a: Node, b: Node) -> Node:
    """a * b; products are multiplied out."""
    (ta, ca), (tb, cb) = linear(a), linear(b)
    if not ta:
        return from_linear({t: f * ca for t, f in tb.items()} if ca else {}, ca * cb)
    if not tb:
        return from_linear({t: f * cb for t, f in ta.items()} if cb else {}, ca * cb)
    terms: Terms = {}
    for x, fx in ta.items():
        for y, fy in tb.items():
            _accumulate(terms, _product(x, y), fx * fy)
    for term, factor in ta.items():
        if cb:
            _accumulate(terms, term, factor * cb)
    for term, factor in tb.items():
        if ca:
            _accumulate(terms, term, factor * ca)
    return from_linear(terms, ca * cb)


def _factors(term: Node) -> list[Node]:
    if term.op is Op.MUL and term.src[1].op is not Op.CONST:
        return _factors(term.src[0]) + _factors(term.src[1])
    return [term]


def _product(x: Node, y: Node) -> Node:
    factors = sorted(_factors(x) + _factors(y), key=_order)
    result = factors[0]
    for factor in factors[1:]:
        result = Node(Op.MUL, dtypes.index, (result, factor))
    return result


def _interval(terms: Mapping[Node, int], constant: int) -> tuple[int, int]:
    low = high = constant
    for term, factor in terms.items():
        a, b = bounds(term)
        low += factor * (a if factor > 0 else b)
        high += factor * (b if factor > 0 else a)
    return low, high


# ---- division ----

# What is negative is made positive before it is divided, by adding this much at most: a position
# read from memory as int64 has no bound of its own, and adding 2**63 to it would overflow.
_LEAST = -(1 << 62)


def idiv(a: Node, b: Node) -> Node:
    """a // b for b > 0, rounding down."""
    if b.op is not Op.CONST:
        return _divide_symbolic(a, b)[0]
    d = int(b.arg)
    if d <= 0:
        raise ZeroDivisionError(f"index divided by {d}; a divisor must be positive")
    if d == 1:
        return a
    terms, constant = linear(a)
    whole = {t: f // d for t, f in terms.items() if f % d == 0}
    rest = {t: f for t, f in terms.items() if f % d}
    quotient, constant = divmod(constant, d)
    low, high = _interval(rest, constant)
    low = max(low, _LEAST)
    quotient, constant = quotient + low // d, constant - low // d * d
    if low // d == high // d:
        return from_linear(whole, quotient)
    return add(from_linear(whole, quotient), _divide_rest(rest, constant, d))


def _divide_rest(rest: Terms, constant: int, d: int) -> Node:
    """A sum that is never negative and has no multiple of d in it, divided by d."""
    for g in sorted({math.gcd(f, d) for f in rest.values()} - {1}, reverse=True):
        parts = _split_multiples(rest, constant, g)
        if parts is not None:
            return idiv(from_linear(*parts[0]), index(d // g))
    if len(rest) == 1 and constant == 0:
        ((term, factor),) = rest.items()
        if factor == 1 and term.op is Op.IDIV and term.src[1].op is Op.CONST:
            return idiv(term.src[0], index(d * int(term.src[1].arg)))
        if factor == 1 and term.op is Op.MOD and term.src[1].op is Op.CONST:
            m = int(term.src[1].arg)
            if m % d == 0:
                return mod(idiv(term.src[0], index(d)), index(m // d))
    return Node(Op.IDIV, dtypes.index, (from_linear(rest, constant), index(d)))


def _split_multiples(
    rest: Terms, constant: int, g: int
) -> tuple[tuple[Terms, int], tuple[Terms, int]] | None:
    """The sum as g*X + r with 0 <= r < g everywhere: (X, r), or None."""
    small = {t: f for t, f in rest.items() if f % g}
    quotient, left = divmod(constant, g)
    low, high = _interval(small, left)
    if low < 0 or high >= g:
        return None
    return ({t: f // g for t, f in rest.items() if f % g == 0}, quotient), (small, left)


def mod(a: Node, b: Node) -> Node:
    """a % b for b > 0, never negative."""
    if b.op is not Op.CONST:
        return _divide_symbolic(a, b)[1]
    d = int(b.arg)
    if d <= 0:
        raise ZeroDivisionError(f"index modulo {d}; a divisor must be positive")
    if d == 1:
        return index(0)
    terms, constant = linear(a)
    rest = {t: f for t, f in terms.items() if f % d}
    constant %= d
    low, high = _interval(rest, constant)
    low = max(low, _LEAST)
    constant -= low // d * d
    if low // d == high // d:
        return from_linear(rest, constant)
    for g in sorted({math.gcd(f, d) for f in rest.values()} - {1}, reverse=True):
        parts = _split_multiples(rest, constant, g)
        if parts is not None:
            big = mod(from_linear(*parts[0]), index(d // g))
            return add(mul(big, index(g)), from_linear(*parts[1]))
    if len(rest) == 1 and constant == 0:
        ((term, factor),) = rest.items()
        if factor == 1 and term.op is Op.MOD and term.src[1].op is Op.CONST:
            if int(term.src[1].arg) % d == 0:
                return mod(term.src[0], b)
    return Node(Op.MOD, dtypes.index, (from_linear(rest, constant), b))


def _divide_symbolic(a: Node, b: Node) -> tuple[Node, Node]:
    """Quotient and remainder by a divisor with Variables in it: a division of polynomials."""
    lead, scale = max(linear(b)[0].items(), key=lambda item: (len(_factors(item[0])), item[1]))
    whole, rest = index(0), a
    while (quotient := _quotient(rest, lead, scale)) is not None:
        whole, rest = add(whole, quotient), add(rest, mul(quotient, mul(b, index(-1))))
    if _is_below(rest, b):
        return whole, rest
    if bounds(rest)[0] < 0:  # machines divide what is negative otherwise
        whole, rest = index(0), a
    quotient_rest = Node(Op.IDIV, dtypes.index, (rest, b))
    return add(whole, quotient_rest), Node(Op.MOD, dtypes.index, (rest, b))


def _quotient(a: Node, lead: Node, scale: int) -> Node | None:
    """The first term of `a` that `scale * lead` divides, divided by it."""
    for term, factor in linear(a)[0].items():
        left = _factors(term)
        if factor % scale == 0 and all(left.count(f) >= n for f, n in _counted(lead)):
            for f in _factors(lead):
                left.remove(f)
            return functools.reduce(mul, left, index(factor // scale))
    return None


def _counted(term: Node) -> list[tuple[Node, int]]:
    return list(Counter(_factors(term)).items())


def _is_below(x: Node, limit: Node) -> bool:
    """Whether 0 <= x < limit certainly holds for a limit with Variables in it."""
    if bounds(x)[0] < 0:
        return False
    terms, constant = linear(x)
    most: Node = index(constant)
    for term, factor in terms.items():
        factors = _factors(term)
        if any(bounds(f)[0] < 0 for f in factors):
            return False
        if factor > 0:  # at the last position of each RANGE
            most = add(most, functools.reduce(mul, map(_last, factors), index(factor)))
    return bounds(add(limit, mul(most, index(-1))))[0] > 0


def _last(factor: Node) -> Node:
    return add(factor.src[0], index(-1)) if factor.op is Op.RANGE else factor


# ---- conditions ----


def less(a: Node, b: Node) -> Node:
    """a < b, as `terms < constant` with common factors taken out."""
    terms, constant = linear(add(a, mul(b, index(-1))))
    low, high = _interval(terms, constant)
    if high < 0:
        return TRUE
    if low >= 0:
        return FALSE
    g = math.gcd(*terms.values())
    # g*X + c < 0  <=>  X < -c/g  <=>  X < ceil(-c/g)
    limit = -(constant // g)
    left = from_linear({t: f // g for t, f in terms.items()}, 0)
    return Node(Op.CMPLT, dtypes.bool, (left, index(limit)))


def conjunction(a: Node, b: Node) -> Node:
    """a and b, for conditions."""
    if a is FALSE or b is FALSE:
        return FALSE
    parts = sorted({*_conditions(a), *_conditions(b)} - {TRUE}, key=lambda n: n.digest)
    result: Node | None = None
    for part in parts:
        result = part if result is None else Node(Op.AND, dtypes.bool, (result, part))
    return TRUE if result is None else result


def _conditions(node: Node) -> list[Node]:
    if node.op is Op.AND:
        return _conditions(node.src[0]) + _conditions(node.src[1])
    return [node]


def minimum(a: Node, b: Node) -> Node:
    """The lesser of two indices."""
    condition = less(a, b)
    if condition is TRUE:
        return a
    if condition is FALSE:
        return b
    return Node(Op.WHERE, dtypes.index, (condition, a, b))


def product(extents: tuple[Extent, ...]) -> Node:
    """The product of extents as an index node."""
    result = index(1)
    for extent in extents:
        result = mul(result, index(extent))
    return result


def simplify(node: Node) -> Node:
    """An index or condition node built again from its leaves in simplified form."""
    return rebuild(node, {})


def rebuild(root: Node, replacements: Mapping[Node, Node]) -> Node:
    """`root` with nodes replaced and index arithmetic simplified on the way up."""
    done: dict[Node, Node] = dict(replacements)
    for node in toposort(root, lambda n: n not in replacements):
        if node not in done:
            done[node] = with_sources(node, tuple(done[s] for s in node.src))
    return done[root]


def with_sources(node: Node, src: tuple[Node, ...]) -> Node:
    """`node` on other sources, simplified if it is index arithmetic on scalars."""
    if node.shape:
        return node.with_src(src)
    if node.dtype is dtypes.index and node.op in _CONSTRUCTORS:
        return _CONSTRUCTORS[node.op](*src)
    if node.op is Op.CMPLT and src[0].dtype is dtypes.index:
        return less(*src)
    if node.op is Op.AND and node.dtype is dtypes.bool:
        return conjunction(*src)
    if node.op is Op.WHERE and src[0] in (TRUE, FALSE):
        return src[1] if src[0] is TRUE else src[2]
    return node.with_src(src)


_CONSTRUCTORS = {Op.ADD: add, Op.MUL: mul, Op.IDIV: idiv, Op.MOD: mod}


def evaluate(node: Node, values: Mapping[Node, int]) -> int:
    """The value of an index or condition, given its RANGEs and VARIABLEs; for tests and sizes."""
    done: dict[Node, int] = dict(values)
    for n in toposort(node, lambda n: n not in done):
        if n in done:
            continue
        v = [done[s] for s in n.src] if n.op is not Op.RANGE else []
        match n.op:
            case Op.CONST:
                done[n] = int(n.arg)
            case Op.BIND:
                done[n] = v[1]
            case Op.ADD:
                done[n] = v[0] + v[1]
            case Op.MUL:
                done[n] = v[0] * v[1]
            case Op.IDIV:
                done[n] = v[0] // v[1]
            case Op.MOD:
                done[n] = v[0] % v[1]
            case Op.CMPLT:
                done[n] = int(v[0] < v[1])
            case Op.AND:
                done[n] = v[0] & v[1]
            case Op.MAX:
                done[n] = max(v)
            case Op.WHERE:
                done[n] = v[1] if v[0] else v[2]
            case _:
                raise ValueError(f"{n.op.name} has no value without a launch: {n}")
    return done[node]
