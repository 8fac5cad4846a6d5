"""Fingerprints of fictitious data sets, for plans of a given size."""

from seg25d.core.types import Shape, Spacing
from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.planning.case_fingerprint import CaseFingerprint, ChannelIntensities
from seg25d.planning.fingerprint import Fingerprint


def make_up_dataset(
    shape: Shape, *, num_classes: int, spacing_mm: Spacing = (1.0, 1.0, 1.0), num_cases: int = 50, channel: str = "CT"
) -> tuple[Fingerprint, DatasetDescription]:
    """Make equal cases with one channel and `num_classes` foreground classes."""
    cases = tuple(
        CaseFingerprint(
            case=f"case_{index:03d}",
            shape=shape,
            cropped_shape=shape,
            spacing_mm=spacing_mm,
            orientation="LPS",
            intensities=None,
            voxels={},
            components={},
            extent_voxels=(0, 0, 0),
            extent_mm=(0.0, 0.0, 0.0),
            foreground_fraction=0.1,
        )
        for index in range(num_cases)
    )
    intensities = ChannelIntensities(
        mean=20.0, std=30.0, median=25.0, minimum=-500.0, maximum=900.0, percentile_00_5=-80.0, percentile_99_5=160.0
    )
    fingerprint = Fingerprint(
        dataset_name="Dataset999_MadeUp",
        channel_names=(channel,),
        cases=cases,
        intensities=(intensities,),
        sparsity=0.1,
        median_relative_size_after_cropping=1.0,
    )
    names: dict[str, int | tuple[int, ...]] = {f"class {value}": value for value in range(1, num_classes + 1)}
    description = DatasetDescription(
        channel_names=(channel,),
        labels=Labels(names={"background": 0, **names}),
        file_ending=".nii.gz",
        num_training=num_cases,
    )
    return fingerprint, description
