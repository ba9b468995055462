"""Trains a small convolutional net on the real MNIST digits, on whatever device is there.

    python scripts/train_mnist.py                        # the first device that opens
    CLANG=1 python scripts/train_mnist.py --steps 200

Prints the device first and the accuracy over the 10,000 test digits last; the exit status is 1
below `--target` percent. 100 steps of 512 digits with a learning rate that falls linearly to
zero reach more than 98 %, whatever the seed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from compiler.errors import TinyhwError
from tinyhw import Device, Tensor, TinyJit, nn
from tinyhw.nn.datasets import mnist

EVALUATION_BATCH = 500
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class Model:
    """Two pairs of convolutions, each with a batch norm and a max pool, then one linear layer."""

    def __init__(self) -> None:
        self.layers: list[Callable[[Tensor], Tensor]] = [
            nn.Conv2d(1, 32, 5),
            Tensor.relu,
            nn.Conv2d(32, 32, 5),
            Tensor.relu,
            nn.BatchNorm(32),
            Tensor.max_pool2d,
            nn.Conv2d(32, 64, 3),
            Tensor.relu,
            nn.Conv2d(64, 64, 3),
            Tensor.relu,
            nn.BatchNorm(64),
            Tensor.max_pool2d,
            lambda x: x.flatten(1),
            nn.Linear(576, 10),
        ]

    def __call__(self, images: Tensor) -> Tensor:
        """The digits' scores (batch, 10) from images (batch, 1, 28, 28) of uint8."""
        x = images.cast("float32") / 255
        for layer in self.layers:
            x = layer(x)
        return x


class Progress:
    """One line that is rewritten on a terminal; elsewhere a line for every tenth step."""

    def __init__(self, steps: int, batch: int) -> None:
        self.steps, self.batch = steps, batch
        self.live = sys.stdout.isatty()
        self.last_s = time.perf_counter()

    def show(self, step: int, loss: float, accuracy: float) -> None:
        """Tells where the training stands after `step` steps."""
        now_s = time.perf_counter()
        images_per_s = self.batch / (now_s - self.last_s)
        self.last_s = now_s
        last = step == self.steps
        if not (self.live or last or step % 10 == 0):
            return
        filled = 20 * step // self.steps
        line = (
            f"[{'#' * filled}{'.' * (20 - filled)}] {step}/{self.steps}  loss {loss:6.4f}  "
            f"accuracy {100 * accuracy:5.1f} %  {images_per_s:7.0f} images/s"
        )
        print(f"\r{line}" if self.live else line, end="" if self.live and not last else "\n")
        sys.stdout.flush()


def train(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    batch: int,
    lr: float,
    show: Callable[[int, float, float], None],
) -> None:
    """Trains with Adam on random batches; calls `show(step, loss, accuracy)` after each."""
    optimizer = nn.optim.Adam(nn.state.get_parameters(model), lr=lr)

    @TinyJit
    def step() -> tuple[Tensor, Tensor]:
        with Tensor.train():
            samples = Tensor.randint(batch, high=len(images))
            x, y = images[samples], labels[samples]
            optimizer.zero_grad()
            scores = model(x)
            loss = scores.sparse_categorical_crossentropy(y)
            loss.backward()
            accuracy = (scores.argmax(axis=1) == y).mean()
            # Realized together, so that the loss and the gradients share one forward pass.
            loss.realize(accuracy, *optimizer.schedule_step())
            optimizer.lr.assign(optimizer.lr - lr / steps).realize()
            return loss, accuracy

    for done in range(1, steps + 1):
        loss, accuracy = step()
        show(done, loss.item(), accuracy.item())


def evaluate(model: Model, images: Tensor, labels: Tensor) -> float:
    """The share of images whose label the model finds; their number is a multiple of the batch."""

    @TinyJit
    def count_right(x: Tensor, y: Tensor) -> Tensor:
        return (model(x).argmax(axis=1) == y).sum().realize()

    right = 0.0
    for start in range(0, len(images), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        x, y = images[part].contiguous().realize(), labels[part].contiguous().realize()
        right += count_right(x, y).item()
    return right / len(images)


def positive(text: str) -> int:
    """An argument that must be a whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `arguments` stand in for sys.argv."""
    parser = argparse.ArgumentParser(description="Train a small conv net on MNIST.")
    parser.add_argument("--steps", type=positive, default=100)
    parser.add_argument("--batch", type=positive, default=512)
    parser.add_argument("--lr", type=float, default=0.004, help="at the start; falls to zero")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=97.0, help="accuracy to reach, in percent")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Trains, evaluates, prints, and returns the exit status."""
    print(f"training on {Device.DEFAULT}")
    X_train, Y_train, X_test, Y_test = mnist()
    Tensor.manual_seed(options.seed)
    model = Model()
    start_s = time.perf_counter()
    progress = Progress(options.steps, options.batch)
    train(
        model,
        X_train,
        Y_train,
        steps=options.steps,
        batch=options.batch,
        lr=options.lr,
        show=progress.show,
    )
    accuracy = 100 * evaluate(model, X_test, Y_test)
    print(
        f"test accuracy {accuracy:.2f} % of {len(Y_test):,} digits "
        f"after {time.perf_counter() - start_s:.1f} s on {Device.DEFAULT}"
    )
    if accuracy >= options.target:
        return 0
    print(f"train_mnist: {accuracy:.2f} % is below the target of {options.target} %.")
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script; what a user can meet ends in one sentence and a status above zero."""
    options = parse(arguments)
    try:
        return run(options)
    except KeyboardInterrupt:
        print("\ntrain_mnist: interrupted before the end; nothing was saved.", file=sys.stderr)
        return INTERRUPTED
    except TinyhwError as error:
        print(f"train_mnist: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
