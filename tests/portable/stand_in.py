"""Graphs that are written at once, for tests of what is around them: true records, and bytes that stand for a graph."""

from hashlib import sha256
from pathlib import Path

from seg25d.core.records import write_record
from seg25d.planning.model_file import load_header
from seg25d.planning.model_formats import StoredWeights
from seg25d.planning.portable_model import Graph, PortableModel, Windows
from seg25d.portable.export import OPSET, free_axes

EXPORT = "seg25d.portable.export.export_graph"
"""Whose place `write_stand_in` takes."""


def write_stand_in(source: Path, target: Path, weights: StoredWeights) -> PortableModel:
    """As `export_graph`: equal models give equal files, and other ones others."""
    header = load_header(source)
    record = PortableModel(
        header=header,
        graph=Graph.of(header, free_axes(header.plan), weights, OPSET),
        windows=Windows.of(header.plan, 1),
        num_parameters=1,
        window_bytes=1,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(sha256(source.read_bytes()).digest())
    write_record(target.with_suffix(".json"), record)
    return record
