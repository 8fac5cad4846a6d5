"""Prediction of labels from an image by a trained configuration or an ensemble, with post-processing."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.arrays import Windows, array_parts
from seg25d.core.backend import num_threads
from seg25d.core.errors import ModelError
from seg25d.core.types import IntArray, Spacing
from seg25d.data.cases import Case
from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.ensembling.fuse import MeanProbabilities
from seg25d.inference.postprocessing import PostProcessing, remove_components, threshold_values
from seg25d.inference.predictor import Predictor
from seg25d.inference.probability_maps import passing_map_writer
from seg25d.inference.uncertainty import Uncertainty
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.header_windows import with_header_windows

logger = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """An image, preprocessed for each member."""

    images: tuple[tuple[NDArray[np.float32], Grid], ...]
    """Image (C, d, h, w) and its grid for each member; members with equal spacing and normalisation share one."""
    spacing_mm: Spacing
    """Spacing of the canonical image."""

    @property
    def nbytes(self) -> int:
        """Of the arrays; one that several members share counts once."""
        return sum({id(array): array.nbytes for array, _ in self.images}.values())


class CasePredictor:
    """Members whose probabilities are averaged, followed by post-processing of the labels.

    The models stay loaded, for any number of predictions.

    Args:
        members: Configurations of one data set, at least one; each may hold several folds.
        weights: One per member, above 0; None: equal weights.
        postprocessing: Post-processing of the labels.

    Raises:
        ModelError: If members have different channels or labels.
    """

    def __init__(
        self,
        members: Sequence[Predictor],
        weights: Sequence[float] | None = None,
        postprocessing: PostProcessing | None = None,
    ) -> None:
        self.members = members
        self.weights = weights
        self.postprocessing = postprocessing or PostProcessing()
        first = self.description
        for member in members[1:]:
            other = member.header.description
            if other.channel_names != first.channel_names or not other.labels.agrees_with(first.labels):
                raise ModelError(
                    f"{member.header.configuration} and {members[0].header.configuration} have different channels or "
                    "labels: they cannot be one ensemble; train them on one data set"
                )

    @property
    def description(self) -> DatasetDescription:
        """Channels and labels."""
        return self.members[0].header.description

    @property
    def labels(self) -> Labels:
        """The labels of the data set."""
        return self.description.labels

    @property
    def on_cpu(self) -> bool:
        """Whether a member computes on the CPU."""
        return any(member.execution.device.type == "cpu" for member in self.members)

    @property
    def threshold(self) -> float | None:
        """Lowest probability of a foreground voxel, if all members agree; None: the most probable class is chosen."""
        thresholds = {member.header.threshold for member in self.members}
        return thresholds.pop() if len(thresholds) == 1 else None

    def predict_array(self, image: NDArray[Any], spacing_mm: Spacing) -> IntArray:
        """Segment an image.

        Args:
            image: (C, D, H, W) in canonical orientation (inferior to superior, anterior to posterior, right to left: as
                in SimpleITK images in LPS), in the units of the training images; not changed.
            spacing_mm: Its spacing along (D, H, W).

        Returns:
            Label values (D, H, W), as in label files.

        Raises:
            InputError: If the image does not fit the model.
        """
        return self.labels.decode(self.segment(self.prepare(image, spacing_mm)))

    def prepare(
        self, image: NDArray[Any], spacing_mm: Spacing, case: Case | None = None, *, overwrite: bool = False
    ) -> Prepared:
        """Resample and normalise an image for the members, once per spacing and normalisation.

        Args:
            image: See `predict_array`.
            spacing_mm: Its spacing along (D, H, W).
            case: Its files, whose headers may contain intensity windows.
            overwrite: Whether an image in float32 is not needed any more: what is prepared may take its place.

        Raises:
            InputError: If the image does not fit the model.
        """
        done: dict[Any, tuple[NDArray[np.float32], Grid]] = {}
        images = []
        kinds = {member.header.plan.arrays for member in self.members}
        for member in self.members:
            plan = member.header.plan
            if plan.arrays not in done:
                normalization = plan.normalization
                if case is not None:
                    normalization, remarks = with_header_windows(normalization, case)
                    for remark in remarks:
                        logger.log(remark.level, remark.text)
                is_last = len(done) == len(kinds) - 1
                done[plan.arrays] = member.preprocess(image, spacing_mm, normalization, overwrite=overwrite and is_last)
            images.append(done[plan.arrays])
        return Prepared(tuple(images), spacing_mm)

    def segment(
        self, prepared: Prepared, uncertainty: Uncertainty | None = None, folder: Path | None = None
    ) -> NDArray[np.uint8]:
        """Predict internal indices (D, H, W) on the whole canonical grid.

        Args:
            prepared: What `prepare` gives.
            uncertainty: Collects what the probabilities say, before components are removed, if that is wanted.
            folder: Where an ensemble keeps the probabilities of its members meanwhile, if they are large; None: the
                system's folder for temporary files.
        """
        if len(self.members) > 1:
            with ExitStack() as stack:
                place = folder or Path(stack.enter_context(TemporaryDirectory(prefix="seg25d-")))
                return stack.enter_context(self.segment_with_probabilities(prepared, place, uncertainty))[0]
        member, image = self.members[0], prepared.images[0]
        if thresholds := threshold_values(self.postprocessing, self.labels):
            indices = member.predict_probabilities(*image, (), thresholds, uncertainty)
        else:
            indices = member.predict_preprocessed(*image, uncertainty)
        return remove_components(indices, self.labels, prepared.spacing_mm, self.postprocessing)

    @contextmanager
    def segment_with_probabilities(
        self, prepared: Prepared, folder: Path, uncertainty: Uncertainty | None = None
    ) -> Iterator[tuple[NDArray[np.uint8], Windows]]:
        """Like `segment`, with the probabilities (K, D, H, W), see `export_slabs`; these are not post-processed.

        They can be read until the block ends.
        """
        thresholds = threshold_values(self.postprocessing, self.labels)
        alone = len(self.members) == 1
        with ExitStack() as stack:
            maps = []
            for member, each in zip(self.members, prepared.images, strict=True):
                writer = stack.enter_context(passing_map_writer(folder, num_threads()))
                indices = member.predict_probabilities(*each, [writer], thresholds, uncertainty if alone else None)
                maps.append(writer.array)
            mean = MeanProbabilities(maps, self.weights)
            if not alone:
                indices = self._choose_labels(mean, thresholds, uncertainty)
            yield remove_components(indices, self.labels, prepared.spacing_mm, self.postprocessing), mean

    def _choose_labels(
        self, probabilities: Windows, thresholds: Sequence[float] | None, uncertainty: Uncertainty | None
    ) -> NDArray[np.uint8]:
        indices = np.empty(probabilities.shape[1:], np.uint8)
        if uncertainty is not None:
            uncertainty.begin(indices.shape)
        for part in array_parts(probabilities.shape):
            values = probabilities[(slice(None), *part)]
            indices[part] = self.labels.from_probabilities(values, thresholds or self.threshold)
            if uncertainty is not None:
                uncertainty.add(values, indices[part], None if uncertainty.map is None else uncertainty.map[part])
        return indices
