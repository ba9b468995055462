"""ONNX models as functions of Tensors.

    model = OnnxModel("model.onnx")
    scores = model(image=pixels)["scores"]

A model's file is read by wire.py and model.py, its tensors by tensors.py; interpreter.py runs its
nodes with the operators in `operators/`, and folding.py keeps on the host what shapes are made of.
"""

from tinyhw.formats.onnx.importer import OnnxModel

__all__ = ["OnnxModel"]
