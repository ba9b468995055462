"""The node cases of onnx's backend suite, and the list of those that do not pass, with reasons.

A case is a model of one node (or few) with inputs and what must come out, within the suite's
tolerances. `_expanded` cases are the same nodes written out in others.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tinyhw import Tensor
from tinyhw.formats.onnx import OnnxModel
from tinyhw.formats.onnx.model import read_tensor
from tinyhw.formats.onnx.tensors import MAX_HOST_ELEMENTS, Folder, load_tensor
from tinyhw.formats.onnx.wire import Source

LIST = Path(__file__).with_name("onnx_unsupported.txt")
PACKAGE = "onnx.backend.test.case.node"

# Types of ml_dtypes -> NumPy's of the same width.
NOT_NUMPYS = {"bfloat16": np.uint16, "float8_e4m3fn": np.uint8, "float8_e5m2": np.uint8}

# TensorProto's numeric types but those of 8 bits: inputs and outputs of the cases that count.
NUMERIC = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16})


def module_names() -> list[str]:
    """The suite's modules, one or more operators in each."""
    package = importlib.import_module(PACKAGE)
    found = pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")
    return sorted(module.name.removeprefix(f"{PACKAGE}.") for module in found)


_loaded: dict[str, list[Any]] = {}


def load_cases(modules: Iterable[str]) -> list[Any]:
    """The cases of some modules; importing one makes them."""
    made = importlib.import_module(PACKAGE)._NodeTestCases
    cases = []
    for module in modules:
        if module not in _loaded:
            before = len(made)
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                importlib.import_module(f"{PACKAGE}.{module}")
            _loaded[module] = made[before:]
        cases += _loaded[module]
    return cases


def load_stored_cases() -> list[Any]:
    """Models that lie in the package as files, most of them of versions 6 to 9."""
    root = Path(onnx.__file__).parent / "backend" / "test" / "data"
    cases = []
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        for folder in sorted((root / kind).glob("test_*")):
            if not (folder / "model.onnx").exists():
                continue
            model = onnx.load(folder / "model.onnx")
            sets = [
                ([_stored(p) for p in _numbered(data, "input")],
                 [_stored(p) for p in _numbered(data, "output")])
                for data in sorted(folder.glob("test_data_set_*"))
            ]
            name = f"{kind}/{folder.name}"
            cases.append(SimpleNamespace(name=name, model=model, data_sets=sets, rtol=1e-3,
                                         atol=1e-6))
    return cases


def _numbered(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}_*.pb"), key=lambda path: int(path.stem.split("_")[-1]))


def _stored(path: Path) -> Any:
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)


def on_the_host(case: Any) -> Any:
    """The case with its inputs as constants in the file: what folds is computed on the host."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    (inputs, outputs), *_ = case.data_sets
    for x, info in zip(inputs, model.graph.input, strict=True):
        if not isinstance(x, onnx.TensorProto):
            x = numpy_helper.from_array(np.asarray(x))
        model.graph.initializer.add().CopyFrom(x)
        model.graph.initializer[-1].name = info.name
    return SimpleNamespace(
        name=case.name, model=model, data_sets=[([], outputs)], rtol=case.rtol, atol=case.atol
    )


def is_plain(case: Any) -> bool:
    """Whether a case is one node, not written out in others."""
    return "_expanded" not in case.name


def is_small(case: Any) -> bool:
    """Whether all inputs are small enough to be known on the host."""
    inputs = case.data_sets[0][0]
    return all(isinstance(x, onnx.TensorProto) or np.size(x) <= MAX_HOST_ELEMENTS for x in inputs)


def is_numeric(case: Any) -> bool:
    """Whether inputs and outputs are tensors of numbers that Tensor has."""
    graph = case.model.graph
    return all(
        value.type.WhichOneof("value") == "tensor_type"
        and value.type.tensor_type.elem_type in NUMERIC
        for value in (*graph.input, *graph.output)
    )


def unsupported() -> dict[str, str]:
    """The names of cases that do not pass -> why."""
    lines = [line for line in LIST.read_text().splitlines() if line and line[0] != "#"]
    return {name: reason for name, reason in (line.split(": ", 1) for line in lines)}


def failure(case: Any) -> str | None:
    """What is wrong with a case's outputs; None if nothing is."""
    Tensor.manual_seed(0)  # so that what draws numbers draws the same ones each time
    try:
        model = OnnxModel(case.model.SerializeToString())
        for inputs, outputs in case.data_sets:
            stored = {tensor.name for tensor in case.model.graph.initializer}
            known = [info.name for info in case.model.graph.input if info.name not in stored]
            given = {name: _given(value) for name, value in zip(known, inputs, strict=True)}
            found = model(given)
            for name, wanted in zip(found, outputs, strict=True):
                _compare(found[name], wanted, case.rtol, case.atol)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def _given(value: Any) -> Any:
    """An input as the model takes it."""
    if isinstance(value, list):
        return [_given(item) for item in value]
    if isinstance(value, onnx.TensorProto):
        data = value.SerializeToString()
        source = Source(value.name, len(data))
        return load_tensor(source, Folder(None), read_tensor(source, memoryview(data)), None)
    if isinstance(value, np.ndarray) and value.dtype.name in NOT_NUMPYS:
        return Tensor(value.view(NOT_NUMPYS[value.dtype.name])).bitcast(value.dtype.name)
    if isinstance(value, np.ndarray) and value.dtype.name in ("int2", "int4", "uint2", "uint4"):
        return value.astype(np.uint8 if value.dtype.name[0] == "u" else np.int8)
    return value


def _compare(found: Any, wanted: Any, rtol: float, atol: float) -> None:
    if wanted is None or isinstance(wanted, list):
        assert type(found) is type(wanted), f"{type(found)} instead of {type(wanted)}"
        for one, other in zip(found or (), wanted or (), strict=True):
            _compare(one, other, rtol, atol)
        return
    if isinstance(wanted, onnx.TensorProto):
        wanted = numpy_helper.to_array(wanted)
    wanted = np.asarray(wanted)
    assert found.dtype.name == wanted.dtype.name, f"{found.dtype} instead of {wanted.dtype}"
    assert found.shape == wanted.shape, f"{found.shape} instead of {wanted.shape}"
    if found.dtype.name in NOT_NUMPYS:
        wanted = wanted.astype(np.float32)
    if wanted.dtype == np.bool_:
        np.testing.assert_array_equal(found.numpy(), wanted)
    else:
        np.testing.assert_allclose(found.numpy(), wanted, rtol=rtol, atol=atol)
