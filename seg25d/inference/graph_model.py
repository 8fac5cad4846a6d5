"""A graph of ONNX as a function of windows, which onnxruntime computes on the CPU, without torch.

Letters: B windows in a batch, C channels, K scores, d h w window.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.backend import num_threads
from seg25d.core.errors import InputError, ModelError
from seg25d.core.grids import even_parts
from seg25d.core.system_errors import refusal
from seg25d.core.types import Shape
from seg25d.planning.portable_model import PortableModel
from seg25d.representations.slices import Slices

SETTINGS = {
    "session.set_denormal_as_zero": "1",
    "session.intra_op.allow_spinning": "0",
}
"""Denormal numbers are many times slower than others and mean nothing here, as with torch (`device.choose_execution`);
threads that wait for the next window do not keep the sums of this one from their cores (onnxruntime.ai,
onnxruntime_session_options_config_keys.h)."""
FOLDER_OF_OTHER_FILES = "session.model_external_initializers_file_folder_path"
"""Setting of the folder in which graphs that are given as bytes may name files (the same header)."""
SEVERE = 3
"""Messages of onnxruntime that are shown: errors, not warnings of what it could do better (onnxruntime.ai, logging)."""
LEAST_SLICES, ENOUGH_SLICES = 4, 16
"""Slices of a part for each neighbour per side: so many at least, and enough of them as far as the planned window goes,
for which there is memory. A graph computes the neighbours of a part as well, for nothing: a third of all slices, or a
ninth. Our choice."""


class GraphModel:
    """A graph, ready to be called; it has one input and one output, and another input where that is a super image.

    Args:
        path: The graph, for messages.
        record: What it is.

    Raises:
        InputError: If onnxruntime is not installed.
        ModelError: If the graph is damaged, or not what the record says.
    """

    def __init__(self, path: Path, record: PortableModel) -> None:
        self.path = path
        self.record = record
        self._session = _session(path)
        graph = record.graph
        wanted = {graph.input} if graph.grid is None else {graph.input, graph.grid.input}
        found = {each.name for each in self._session.get_inputs()}
        if found != wanted or graph.output not in {each.name for each in self._session.get_outputs()}:
            raise ModelError(
                f"{path} takes {', '.join(sorted(found))}, expected {', '.join(sorted(wanted))} and the output "
                f"{graph.output}, as {path.with_suffix('.json').name} says; get the models again"
            )

    @property
    def num_parameters(self) -> int:
        """How many weights the network has."""
        return self.record.num_parameters

    @property
    def free_axes(self) -> frozenset[int]:
        """Axes (0 D, 1 H, 2 W) along which windows may have other sizes than the planned one."""
        return frozenset(self.record.graph.free_axes)

    @property
    def takes_images_at_once(self) -> bool:
        """Whether calls take `images_at_once`: those of slices that see their neighbours alone."""
        return self.record.windows.free_axis is not None and isinstance(self.record.header.plan.representation, Slices)

    def __call__(self, images: NDArray[np.float32], images_at_once: int | None = None) -> NDArray[np.float32]:
        """Scores of windows.

        Args:
            images: (B, C, d, h, w).
            images_at_once: Slices that the network takes at a time; more where neighbours would be most of them, see
                `LEAST_SLICES`. The scores are the same, in less memory. None: all.

        Returns:
            (B, K, d, h, w).

        Raises:
            ModelError: If onnxruntime cannot compute them, or they have another shape.
        """
        if images_at_once is None:
            return self._scores(images)
        axis, context = self.record.windows.free_axis, self.record.windows.context
        assert axis is not None, "see takes_images_at_once"
        planned = min(self.record.graph.window[axis] - 2 * context, ENOUGH_SLICES * context)
        number = max(images_at_once // len(images), planned, LEAST_SLICES * context, 1)
        depth = images.shape[2 + axis]
        if depth <= number + 2 * context:  # as many slices as a part and its neighbours have
            return self._scores(images)
        scores = np.empty((len(images), self.record.graph.outputs, *images.shape[2:]), np.float32)
        for part in even_parts(depth, number):
            first = max(0, part.start - context)
            found = self._scores(_slices(images, axis, slice(first, part.stop + context)))
            _slices(scores, axis, part)[...] = _slices(found, axis, slice(part.start - first, part.stop - first))
        return scores

    def _scores(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (B, K, d, h, w) of windows (B, C, d, h, w), all at once."""
        graph, shape = self.record.graph, images.shape
        window: Shape = (shape[2], shape[3], shape[4])
        inputs: dict[str, NDArray[np.float32]] = {graph.input: np.ascontiguousarray(images)}
        if graph.grid is not None and (places := self.record.grid_for(window)) is not None:
            inputs[graph.grid.input] = np.zeros(places, np.float32)
        try:
            (scores,) = self._session.run([graph.output], inputs)
        except Exception as error:  # onnxruntime has classes of its own for each kind, of no common class
            raise refusal(error) or ModelError(
                f"{self.path}: onnxruntime cannot compute windows of {window} ({error}); get the models again"
            ) from None
        wanted = (shape[0], graph.outputs, *window)
        if not isinstance(scores, np.ndarray) or scores.shape != wanted or scores.dtype != np.float32:
            raise ModelError(f"{self.path} gives other scores than {wanted} in float32; get the models again")
        return scores


def _slices(volumes: NDArray[np.float32], axis: int, part: slice) -> NDArray[np.float32]:
    """Some slices along an axis (0 D, 1 H, 2 W) of (B, C, D, H, W), as a view."""
    return volumes[(*(slice(None),) * (2 + axis), part)]


def _session(path: Path) -> Any:
    """A session with the bytes of the graph.

    Weights that a graph takes from other files would be looked for in the current folder, so it gets an empty one.
    """
    try:
        from onnxruntime import InferenceSession, SessionOptions  # noqa: PLC0415 - an extra, only for graphs
    except ImportError as error:
        raise InputError(
            f"{path} is a graph, which onnxruntime computes, and that cannot be used here ({error}); pip install "
            "onnxruntime (the extra seg25d[onnx] and requirements-light.txt have it)"
        ) from None
    options = SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.log_severity_level = SEVERE
    for key, value in SETTINGS.items():
        options.add_session_config_entry(key, value)
    try:
        with TemporaryDirectory() as empty:
            options.add_session_config_entry(FOLDER_OF_OTHER_FILES, empty)
            return InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # see above
        raise refusal(error) or ModelError(
            f"{path} is no graph that onnxruntime can compute ({error}); get the models again"
        ) from None
