"""Kinds of models in archives; imports nothing heavy, as help texts list them."""

from typing import Literal, TypeAlias

ModelFormat: TypeAlias = Literal["safetensors", "onnx"]
"""Our own models, which torch computes, or graphs that run without it."""
StoredWeights: TypeAlias = Literal["float32", "float16", "int8"]
"""How graphs store weights; input, output and arithmetic are float32 always."""
