"""Recurrent networks with PyTorch's names of parameters: RNN, LSTM, GRU and their cells.

A step of time is a few small kernels, the same for every step; a sequence runs them in turn, and a
TinyJit captures them all.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from tinyhw.errors import DtypeError, ShapeError
from tinyhw.nn.module import Module
from tinyhw.nn.shapes import refuse
from tinyhw.tensor import Tensor


class Cell(Module):
    """One step: weights (gates*hidden_size, ...) for the input and for the hidden state."""

    gates: ClassVar[int] = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        self.input_size, self.hidden_size = input_size, hidden_size
        self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh = _weights(
            self.gates, input_size, hidden_size, bias
        )

    def __call__(self, x: Tensor, hx: Tensor | None = None) -> Tensor:
        """x: (batch, input_size), hx: (batch, hidden_size), zeros if None; gives the next."""
        if hx is None:
            hx = _zeros(x, (*x.shape[:-1], self.hidden_size))
        given = x.linear(self.weight_ih.T, self.bias_ih)
        return self.step(given, hx, self.weight_hh, self.bias_hh).contiguous()

    def step(self, given: Tensor, hx: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The next hidden state of what the input gives."""
        raise NotImplementedError


class RNNCell(Cell):
    """h' = tanh(W x + b + V h + c), or relu."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh"
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self.nonlinearity = _checked(nonlinearity)

    def step(self, given: Tensor, hx: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The next hidden state of what the input gives."""
        result: Tensor = getattr(given + hx.linear(weight.T, bias), self.nonlinearity)()
        return result


class GRUCell(Cell):
    """A gated recurrent unit (Cho et al., 2014): gates for reset, update and the new state."""

    gates = 3

    def step(self, given: Tensor, hx: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The next hidden state of what the input gives."""
        return _gru(given, hx, weight, bias)


class RNN(Module):
    """Layers of recurrent cells over sequences; PyTorch's RNN, and what LSTM and GRU share.

    x: (steps, batch, input_size), (batch, steps, input_size) with batch_first, or without a batch.
    Gives the outputs of the last layer and the last states of all.
    """

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1  # tensors that a layer hands from step to step

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        if num_layers < 1:
            raise ShapeError(f"A recurrent network has at least one layer, not {num_layers}.")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.nonlinearity, self.bias = _checked(nonlinearity), bias
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self.endings = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            width = input_size if not layer else hidden_size * len(self.endings)
            for ending in self.endings:
                made = _weights(self.gates, width, hidden_size, bias)
                for name, tensor in zip(_NAMES, made, strict=True):
                    if tensor is not None:
                        setattr(self, f"{name}_l{layer}{ending}", tensor)

    def __call__(self, x: Tensor, hx: Any = None) -> Any:
        """(outputs, last states); hx: the first states, (layers*directions, batch, hidden)."""
        single = x.ndim == 2
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__} takes sequences of {self.input_size} features in 2 or 3 "
                f"axes, not the shape {x.shape}."
            )
        if single:
            x = x.unsqueeze(1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        firsts = self._first_states(x, hx, single)
        lasts: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer:
                x = x.dropout(self.dropout)
            outputs = []
            for ending in self.endings:
                result, last = self._sequence(
                    x, f"_l{layer}{ending}", firsts[len(lasts)], bool(ending)
                )
                outputs.append(result)
                lasts.append(last)
            x = outputs[0].cat(*outputs[1:], dim=-1)
        if single:
            x = x.squeeze(1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        found = [states[0].stack(*states[1:]) for states in zip(*lasts, strict=True)]
        found = [t.squeeze(1) for t in found] if single else found
        return x, found[0] if self.states == 1 else tuple(found)

    def _first_states(self, x: Tensor, hx: Any, single: bool) -> list[tuple[Tensor, ...]]:
        count = self.num_layers * len(self.endings)
        shape = (count, x.shape[1], self.hidden_size)
        if hx is None:
            given = (_zeros(x, shape),) * self.states
        else:
            given = (hx,) if self.states == 1 else tuple(hx)
            given = tuple(t.unsqueeze(1) for t in given) if single else given
        if len(given) != self.states or any(t.shape != shape for t in given):
            raise ShapeError(
                f"{type(self).__name__} starts from {self.states} states of the shape {shape}, not "
                f"from {', '.join(str(t.shape) for t in given)}."
            )
        return [tuple(t[i] for t in given) for i in range(count)]

    def _sequence(
        self, x: Tensor, ending: str, states: tuple[Tensor, ...], backwards: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All steps of one layer in one direction."""
        weight_ih, weight_hh, bias_ih, bias_hh = (
            getattr(self, f"{name}{ending}", None) for name in _NAMES
        )
        assert weight_ih is not None and weight_hh is not None
        given = x.linear(weight_ih.T, bias_ih)
        steps = range(x._fixed(0))
        outputs = []
        for i in reversed(steps) if backwards else steps:
            states = tuple(
                t.contiguous() for t in self._step(given[i], states, weight_hh, bias_hh)
            )
            outputs.append(states[0])
        if not outputs:
            raise ShapeError(f"{type(self).__name__} meets a sequence without steps: {x.shape}.")
        outputs = outputs[::-1] if backwards else outputs
        return outputs[0].stack(*outputs[1:]), states

    def _step(
        self, given: Tensor, states: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, ...]:
        return (getattr(given + states[0].linear(weight.T, bias), self.nonlinearity)(),)


class LSTM(RNN):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997); its states are (h, c)."""

    gates = 4
    states = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
    ) -> None:
        refuse("LSTM", proj_size=proj_size)
        super().__init__(
            input_size, hidden_size, num_layers, "tanh", bias, batch_first, dropout, bidirectional
        )

    def _step(
        self, given: Tensor, states: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, ...]:
        h, c = states
        enter, forget, new, leave = (given + h.linear(weight.T, bias)).chunk(4, dim=-1)
        c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * c.tanh(), c


class GRU(RNN):
    """Gated recurrent units (Cho et al., 2014)."""

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, "tanh", bias, batch_first, dropout, bidirectional
        )

    def _step(
        self, given: Tensor, states: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, ...]:
        return (_gru(given, states[0], weight, bias),)


_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _weights(
    gates: int, input_size: int, hidden_size: int, bias: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    bound = 1 / math.sqrt(hidden_size)

    def uniform(*shape: int) -> Tensor:
        return Tensor.uniform(*shape, low=-bound, high=bound)

    rows = gates * hidden_size
    return (
        uniform(rows, input_size),
        uniform(rows, hidden_size),
        uniform(rows) if bias else None,
        uniform(rows) if bias else None,
    )


def _gru(given: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    reset, update, new = given.chunk(3, dim=-1)
    of_reset, of_update, of_new = h.linear(weight.T, bias).chunk(3, dim=-1)
    keep = (update + of_update).sigmoid()
    fresh = (new + (reset + of_reset).sigmoid() * of_new).tanh()
    return (1 - keep) * fresh + keep * h


def _zeros(x: Tensor, shape: tuple[Any, ...]) -> Tensor:
    return Tensor.zeros(*shape, device=x.device, dtype=x.dtype)


def _checked(nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise DtypeError(f"nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}.")
    return nonlinearity
