"""Prediction by fused views: every view predicts the volume, then the fusion network the region with foreground.

Letters: C image channels, V views, M maps per view, K scores, d h w the model's grid, F folds.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from seg25d.core.backend import Array, backend_of, move_axis
from seg25d.core.errors import InputError, ModelError
from seg25d.core.execution import AnyExecution
from seg25d.core.grids import bounding_box, box_shape, box_slices, even_margin, with_margin
from seg25d.core.memory import lack_of_memory
from seg25d.core.types import BoundingBox, Shape, Spacing
from seg25d.data.labels import Labels
from seg25d.ensembling.view_maps import found_by_most, fusion_input, view_maps
from seg25d.inference.framing import background_scores, framed
from seg25d.inference.predictor import Predictor, PredictorOptions
from seg25d.inference.sliding_window import Slab, predict_slabs
from seg25d.planning.model_file import ModelHeader
from seg25d.representations.fused_views import ROI_MARGIN, FusedViews

_SCORE_BYTES = 12
"""Per voxel and class of what is fused without a network: of one view in float32, of the result, and of its masks."""


class FusedPredictor(Predictor):
    """Fusion networks, one per fold, and the models of their views.

    Args:
        models: Fusion networks, one per fold.
        header: Header of all of them.
        execution: Device and precision.
        options: Options of prediction, also for the views.
        views: Predictors of the views of each fold, in the order of the plan.
        coarse: Predictors of the coarse models of each fold, if the views are fine models.
    """

    fuses_views: ClassVar[bool] = True

    def __init__(
        self,
        models: Sequence[Any],
        header: ModelHeader,
        execution: AnyExecution,
        options: PredictorOptions | None = None,
        views: Sequence[Sequence[Predictor]] = (),
        coarse: Sequence[Sequence[Predictor]] = (),
    ) -> None:
        super().__init__(models, header, execution, options)
        maps = FusedViews.of(header.plan.representation).num_maps
        channels = len(header.description.channel_names)
        self.models = [_OwnMaps(model, channels, maps, fold) for fold, model in enumerate(self.models)]
        self.views = views
        self.coarse = coarse or [()] * len(views)

    @classmethod
    def load(cls, paths: Sequence[Path], execution: AnyExecution, options: PredictorOptions | None = None) -> Self:
        """Load fusion networks, and the models of their views from the folder `views/` beside each.

        Raises:
            ModelError: If a file cannot be used, or the models do not belong together.
        """
        fused = super().load(paths, execution, options)
        names = FusedViews.of(fused.header.plan.representation).views
        fused.views = [
            [Predictor.load([like(path, view_model(path.parent, name))], execution, options) for name in names]
            for path in paths
        ]
        fine = any(view.header.fine is not None for views in fused.views for view in views)
        fused.coarse = [
            [
                Predictor.load([like(path, coarse_view_model(path.parent, name))], execution, options)
                for name in names
                if fine
            ]
            for path in paths
        ]
        for path, views, coarse in zip(paths, fused.views, fused.coarse, strict=True):
            _check_views(path, fused.header, views)
            if fine:
                _check_views(path, fused.header, coarse)
        return fused

    @property
    def num_parameters(self) -> int:
        """Parameters of fusion networks and views."""
        views = [view for of_fold in (*self.views, *self.coarse) for view in of_fold]
        return super().num_parameters + sum(view.num_parameters for view in views)

    def slabs(self, image: Array) -> Iterable[Slab]:
        """Predict the scores of an image (C, d, h, w) on the model's grid; background where no view finds anything."""
        return self.fuse(image, self.maps(image))

    def maps(self, image: Array) -> list[list[Array]]:
        """Predict the maps of the views of each fold for an image (C, d, h, w), see `view_maps`."""
        array = backend_of(image).to_numpy(image)
        return [view_maps(array, views, coarse) for views, coarse in zip(self.views, self.coarse, strict=True)]

    def fuse(self, image: Array, per_fold: list[list[Array]]) -> Iterable[Slab]:
        """Scores of an image from the maps of its views; background where no view finds anything.

        Args:
            image: (C, d, h, w) on the model's grid.
            per_fold: Its `maps`; the list is emptied, which frees the memory of what lies far from the foreground.

        Raises:
            InputError: If neither memory nor disk has room for what is fused.
        """
        margin = margin_voxels(self.header.plan.spacing_mm)
        backend = backend_of(image)
        threshold = self.header.threshold
        boxes = [box for views in per_fold if (box := found_box(views, self.labels, margin, threshold)) is not None]
        shape: Shape = (image.shape[1], image.shape[2], image.shape[3])
        background = backend.from_numpy(background_scores(self.labels))
        if not boxes:
            return framed((), None, shape, background)
        box = _enclosing_box(boxes)
        maps = [each for views in per_fold for each in views]
        per_fold.clear()
        if self.options.fusion != "network":
            from seg25d.ensembling.view_fusions import fuse_views  # noqa: PLC0415 - loads torch

            _check_memory(maps, box, self.options.fusion)
            inside = (slice(None), *box_slices(box))
            # Copies, so that the memory of the rest can be freed.
            maps = [backend.copy(each[inside]) for each in maps]
            scores = fuse_views(maps, image[inside], self.options.fusion, self.labels, threshold)
            return framed([Slab(0, 0, move_axis(scores, 1, 0), self.labels_device)], box, shape, background)
        part = backend.from_numpy(fusion_input(image, maps, box))
        del maps
        size: Shape = (part.shape[1], part.shape[2], part.shape[3])
        slabs = predict_slabs(self.models, part, self.labels.num_outputs, self.window_options(size))
        return framed(slabs, box, shape, background)


class _OwnMaps:
    """A fusion network that selects the image and the maps of its own fold from those of all folds."""

    def __init__(self, model: Any, num_channels: int, num_maps: int, fold: int) -> None:
        self.model = model
        self.num_channels = num_channels
        self.num_maps = num_maps
        self.fold = fold

    def parameters(self) -> Any:
        """Of a module of torch, its weights."""
        return self.model.parameters()

    @property
    def num_parameters(self) -> int:
        """Of a graph, how many weights it has."""
        number: int = self.model.num_parameters
        return number

    def __call__(self, volume: Array) -> Array:
        first = self.num_channels + self.fold * self.num_maps
        image, own = volume[:, : self.num_channels], volume[:, first : first + self.num_maps]
        return self.model(backend_of(volume).concatenate([image, own], 1))


def view_model(folder: Path, name: str) -> Path:
    """The model file of one view of a fusion network."""
    return folder / "views" / f"{name}.safetensors"


def coarse_view_model(folder: Path, name: str) -> Path:
    """The coarse model file of one view, if the views are fine models."""
    return folder / "views" / "coarse" / f"{name}.safetensors"


def like(path: Path, file: Path) -> Path:
    """The file of a model that another one needs: a graph, if that is one."""
    return file.with_suffix(path.suffix)


def margin_voxels(spacing_mm: Spacing) -> Shape:
    """Margin around an object that is fused too: 32 voxels of the finest axis, as many millimetres along the others."""
    return even_margin(ROI_MARGIN, spacing_mm)


def found_box(
    maps: Sequence[Array], labels: Labels, margin: Shape, threshold: float | None = None
) -> BoundingBox | None:
    """The box of the foreground that most views find, or else any of them, with a margin.

    Args:
        maps: One map (M, d, h, w) per view.
        labels: Meaning of the maps.
        margin: Margin in voxels, cut off at the border of the volume.
        threshold: See `Labels.from_scores`.

    Returns:
        Half-open ranges along (d, h, w); None if no view finds anything.
    """
    box = bounding_box(found_by_most(maps, labels, threshold))
    return None if box is None else with_margin(box, margin, maps[0].shape[1:])


def _check_memory(maps: Sequence[Array], box: BoundingBox, fusion: str) -> None:
    """Refuse to fuse more in memory than is free, as is done without a network."""
    of_each = 10 if fusion == "mean" else 2  # in float16, and twice in float32
    needed = of_each * sum(map(len, maps)) + _SCORE_BYTES * (len(maps[0]) + 1)
    if lack := lack_of_memory(box_shape(box), needed):
        raise InputError(
            f"fusion by {fusion}: {lack}; use --fusion network, which reads what the views say from disk, stop "
            "other programs, or use a machine with more memory"
        )


def _check_views(path: Path, header: ModelHeader, views: Sequence[Predictor]) -> None:
    for name, view in zip(FusedViews.of(header.plan.representation).views, views, strict=True):
        own, other = header, view.header
        if (own.description.channel_names, own.description.labels, own.plan.arrays) != (
            other.description.channel_names,
            other.description.labels,
            other.plan.arrays,
        ):
            raise ModelError(
                f"{like(path, view_model(path.parent, name))} does not belong to {path}: channels, labels, spacing, "
                "common size or normalisation differ; copy the folder again or train again"
            )


def _enclosing_box(boxes: Sequence[BoundingBox]) -> BoundingBox:
    depth, height, width = (
        (min(box[axis][0] for box in boxes), max(box[axis][1] for box in boxes)) for axis in range(3)
    )
    return depth, height, width
