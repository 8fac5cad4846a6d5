"""The random 2.5D U-Net around any 2D network: two paths of filtration, back-projection and fine-tuning.

Letters as in `method.py`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.core.types import Shape
from seg25d.representations.base import NetworkOutput
from seg25d.representations.projections.geometry import BackProjection, back_projection
from seg25d.representations.projections.plane import Plane
from seg25d.representations.projections.schedule import draw_angles, epoch_of_progress, even_angles, path_weight
from seg25d.representations.projections.views import ViewGeometry

FILTER_NOISE = 0.01
"""Standard deviation around the filters' first weights, (0.5, 0.5) (methods.md 3.3: small)."""
GAIN, SHIFT = 20.0, 0.85
"""First values of the affine normalisation: of thin vessels the hull of 6 to 60 views is best cut at 0.84 to 0.86 of
them (methods.md 3.5)."""
SHIFT_OF_INVERSION = 0.5
"""The inversion formula gives 1 inside of what was projected and 0 outside."""
KEPT_MATRICES = 2


class Paths(NamedTuple):
    """Numbers of views of both paths, and the schedule of path 1; see the fields of `Projections`."""

    num_training_views: int
    num_views: int
    schedule: str


class LiftedProjections(nn.Module):
    """(B, C, D, H, W) -> views -> network -> maps in [0, 1] -> filtration -> back-projection -> fine-tuning -> scores.

    In training mode `start_epoch` sets the angles of path 1 and the weight of its loss; before the first call they are
    those of epoch 1 and seed 0.

    Args:
        network: Gives `num_classes` scores per pixel.
        geometry: How views are taken.
        paths: Numbers of views.
        num_classes: K.
        normalization: See `FineTuning`.
        background: Whether a background score of 0 is put in front.
    """

    def __init__(
        self,
        network: nn.Module,
        geometry: ViewGeometry,
        paths: Paths,
        num_classes: int,
        normalization: str,
        background: bool,
    ) -> None:
        super().__init__()
        self.network = network
        self.geometry = geometry
        self.paths = paths
        self.background = background
        self.path_1 = Reconstruction(geometry, paths.num_training_views, num_classes, normalization)
        self.path_2 = Reconstruction(geometry, paths.num_views, num_classes, normalization)
        self.start_epoch(1, 0, 0.0)

    def start_epoch(self, epoch: int, seed: int, progress: float) -> None:
        """Draw the angles of path 1 and set the weights of both paths, see `EpochAware`."""
        counted = epoch if self.paths.schedule == "paper" else epoch_of_progress(progress)
        self.training_angles = draw_angles(self.paths.num_training_views, epoch, seed)
        self.path_1_weight = path_weight(counted)

    def forward(self, volume: Tensor) -> NetworkOutput:
        """Scores of volumes, see `Representation.lift`.

        In training mode those of path 1 (one per scale that the network gives) weighted by c, then those of path 2
        weighted by 1 - c; gradients of path 2 end at the network's maps. Path 2 runs the network in eval mode.
        """
        if not self.training:
            return self._predict_path_2(volume)
        # Path 1 comes first: weights that autocast casts and caches without gradients would have none later.
        images = self.geometry.project(volume, self.training_angles)
        output = self.network(images.flatten(0, 1))
        outputs = []
        for scores, weight in [(output, 1.0)] if isinstance(output, Tensor) else output:
            volumes = self._scores(self.path_1, self._maps(scores, images), self.training_angles, volume)
            outputs.append((volumes, self.path_1_weight * weight))
        self.network.eval()
        try:
            outputs.append((self._predict_path_2(volume), 1 - self.path_1_weight))
        finally:
            self.network.train()
        return outputs

    def _predict_path_2(self, volume: Tensor) -> Tensor:
        """Compute the scores of path 2, in groups of as many views as path 1 has.

        In training no gradients flow through the network.
        """
        angles = even_angles(self.paths.num_views)
        at_once = self.paths.num_training_views
        maps = []
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.training):
            for begin in range(0, len(angles), at_once):
                images = self.geometry.project(volume, angles[begin : begin + at_once])
                maps.append(self._maps(self.network(images.flatten(0, 1)), images))
        return self._scores(self.path_2, torch.cat(maps, 1), angles, volume)

    def _scores(self, path: nn.Module, maps: Tensor, angles: tuple[float, ...], volume: Tensor) -> Tensor:
        """Scores (B, K, D, H, W), after a background of 0 where there is one, of maps (B, V, K, b, s)."""
        scores: Tensor = path(maps, angles, volume.shape[2:])
        return functional.pad(scores, (0, 0, 0, 0, 0, 0, 1, 0)) if self.background else scores

    @staticmethod
    def _maps(scores: Tensor, images: Tensor) -> Tensor:
        """Output of the paper's network U for images (B, V, C, b, s): maps (B, V, K, b, s) in [0, 1].

        Single precision from here on; scores of a coarser scale are interpolated.
        """
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if scores.shape[2:] != images.shape[3:]:
            scores = functional.interpolate(scores, size=images.shape[3:], mode="bilinear")
        return scores.sigmoid().reshape(*images.shape[:2], *scores.shape[1:])


class Reconstruction(nn.Module):
    """From maps of views to scores of volumes: T after R after F, of one of the two paths.

    Args:
        geometry: How views are taken.
        num_views: V.
        num_classes: K.
        normalization: See `FineTuning`.
    """

    def __init__(self, geometry: ViewGeometry, num_views: int, num_classes: int, normalization: str) -> None:
        super().__init__()
        self.geometry = geometry
        self.filtration = Filtration(num_views)
        self.fine_tuning = FineTuning(num_classes, normalization, SHIFT_OF_INVERSION if geometry.inversion else SHIFT)
        self._matrices: dict[tuple[Plane, tuple[float, ...], torch.device], BackProjection] = {}

    def forward(self, maps: Tensor, angles: tuple[float, ...], shape: Shape) -> Tensor:
        """Scores (B, K, D, H, W) of maps (B, V, K, b, s)."""
        matrix = self._matrix(self.geometry.plane(shape), angles, maps.device)
        filtered = self.filtration(self.geometry.filtered(maps, shape))
        volume = self.geometry.mean_of_views(filtered, angles, shape, matrix)
        scores: Tensor = self.fine_tuning(volume)
        return scores

    def _matrix(self, plane: Plane, angles: tuple[float, ...], device: torch.device) -> BackProjection:
        """Return the back-projection and cache it: angles change with the epoch, planes hardly ever."""
        key = plane, angles, device
        if key in self._matrices:
            return self._matrices[key]
        # Filtration and average both look one pixel ahead. Each is shifted back by half a pixel: otherwise every view
        # would need maps shifted by a different distance, although one network computes those of all views.
        matrix = back_projection(plane, angles, device, between_pixels=True)
        # Tensors that are only traced (memory, export) cannot be used later.
        if type(matrix.weights) is Tensor:
            while len(self._matrices) >= KEPT_MATRICES:
                del self._matrices[next(iter(self._matrices))]
            self._matrices[key] = matrix
        return matrix


class Filtration(nn.Module):
    """A filter of two pixels along the detector per direction, and a bias: F of the paper.

    One per direction, the same for all classes: it undoes the blur of back-projection, which does not depend on what is
    projected (the paper has one class). 3 numbers per view: 36 of 12, 180 of 60.

    Args:
        num_views: V.
    """

    def __init__(self, num_views: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 + FILTER_NOISE * torch.randn(num_views, 2))
        self.bias = nn.Parameter(torch.zeros(num_views))

    def forward(self, maps: Tensor) -> Tensor:
        """w0 u[s] + w1 u[s + 1] + bias of maps u (B, V, K, b, s); beyond the end there is 0."""
        first, second = self.weight[:, :, None, None, None].unbind(1)
        following = functional.pad(maps[..., 1:], (0, 1))
        return first * maps + second * following + self.bias[:, None, None, None]


class FineTuning(nn.Module):
    """Average over 2 x 2 x 2 voxels, then a learnt normalisation: T of the paper without its sigmoid.

    `affine`: gain (z - shift) per class. `batch`: batch normalisation with its own gain and shift (methods.md 3.5).

    Args:
        num_classes: K.
        normalization: One of the two.
        shift: First shift of `affine`.
    """

    def __init__(self, num_classes: int, normalization: str, shift: float = SHIFT) -> None:
        super().__init__()
        self.normalize = nn.BatchNorm3d(num_classes) if normalization == "batch" else Affine(num_classes, shift)

    def forward(self, volume: Tensor) -> Tensor:
        """Scores (B, K, D, H, W) of back-projections (B, K, D, H, W) divided by the views that see each voxel."""
        scores: Tensor = self.normalize(average_pool(volume))
        return scores


class Affine(nn.Module):
    """gain (z - shift), per class."""

    def __init__(self, num_classes: int, shift: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((num_classes,), GAIN))
        self.shift = nn.Parameter(torch.full((num_classes,), shift))

    def forward(self, volume: Tensor) -> Tensor:
        """The same shape, (B, K, D, H, W)."""
        gain, shift = self.gain[:, None, None, None], self.shift[:, None, None, None]
        return gain * (volume - shift)


def average_pool(volume: Tensor) -> Tensor:
    """The mean of each voxel and the next along D, H, W; of those that there are at the ends. Same shape."""
    size = [min(2, number) for number in volume.shape[2:]]
    before = [number - 1 for number in size]
    pooled = functional.avg_pool3d(volume, size, stride=1, padding=before, count_include_pad=False)
    # Padding goes to both ends; what it adds in front is cut off.
    return pooled[:, :, before[0] :, before[1] :, before[2] :]
