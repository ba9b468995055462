"""One training step of the MNIST net: equal weights, equal batches, losses that must agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench_libraries import Array, Library, Tiny
from bench_measure import Contender, TimedRow

BATCH = 512
BATCHES = 4
LEARNING_RATE = 1e-3
# Steps whose losses are compared, and how far apart they may be, relatively: Adam divides by
# the gradient's size, so rounding grows from step to step.
AGREEMENT = (1e-3, 2e-2, 5e-2)

Step = Callable[[Any, Any], Any]


class TrainingStep(TimedRow):
    """Forward, backward and Adam for one batch of 512 images."""

    name = "MNIST training step, batch 512"
    libraries = ("tinyhw", "torch", "tinygrad")

    def __init__(self) -> None:
        self.first_losses: list[float] | None = None

    def contender(self, library: Library) -> Contender:
        """Compares the first losses with those of the library that came first, then times."""
        random = np.random.default_rng(0)
        weights = initial_weights(random)
        batches = [
            (
                library.native(random.integers(0, 256, (BATCH, 1, 28, 28), dtype=np.uint8)),
                library.native(random.integers(0, 10, BATCH).astype(np.int32)),
            )
            for _ in range(BATCHES)
        ]
        step = (
            tiny_step(library, weights)
            if isinstance(library, Tiny)
            else torch_step(library, weights)
        )

        def call(index: int) -> float:
            loss = step(*batches[index % BATCHES])
            library.synchronize()
            return float(library.numpy(loss))

        losses = [call(index) for index in range(len(AGREEMENT))]
        if self.first_losses is None:
            self.first_losses = losses
        for got, wanted, tolerance in zip(losses, self.first_losses, AGREEMENT, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=tolerance)

        def check(index: int, loss: float) -> None:
            assert loss < 2 * losses[0], f"the loss grew from {losses[0]} to {loss}"

        return Contender(call, check)


def initial_weights(random: np.random.Generator) -> list[Array]:
    """Every trainable array, layer by layer: weight, then bias."""

    def layer(*shape: int) -> list[Array]:
        bound = 1 / float(np.sqrt(np.prod(shape[1:])))
        draw = random.uniform(-bound, bound, shape), random.uniform(-bound, bound, shape[0])
        return [array.astype(np.float32) for array in draw]

    def norm(features: int) -> list[Array]:
        return [np.ones(features, np.float32), np.zeros(features, np.float32)]

    return [
        *layer(32, 1, 5, 5),
        *layer(32, 32, 5, 5),
        *norm(32),
        *layer(64, 32, 3, 3),
        *layer(64, 64, 3, 3),
        *norm(64),
        *layer(10, 576),
    ]


def tiny_step(library: Tiny, weights: list[Array]) -> Step:
    """The step for tinyhw and tinygrad, captured as a whole."""
    nn, tensor = library.module.nn, library.module.Tensor
    layers = [
        nn.Conv2d(1, 32, 5),
        tensor.relu,
        nn.Conv2d(32, 32, 5),
        tensor.relu,
        nn.BatchNorm(32),
        tensor.max_pool2d,
        nn.Conv2d(32, 64, 3),
        tensor.relu,
        nn.Conv2d(64, 64, 3),
        tensor.relu,
        nn.BatchNorm(64),
        tensor.max_pool2d,
        lambda x: x.flatten(1),
        nn.Linear(576, 10),
    ]
    parameters = [
        array
        for layer in layers
        for array in (getattr(layer, "weight", None), getattr(layer, "bias", None))
        if array is not None
    ]
    for parameter, values in zip(parameters, weights, strict=True):
        parameter.assign(tensor(values)).realize()
    optimizer = nn.optim.Adam(parameters, lr=LEARNING_RATE)

    def step(x: Any, y: Any) -> Any:
        with library.training():
            optimizer.zero_grad()
            out = x.cast("float32") / 255
            for layer in layers:
                out = layer(out)
            loss = out.sparse_categorical_crossentropy(y)
            loss.backward()
            # Realized together, so that the loss and the gradients share one forward pass.
            return loss.realize(*optimizer.schedule_step())

    return library.compiled(step)


def torch_step(library: Library, weights: list[Array]) -> Step:
    """The step for PyTorch, eager."""
    torch = library.module
    model = torch_model(torch)
    with torch.no_grad():
        for parameter, values in zip(model.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(values))
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x.float() / 255), y.long())
        loss.backward()
        optimizer.step()
        return loss

    return step


def torch_model(torch: Any) -> Any:
    """The net of scripts/train_mnist.py in PyTorch."""
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 32, 5),
        nn.ReLU(),
        nn.Conv2d(32, 32, 5),
        nn.ReLU(),
        nn.BatchNorm2d(32),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.BatchNorm2d(64),
        nn.MaxPool2d(2),
        nn.Flatten(1),
        nn.Linear(576, 10),
    )
