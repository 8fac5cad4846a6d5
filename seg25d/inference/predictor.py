"""Prediction of labels from an image by a trained model, or by the average of several folds."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from seg25d.core.arrays import PlaneWriter
from seg25d.core.backend import Array, Backend, Device, backend_at
from seg25d.core.errors import InputError, ModelError
from seg25d.core.execution import AnyExecution
from seg25d.core.records import Record
from seg25d.core.temporary_arrays import LargeMaps
from seg25d.core.types import Shape, Spacing
from seg25d.data.labels import Labels
from seg25d.inference.export import export_slabs, labels_from_slabs
from seg25d.inference.model_reading import read_model
from seg25d.inference.sliding_window import Slab, WindowOptions, labels_device, predict_slabs
from seg25d.inference.uncertainty import Uncertainty
from seg25d.inference.windows import ALL_AXES, CPU_BATCH_VOXELS, covering_window, deepened, default_batch_size
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.normalization import ChannelNormalization
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.preprocess import preprocess_image

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

FusionName = Literal["network", "mean", "majority", "staple", "nlstaple"]


class PredictorOptions(Record):
    """Options of prediction."""

    mirroring: bool = True
    """Whether to average over mirrored windows, along the axes that the plan allows."""
    step_size: float = Field(default=0.5, gt=0, le=1)
    """Largest step between windows, as a share of the window."""
    fusion: FusionName = "network"
    """Fusion of views: by the network, or one without training."""
    batch_size: int | None = Field(default=None, ge=1)
    """Windows per batch; None: chosen by plan, number of classes and device. Windows of slices that see no others but
    neighbours may be deeper than a batch: that is how many slices the network takes at a time, not the depth."""


class Predictor:
    """Models that share a plan, ready for prediction.

    Args:
        models: One per fold, see `predict_slabs`; their scores are averaged. The execution makes them ready.
        header: Plan, channels and labels of all of them.
        execution: Device and precision.
        options: Options of prediction.
    """

    fuses_views: ClassVar[bool] = False
    """Whether models take the probabilities of others beside the image."""

    def __init__(
        self,
        models: Sequence[Any],
        header: ModelHeader,
        execution: AnyExecution,
        options: PredictorOptions | None = None,
    ) -> None:
        self.models: Sequence[Any] = execution.ready(models)
        self.free_axes = ALL_AXES.intersection(*(getattr(model, "free_axes", ALL_AXES) for model in models))
        """Axes along which windows may have other sizes than the planned one: for modules of torch, all."""
        self.header = header
        self.execution = execution
        self.options = options or PredictorOptions()
        self.batch_size = self.options.batch_size or default_batch_size(header)
        self.sparing = False
        """Whether memory ran out with single windows; then windows have the planned size and the CPU keeps sums."""

    @classmethod
    def load(cls, paths: Sequence[Path], execution: AnyExecution, options: PredictorOptions | None = None) -> Self:
        """Load model files.

        Args:
            paths: One per fold, at least one.
            execution: Device and precision.
            options: Options of prediction.

        Raises:
            ModelError: If a file cannot be used, or the models do not belong together.
        """
        if not paths:
            raise ModelError("no model file was given; train a fold first")
        headers: list[ModelHeader] = []
        models: list[Any] = []
        for path in paths:
            header, model = read_model(
                path,
                [each.plan for each in headers],
                fuses_views=cls.fuses_views,
                on_cpu=execution.device.type == "cpu",
            )
            headers.append(header)
            models.append(model)
        check_agreement(paths, headers)
        return cls(models, headers[0], execution, options)

    @property
    def num_parameters(self) -> int:
        """Parameters of all models."""
        return sum(map(backend_at(self.execution.device).num_parameters, self.models))

    @property
    def labels(self) -> Labels:
        """Meaning of the models' scores."""
        return self.header.description.labels

    @property
    def labels_device(self) -> Device:
        """Where labels are made of scores, wherever these are kept."""
        return labels_device(self.execution.device, on_cpu=self.sparing)

    def preprocess(
        self,
        image: NDArray[Any],
        spacing_mm: Spacing,
        normalization: Sequence[ChannelNormalization] | None = None,
        *,
        overwrite: bool = False,
    ) -> tuple[NDArray[np.float32], Grid]:
        """Resample and normalise an image for the models.

        Args:
            image: (C, D, H, W) in canonical orientation; not changed unless `overwrite` is set.
            spacing_mm: Its canonical spacing.
            normalization: Normalisation of this case, see `with_header_windows`; None: as planned.
            overwrite: See `preprocess_image`.

        Returns:
            The image (C, d, h, w), and the record of its grids.

        Raises:
            InputError: If the channels do not fit, or voxels are not finite.
        """
        channels = self.header.description.channel_names
        if image.ndim != 4 or len(image) != len(channels):
            raise InputError(
                f"the model takes images (C, D, H, W) with {len(channels)} channel(s), in this order: "
                f"{', '.join(channels)}; got shape {image.shape}; give one file per channel "
                "(a picture has 1 if it is grey, 3 in colours)"
            )
        if not np.isfinite(image).all():
            raise InputError("the image has NaN or infinite voxels; replace them by a number")
        planned = self.header.plan
        plan = planned.model_copy(update={"normalization": tuple(normalization)}) if normalization else planned
        return preprocess_image(image, spacing_mm, plan, overwrite=overwrite)

    def predict_array(self, image: NDArray[Any], spacing_mm: Spacing) -> NDArray[np.uint8]:
        """Segment an image.

        Args:
            image: (C, D, H, W) in canonical orientation, in the units of the training images.
            spacing_mm: Its canonical spacing.

        Returns:
            Internal indices (D, H, W); `labels.decode` gives the values of label files.

        Raises:
            InputError: If the image does not fit the model.
        """
        return self.predict_preprocessed(*self.preprocess(image, spacing_mm))

    def predict_preprocessed(self, image: Any, grid: Grid, uncertainty: Uncertainty | None = None) -> NDArray[np.uint8]:
        """Segment a preprocessed image.

        Args:
            image: (C, d, h, w) on the model's grid: an array, or one on disk that is read by slicing.
            grid: Grids of preprocessing.
            uncertainty: Collects what the probabilities say, if that is wanted.

        Returns:
            Internal indices (D, H, W) on the whole canonical grid.
        """
        meaning = self.labels, self.header.threshold
        return self._compute(image, lambda slabs: labels_from_slabs(slabs, grid, *meaning, uncertainty))

    def predict_probabilities(
        self,
        image: Any,
        grid: Grid,
        writers: Sequence[PlaneWriter],
        thresholds: Sequence[float] | None = None,
        uncertainty: Uncertainty | None = None,
    ) -> NDArray[np.uint8]:
        """Segment a preprocessed image and write the probabilities, see `export_slabs`.

        `thresholds`, one per region, replace the one that the model was trained with.
        """
        threshold = self.header.threshold if thresholds is None else thresholds
        return self._compute(
            image, lambda slabs: export_slabs(slabs, grid, self.labels, writers, threshold, uncertainty)
        )

    def predict_maps(self, image: Any) -> Array:
        """Predict the probabilities of a preprocessed image on the model's grid.

        Args:
            image: (C, d, h, w) on the model's grid, sliceable.

        Returns:
            (M, d, h, w) in float16 on the CPU, in a file if it is large: of each foreground class (softmax, without the
            background) or region (sigmoid).

        Raises:
            InputError: If neither memory nor disk has room for them.
        """
        backend = backend_at(self.execution.device)
        return self._compute(image, lambda slabs: _collect_probabilities(slabs, image.shape[1:], self.labels, backend))

    def slabs(self, image: Array) -> Iterable[Slab]:
        """Predict the scores of an image (C, d, h, w) on the model's grid, slab by slab."""
        shape = (image.shape[1], image.shape[2], image.shape[3])
        return predict_slabs(self.models, image, self.labels.num_outputs, self.window_options(shape))

    def _compute(self, image: Any, export: Callable[[Iterable[Slab]], Result]) -> Result:
        """Predict and export; when the GPU's memory runs out, try again with smaller batches."""
        array = self.execution.array(np.ascontiguousarray(image[...], np.float32))
        while True:
            try:
                return export(self.slabs(array))
            except RuntimeError as error:
                if not self.execution.lacks_memory(error):
                    raise
                reason = str(error).splitlines()[0]
            # Outside the handler, as the exception keeps references to intermediate results.
            self.execution.give_freed_memory_back()
            self._spare_memory(reason)

    def _spare_memory(self, reason: str) -> None:
        """Halve the batch size; with single windows, use windows of the training size.

        Raises:
            InputError: If memory ran out with these settings already.
        """
        if self.batch_size > 1:
            self.batch_size //= 2
            logger.warning("out of GPU memory; continuing with batches of %d windows", self.batch_size)
        elif not self.sparing:
            self.sparing = True
            logger.warning("out of GPU memory; continuing with windows of the planned size, summed on the CPU")
        else:
            raise InputError(
                f"the memory of {self.execution.device} is too small to predict a single window of "
                f"{' x '.join(map(str, self.header.plan.window))} voxels ({reason}); stop other programs there, or "
                "use --device cpu"
            )

    def window_options(self, shape: Shape) -> WindowOptions:
        """Choose how windows cover a volume (D, H, W)."""
        plan, classes, axis = self.header.plan, self.labels.num_outputs, self.header.plan.representation.free_axis
        window, batch_size, images_at_once = plan.window, self.batch_size, None
        step_size, on_cpu = self.options.step_size, self.execution.device.type == "cpu"
        if not self.sparing:
            window = covering_window(plan, shape, classes, step_size=step_size, free_axes=self.free_axes)
        if axis in self.free_axes and plan.mixing is None:
            in_parts = not self.sparing and all(getattr(model, "takes_images_at_once", False) for model in self.models)
            if in_parts:
                images_at_once = batch_size * window[axis]
                if on_cpu and self.options.batch_size is None:
                    images_at_once = max(1, CPU_BATCH_VOXELS * window[axis] // math.prod(window))
            window, batch_size = deepened(plan, window, shape, batch_size, classes, in_parts=in_parts)
        if on_cpu and self.options.batch_size is None:
            batch_size = max(1, min(batch_size, CPU_BATCH_VOXELS // math.prod(window)))
        header = self.header
        return WindowOptions(
            model=f"the model of {header.dataset_name}, {header.configuration}, fold {header.fold}",
            window=window,
            step_size=plan.step_sizes(window, step_size),
            mirror_axes=plan.mirror_axes if self.options.mirroring else (),
            regular=plan.representation.regular_steps,
            padded_with_lowest=plan.representation.padded_with_lowest,
            repeated_axis=plan.repeated_axis,
            batch_size=batch_size,
            images_at_once=images_at_once,
            autocast=self.execution.autocast(),
            sums_on_cpu=self.sparing,
        )


def _collect_probabilities(slabs: Iterable[Slab], shape: Sequence[int], labels: Labels, backend: Backend) -> Array:
    maps = LargeMaps((labels.num_outputs - (not labels.has_regions), *shape), backend)
    for slab in slabs:
        for index, plane in enumerate(slab.planes, slab.start):
            scores = backend.float32(backend.moved(plane, slab.device))
            found = backend.sigmoid(scores) if labels.has_regions else backend.softmax(scores)[1:]
            maps.write(slab.axis, index, found[None])
    return maps.maps


def check_agreement(paths: Sequence[Path], headers: Sequence[ModelHeader]) -> None:
    """Check that models can be averaged.

    Raises:
        ModelError: If plan, channels, labels, threshold or coarse-to-fine settings differ; names the files.
    """
    first = headers[0]
    for path, header in zip(paths, headers, strict=True):
        differences = [
            name
            for name, mine, other in (
                ("plan", header.plan.decisions, first.plan.decisions),
                ("channels", header.description.channel_names, first.description.channel_names),
                ("labels", header.description.labels, first.description.labels),
                ("threshold", header.threshold, first.threshold),
                ("coarse-to-fine settings", header.fine, first.fine),
            )
            if mine != other
        ]
        if differences:
            raise ModelError(
                f"{path} and {paths[0]} were trained with different {' and '.join(differences)}: their scores cannot "
                "be averaged; train the folds again with one plan, or choose folds that belong together"
            )
