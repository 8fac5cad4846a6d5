"""Coarse-to-fine prediction: one model finds the object in the volume, another predicts a crop around it.

Letters: C channels, K scores, d h w the model's grid or a crop of it, n planes of a slab.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from seg25d.core.backend import Array, backend_at, backend_of, move_axis
from seg25d.core.errors import ModelError
from seg25d.core.execution import AnyExecution
from seg25d.core.grids import box_shape, box_slices, even_margin
from seg25d.core.temporary_arrays import LargeMaps
from seg25d.core.types import BoundingBox, Shape
from seg25d.core.workspace import FoldFolder
from seg25d.inference.components import small_components
from seg25d.inference.fixed_point import Refined, fixed_point
from seg25d.inference.framing import background_scores, framed
from seg25d.inference.indices import indices_from_scores
from seg25d.inference.predictor import Predictor, PredictorOptions
from seg25d.inference.sliding_window import Slab, predict_slabs
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.planning.model_file import ModelHeader


class FinePredictor(Predictor):
    """A fine and a coarse model per fold; the scores of the folds are averaged in every round.

    Args:
        models: Fine models, one per fold.
        header: Header of all of them.
        execution: Device and precision.
        options: Options of prediction, also for the coarse models.
        coarse: The coarse models of the same folds.
    """

    def __init__(
        self,
        models: Sequence[Any],
        header: ModelHeader,
        execution: AnyExecution,
        options: PredictorOptions | None = None,
        coarse: Predictor | None = None,
    ) -> None:
        super().__init__(models, header, execution, options)
        self.coarse = coarse

    @classmethod
    def load(cls, paths: Sequence[Path], execution: AnyExecution, options: PredictorOptions | None = None) -> Self:
        """Load fine models, and the coarse model beside each.

        Raises:
            ModelError: If a file cannot be used, or the models do not belong together.
        """
        fine = super().load(paths, execution, options)
        files = [FoldFolder(root=path.parent, model_suffix=path.suffix).coarse for path in paths]
        fine.coarse = Predictor.load(files, execution, options)
        _check_coarse(files[0], fine.coarse.header, fine.header)
        return fine

    @property
    def num_parameters(self) -> int:
        """Parameters of fine and coarse models."""
        return super().num_parameters + self._coarse().num_parameters

    def slabs(self, image: Array) -> Iterable[Slab]:
        """Predict the scores of an image (C, d, h, w) on the model's grid: the last round, with background around it.

        If coarse or fine models find nothing, the scores are those of the coarse models.
        """
        coarse, settings = self._coarse(), self._settings()
        # The coarse models use the same reduced batches after memory ran out.
        coarse.batch_size, coarse.sparing = min(coarse.batch_size, self.batch_size), self.sparing
        shape: Shape = (image.shape[1], image.shape[2], image.shape[3])
        found = self._choose_labels(coarse.slabs(image), shape)
        if settings.large_components:
            found[small_components(found)] = 0
        margin = even_margin(settings.margin, self.header.plan.spacing_mm)
        last = fixed_point(found > 0, lambda box: self._refine(image, box), margin, settings)
        if last is None:
            return coarse.slabs(image)
        slab = Slab(0, 0, move_axis(last.scores, 1, 0), self.labels_device)
        background = backend_of(image).from_numpy(background_scores(self.labels))
        return framed([slab], last.box, shape, background)

    def _refine(self, image: Array, box: BoundingBox) -> Refined:
        """Predict a crop; small components get the scores of background if the settings ask for it."""
        part, size = image[:, *box_slices(box)], box_shape(box)
        backend = backend_of(image)
        # As for the planes of large volumes: half of the memory, and rounding hardly ever changes labels.
        kept = LargeMaps((self.labels.num_outputs, *size), backend)
        slabs = predict_slabs(self.models, part, self.labels.num_outputs, self.window_options(size))
        labels = self._choose_labels(_kept(slabs, kept), size)
        scores = kept.maps
        if self._settings().large_components:
            small = small_components(labels)
            background = background_scores(self.labels).astype(np.float16)
            scores[:, backend.from_numpy(small)] = backend.from_numpy(background)[:, None]
            labels[small] = 0
        return Refined(box, scores, labels > 0)

    def _choose_labels(self, slabs: Iterable[Slab], shape: Shape) -> NDArray[np.uint8]:
        """Convert slabs of scores to internal indices (d, h, w) on the model's grid."""
        found, backend = np.zeros(shape, np.uint8), backend_at(self.execution.device)
        for slab in slabs:
            planes = np.moveaxis(found, slab.axis, 0)
            for number, scores in enumerate(slab.planes, slab.start):
                on_device = backend.float32(backend.moved(scores, slab.device))
                chosen = indices_from_scores(on_device, self.labels, self.header.threshold)
                planes[number] = backend.to_numpy(chosen)
        return found

    def _coarse(self) -> Predictor:
        assert self.coarse is not None, "set by load"
        return self.coarse

    def _settings(self) -> FineConfig:
        assert self.header.fine is not None, "checked by load_predictor"
        return self.header.fine


def _kept(slabs: Iterable[Slab], scores: LargeMaps) -> Iterator[Slab]:
    """Keep the planes of slabs, and pass them on in the same precision, on their device."""
    for slab in slabs:
        planes = scores.backend.half(slab.planes)
        scores.write(slab.axis, slab.start, planes)
        yield slab._replace(planes=planes)


def _check_coarse(path: Path, coarse: ModelHeader, fine: ModelHeader) -> None:
    """Raise ModelError if the models do not fit together; `path` is the file of the coarse one."""
    for what, mine, other in (
        ("channels", fine.description.channel_names, coarse.description.channel_names),
        ("labels", fine.description.labels, coarse.description.labels),
        ("spacing", fine.plan.spacing_mm, coarse.plan.spacing_mm),
        ("sizes of images", fine.plan.common_shape, coarse.plan.common_shape),
        ("normalisation", fine.plan.normalization, coarse.plan.normalization),
    ):
        if mine != other:
            raise ModelError(
                f"{path} does not belong to the fine model beside it, {what} differ; copy the folder again or train "
                "again"
            )
