"""Recurrent layers: steps that are unrolled, in one or both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from compiler.dtype import dtypes
from tinyhw.errors import NotSupported, ShapeError
from tinyhw.formats.onnx.registry import Call, operator
from tinyhw.tensor import Tensor

Activation: TypeAlias = Callable[[Tensor], Tensor]
# A step: (input of each gate, states) -> states, of which the first is the output.
Step: TypeAlias = Callable[[Tensor, list[Tensor]], list[Tensor]]


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    """An activation by its name, with its parameters if they are given."""

    def given(value: float | None, default: float) -> float:
        return default if value is None else value

    known: dict[str, Activation] = {
        "relu": lambda x: x.maximum(0),
        "tanh": Tensor.tanh,
        "sigmoid": Tensor.sigmoid,
        "affine": lambda x: x * given(alpha, 1.0) + given(beta, 0.0),
        "leakyrelu": lambda x: x.leaky_relu(given(alpha, 0.01)),
        "thresholdedrelu": lambda x: (x >= given(alpha, 1.0)).where(x, 0),
        "scaledtanh": lambda x: (x * given(beta, 1.0)).tanh() * given(alpha, 1.0),
        "hardsigmoid": lambda x: (x * given(alpha, 0.2) + given(beta, 0.5)).clamp(0, 1),
        "elu": lambda x: x.elu(given(alpha, 1.0)),
        "softsign": Tensor.softsign,
        "softplus": Tensor.softplus,
    }
    if name.lower() not in known:
        raise NotSupported(f"No activation is called {name!r}; there are {', '.join(known)}.")
    return known[name.lower()]


class _Layer:
    """What the three layers share: directions, layouts, lengths, activations."""

    def __init__(self, call: Call, x: Tensor, lengths: Tensor | None, per_cell: int) -> None:
        self.call, self.batch_first = call, bool(call.int("layout", 0))
        self.x = x.transpose(0, 1) if self.batch_first else x
        self.steps, self.batch, _ = self.x._fixed_shape()
        self.lengths = None if lengths is None else lengths.cast(dtypes.int32).reshape((-1, 1))
        direction = call.string("direction", "forward")
        if direction not in ("forward", "reverse", "bidirectional"):
            raise NotSupported(f"No direction is called {direction!r}.")
        self.backwards = {
            "forward": [False], "reverse": [True], "bidirectional": [False, True]
        }[direction]
        self.per_cell = per_cell

    def activations(self, default: list[str]) -> list[list[Activation]]:
        """The activations of each direction."""
        names = self.call.strings("activations", default * len(self.backwards))
        alphas = list(self.call.floats("activation_alpha", ()))
        betas = list(self.call.floats("activation_beta", ()))
        takes = {"affine": 2, "scaledtanh": 2, "hardsigmoid": 2, "leakyrelu": 1,
                 "thresholdedrelu": 1, "elu": 1}
        found = []
        for name in names:
            count = takes.get(name.lower(), 0)
            alpha = alphas.pop(0) if count and alphas else None
            beta = betas.pop(0) if count == 2 and betas else None
            found.append(_activation(name, alpha, beta))
        if len(found) != self.per_cell * len(self.backwards):
            raise ShapeError(f"{len(names)} activations do not fit {len(self.backwards)} cells.")
        return [found[i : i + self.per_cell] for i in range(0, len(found), self.per_cell)]

    def clipped(self, x: Tensor) -> Tensor:
        """What an activation gets."""
        if not self.call.has("clip"):
            return x
        limit = self.call.float("clip")
        return x.clamp(-limit, limit)

    def initial(self, given: Tensor | None, direction: int, width: int) -> Tensor:
        """The state before the first step."""
        if given is None:
            shape = (self.batch, width)
            return Tensor.zeros(shape, dtype=self.x.dtype, device=self.x.device)
        return given[:, direction] if self.batch_first else given[direction]

    def run(self, direction: int, gates: Tensor, states: list[Tensor], step: Step) -> tuple[
        list[Tensor], list[Tensor]
    ]:
        """All steps of a direction: the outputs in order of time, and the last states."""
        order = list(range(self.steps))
        back = self.backwards[direction]
        outputs: dict[int, Tensor] = {}
        for t in order[::-1] if back else order:
            new = [state.contiguous() for state in step(gates[t], states)]
            shown = new[0]
            if self.lengths is not None:
                # A sequence that has ended keeps its states and gives 0; backwards, one that has
                # not begun.
                alive = self.lengths > t
                new = [alive.where(a, b) for a, b in zip(new, states, strict=True)]
                shown = alive.where(shown, 0)
            states = new
            outputs[t] = shown
        return [outputs[t] for t in order], states

    def collect(self, found: list[tuple[list[Tensor], list[Tensor]]]) -> tuple[Tensor, ...]:
        """The operator's outputs: of all steps, then the last states."""
        each = [outputs[0].stack(*outputs[1:]) for outputs, _ in found]
        y = each[0].stack(*each[1:], dim=1)  # (steps, directions, batch, width)
        last = []
        for i in range(len(found[0][1])):
            states = [states[i] for _, states in found]
            state = states[0].stack(*states[1:])
            last.append(state.transpose(0, 1) if self.batch_first else state)
        return (y.permute((2, 0, 1, 3)) if self.batch_first else y, *last)


def _biases(b: Tensor | None, direction: int, count: int, width: int) -> tuple[
    list[Tensor | None], list[Tensor | None]
]:
    """The biases of each gate, for the input and for the state."""
    if b is None:
        return [None] * count, [None] * count
    parts: list[Tensor | None] = [
        b[direction, i * width : (i + 1) * width] for i in range(2 * count)
    ]
    return parts[:count], parts[count:]


def _plus(x: Tensor, *more: Tensor | None) -> Tensor:
    for each in more:
        x = x if each is None else x + each
    return x


@operator("RNN")
def rnn(
    call: Call, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None,
    lengths: Tensor | None = None, h: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """h = f(x @ W.T + h @ R.T + biases)."""
    layer = _Layer(call, x, lengths, 1)
    width = r._fixed(2)
    found = []
    for d, (f,) in enumerate(layer.activations(["Tanh"])):
        (wb,), (rb,) = _biases(b, d, 1, width)
        recurrent = r[d].transpose(0, 1)

        def step(
            gate: Tensor, states: list[Tensor], recurrent: Tensor = recurrent, f: Activation = f
        ) -> list[Tensor]:
            return [f(layer.clipped(gate + states[0].matmul(recurrent)))]

        gates = _plus(layer.x.matmul(w[d].transpose(0, 1)), wb, rb)
        found.append(layer.run(d, gates, [layer.initial(h, d, width)], step))
    return layer.collect(found)


@operator("GRU")
def gru(
    call: Call, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None,
    lengths: Tensor | None = None, h: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Gates update (z), reset (r) and hidden (h), in this order."""
    layer = _Layer(call, x, lengths, 2)
    width, reset_after = r._fixed(2), bool(call.int("linear_before_reset", 0))
    found = []
    for d, (f, g) in enumerate(layer.activations(["Sigmoid", "Tanh"])):
        wb, rb = _biases(b, d, 3, width)
        recurrent = r[d].transpose(0, 1)  # (width, 3·width)
        first = None if b is None else _joined([_sum(wb[0], rb[0]), _sum(wb[1], rb[1]), wb[2]])
        hidden_bias = rb[2]

        def step(
            gate: Tensor, states: list[Tensor], recurrent: Tensor = recurrent,
            f: Activation = f, g: Activation = g, hidden_bias: Tensor | None = hidden_bias,
        ) -> list[Tensor]:
            (h,) = states
            both = f(layer.clipped(
                gate[:, : 2 * width] + h.matmul(recurrent[:, : 2 * width])
            ))
            z, reset = both[:, :width], both[:, width:]
            into = recurrent[:, 2 * width :]
            if reset_after:
                hidden = reset * _plus(h.matmul(into), hidden_bias)
            else:
                hidden = _plus((reset * h).matmul(into), hidden_bias)
            new = g(layer.clipped(gate[:, 2 * width :] + hidden))
            return [(1 - z) * new + z * h]

        gates = _plus(layer.x.matmul(w[d].transpose(0, 1)), first)
        found.append(layer.run(d, gates, [layer.initial(h, d, width)], step))
    return layer.collect(found)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor:
    assert a is not None and b is not None
    return a + b


def _joined(parts: list[Tensor | None]) -> Tensor:
    given = [part for part in parts if part is not None]
    return given[0].cat(*given[1:], dim=0)


@operator("LSTM")
def lstm(
    call: Call, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None,
    lengths: Tensor | None = None, h: Tensor | None = None, c: Tensor | None = None,
    p: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Gates input, output, forget and cell, in this order, and peepholes."""
    layer = _Layer(call, x, lengths, 3)
    width, coupled = r._fixed(2), bool(call.int("input_forget", 0))
    found = []
    for d, (f, g, last) in enumerate(layer.activations(["Sigmoid", "Tanh", "Tanh"])):
        wb, rb = _biases(b, d, 4, width)
        bias = None if b is None else _joined(
            [_sum(one, other) for one, other in zip(wb, rb, strict=True)]
        )
        recurrent = r[d].transpose(0, 1)
        peep = None if p is None else p[d]

        def step(
            gate: Tensor, states: list[Tensor], recurrent: Tensor = recurrent,
            f: Activation = f, g: Activation = g, last: Activation = last,
            peep: Tensor | None = peep,
        ) -> list[Tensor]:
            h, c = states
            total = gate + h.matmul(recurrent)
            i, o, forget, cell = (total[:, n * width : (n + 1) * width] for n in range(4))
            if peep is not None:
                i, forget = i + peep[:width] * c, forget + peep[2 * width :] * c
            i = f(layer.clipped(i))
            forget = 1 - i if coupled else f(layer.clipped(forget))
            new = forget * c + i * g(layer.clipped(cell))
            if peep is not None:
                o = o + peep[width : 2 * width] * new
            return [f(layer.clipped(o)) * last(new), new]

        gates = _plus(layer.x.matmul(w[d].transpose(0, 1)), bias)
        states = [layer.initial(h, d, width), layer.initial(c, d, width)]
        found.append(layer.run(d, gates, states, step))
    return layer.collect(found)
