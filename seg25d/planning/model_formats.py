"""Kinds of models in archives; imports nothing heavy, as help texts list them."""

from typing import Literal, TypeAlias

ModelFormat: TypeAlias = Literal["safetensors", "onnx", "web"]
"""Our own models, which torch computes, graphs that run without it, or graphs with a page that runs them."""
StoredWeights: TypeAlias = Literal["float32", "float16", "int8"]
"""How graphs store weights; input, output and arithmetic are float32 always."""
