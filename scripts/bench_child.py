"""One figure of a whole process for the benchmark: `bench_child.py TASK LIBRARY` prints it.

The last line printed is a JSON object with `value`, in seconds or megabytes, or with `error`.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

IMAGES = 60_000
TEST_IMAGES = 10_000
TRAINING_STEPS = 10
BATCH = 512
EVALUATION_BATCH = 500
REPLAYS = 100_000


def import_time(name: str) -> float:
    """Seconds that importing the library takes."""
    start_s = time.perf_counter()
    importlib.import_module(name)
    return time.perf_counter() - start_s


def first_call(name: str) -> float:
    """Seconds after the import until the first result is there, the device's opening included."""
    importlib.import_module(name)
    start_s = time.perf_counter()
    library = open_library(name)
    wanted = [3.0, 5.0, 7.0]
    got = computed(library, [1.0, 2.0, 3.0], lambda x: x * 2 + 1)
    took_s = time.perf_counter() - start_s
    assert got == wanted, f"{got} is not {wanted}"
    return took_s


def new_kernel(name: str) -> float:
    """Seconds from a graph never seen in this process to its result, with everything else warm."""
    library = open_library(name)
    x = library.native(np.arange(1000, dtype=np.float32))
    (x - 3).realize()
    (x * 5).sum().realize()
    library.synchronize()
    start_s = time.perf_counter()
    y = (x * 2 + 1).relu().realize()
    library.synchronize()
    took_s = time.perf_counter() - start_s
    np.testing.assert_allclose(library.numpy(y), np.arange(1000, dtype=np.float32) * 2 + 1)
    return took_s


def peak_memory(name: str) -> float:
    """Peak resident megabytes of a short MNIST training with its evaluation.

    The data have MNIST's size but are random, so that the figure needs no download.
    """
    random = np.random.default_rng(0)
    data = [
        random.integers(0, high, shape, dtype=np.uint8)
        for count in (IMAGES, TEST_IMAGES)
        for high, shape in ((256, (count, 1, 28, 28)), (10, (count,)))
    ]
    if name == "torch":
        train_torch(*data)
    else:
        train_tinyhw(*data)
    return status_megabytes("VmHWM")


def train_tinyhw(*data: Any) -> None:
    """Trains and evaluates exactly as scripts/train_mnist.py does."""
    import train_mnist
    from tinyhw import Tensor

    X_train, Y_train, X_test, Y_test = (Tensor(array) for array in data)
    model = train_mnist.Model()
    train_mnist.train(
        model,
        X_train,
        Y_train,
        steps=TRAINING_STEPS,
        batch=BATCH,
        lr=0.004,
        show=lambda step, loss, accuracy: None,
    )
    accuracy = train_mnist.evaluate(model, X_test, Y_test)
    assert 0 <= accuracy <= 1, f"the accuracy is {accuracy}"


def train_torch(*data: Any) -> None:
    """The same in PyTorch."""
    from bench_training import torch_model

    torch = open_library("torch").module
    X_train, Y_train, X_test, Y_test = (torch.from_numpy(array) for array in data)
    model = torch_model(torch)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.004)
    for _ in range(TRAINING_STEPS):
        samples = torch.randint(0, IMAGES, (BATCH,))
        optimizer.zero_grad()
        scores = model(X_train[samples].float() / 255)
        loss = torch.nn.functional.cross_entropy(scores, Y_train[samples].long())
        loss.backward()
        optimizer.step()
    model.eval()
    right = 0.0
    with torch.no_grad():
        for start in range(0, TEST_IMAGES, EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            found = model(X_test[part].float() / 255).argmax(1)
            right += (found == Y_test[part]).sum().item()
    assert 0 <= right <= TEST_IMAGES, f"{right} are right"


def replay_growth(name: str) -> float:
    """Megabytes by which resident memory grows over 100,000 replays of a tiny kernel."""
    library = open_library(name)
    function = library.compiled(lambda x: x + 1)
    inputs = [library.native(np.full(16, value, np.float32)) for value in range(3)]

    def replay(times: int) -> None:
        for index in range(times):
            result = function(inputs[index % len(inputs)])
        library.synchronize()
        expected = float((times - 1) % len(inputs) + 1)
        np.testing.assert_array_equal(library.numpy(result), np.full(16, expected, np.float32))

    replay(1000)
    before = status_megabytes("VmRSS")
    replay(REPLAYS)
    return status_megabytes("VmRSS") - before


def computed(library: Any, values: list[float], function: Callable[[Any], Any]) -> list[float]:
    """The function of a list of numbers, by the library, as a list."""
    result = function(library.native(np.array(values, np.float32)))
    found: list[float] = library.numpy(result).tolist()
    return found


def status_megabytes(field: str, process: int | str = "self") -> float:
    """A line of /proc/self/status. (ru_maxrss would start with the peak of the parent.)"""
    path = Path(f"/proc/{process}/status")
    for line in path.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"{path} has no {field}")


def emulated(what: str) -> Callable[[str], float]:
    """A figure of `bench_emulated`, which other tasks do not import."""

    def take(name: str) -> float:
        module = importlib.import_module("bench_emulated")
        if what == "idle_board":
            return status_megabytes("VmRSS", module.idle_board())
        figure: float = getattr(module, what)()
        return figure

    return take


TASKS: dict[str, Callable[[str], float]] = {
    "import": import_time,
    "first-call": first_call,
    "new-kernel": new_kernel,
    "peak-memory": peak_memory,
    "replay-growth": replay_growth,
    "board-start": emulated("start"),
    "board-memory": emulated("idle_board"),
    "translation": emulated("translation"),
}


def main() -> int:
    """Runs the task named on the command line."""
    task, library = sys.argv[1:]
    try:
        outcome: dict[str, object] = {"value": TASKS[task](library)}
    except ImportError as error:
        outcome = {"error": f"cannot be imported: {error}", "absent": library != "tinyhw"}
    print(json.dumps(outcome))
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] != ["import"]:  # which is to find none of these imported
        import numpy as np

        from bench_libraries import open_library
    sys.exit(main())
