"""Fingerprints of ten published data sets, as nnU-Net sees them, and what of their plans is kept as golden files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seg25d.core.types import Shape, Spacing
from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.planning.case_fingerprint import CaseFingerprint, ChannelIntensities
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.plan import Plans
from seg25d.planning.planner import plan_dataset

GOLDEN = Path(__file__).parent / "golden"
_GOLDEN_CONFIGURATIONS = ("2d", "si", "3d")
BUDGETS_GB = (4, 8, 16, 24, 48, 80, 140)
"""Memory budgets for which the plans of `BUDGETED` are kept, from a laptop's to an H200's."""


class Published(NamedTuple):
    shape: Shape
    spacings_mm: tuple[tuple[int, Spacing], ...]
    """Number of cases per spacing."""
    channels: tuple[str, ...]
    num_labels: int


PUBLISHED = {
    "hippocampus": Published((36, 50, 35), ((260, (1.0, 1.0, 1.0)),), ("MRI",), 2),
    "acdc": Published((9, 237, 208), ((30, (5.0, 1.5625, 1.5625)), (170, (10.0, 1.5625, 1.5625))), ("cine",), 3),
    "liver": Published((432, 512, 512), ((131, (1.0, 0.768, 0.768)),), ("CT",), 2),
    "prostate": Published((20, 320, 320), ((32, (3.6, 0.625, 0.625)),), ("T2", "ADC"), 2),
    "brats": Published((138, 169, 138), ((484, (1.0, 1.0, 1.0)),), ("T1", "T1c", "T2", "FLAIR"), 3),
    "pancreas": Published((93, 512, 512), ((42, (1.25, 0.803, 0.803)), (239, (2.5, 0.803, 0.803))), ("CT",), 2),
    "thick_slices": Published((24, 512, 512), ((40, (5.9, 0.5, 0.5)),), ("MRI",), 1),
    "isotropic_half_mm": Published((400, 400, 400), ((30, (0.5, 0.5, 0.5)),), ("CT",), 1),
    "tiny": Published((12, 64, 64), ((10, (3.0, 1.0, 1.0)),), ("MRI",), 1),
    "photographs": Published((1, 512, 512), ((100, (1.0, 1.0, 1.0)),), ("red", "green", "blue"), 1),
}

CT = Published((500, 512, 512), ((100, (0.8, 0.8, 0.8)),), ("CT",), 3)
BUDGETED = {
    "hippocampus": PUBLISHED["hippocampus"],
    "acdc": PUBLISHED["acdc"],
    "ct": CT,
    "ct_of_4_cases": CT._replace(spacings_mm=((4, (0.8, 0.8, 0.8)),)),
    "ct_60_labels": CT._replace(num_labels=60),
}
"""Data sets that are planned for all budgets: small volumes, thick slices, and clinical CTs."""
BUDGETED_CONFIGURATIONS = ("axial", "si", "stack", "3d", "mip")
TIMED = ("acdc", "hippocampus")
TIMES_S = (0, 300, 900)
"""Times of each training for which the plans of `TIMED` are kept; 0: any."""
CPU_GFLOPS = 64
"""Speed of the CPUs that they are for, two threads with AVX2."""


def golden_configurations(published: Published) -> tuple[str, ...]:
    """The configurations to compare: those that its shape has a use for."""
    return ("2d",) if published.shape[0] == 1 else _GOLDEN_CONFIGURATIONS


def make_fingerprint(published: Published) -> tuple[Fingerprint, DatasetDescription]:
    """A data set whose cases all have the published median shape."""
    spacings = [spacing for number, spacing in published.spacings_mm for _ in range(number)]
    cases = tuple(_case(f"case_{index:03}", published.shape, spacing) for index, spacing in enumerate(spacings))
    intensities = ChannelIntensities(
        mean=20.0, std=30.0, median=25.0, minimum=-500.0, maximum=900.0, percentile_00_5=-80.0, percentile_99_5=160.0
    )
    fingerprint = Fingerprint(
        dataset_name="Dataset001_Published",
        channel_names=published.channels,
        cases=cases,
        intensities=(intensities,) * len(published.channels),
        sparsity=0.1,
        median_relative_size_after_cropping=1.0,
    )
    names: dict[str, int | tuple[int, ...]] = {f"class {value}": value for value in range(1, published.num_labels + 1)}
    description = DatasetDescription(
        channel_names=published.channels,
        labels=Labels(names={"background": 0, **names}),
        file_ending=".nii.gz",
        num_training=len(cases),
    )
    return fingerprint, description


def decisions(plans: Plans) -> dict[str, Any]:
    """What was decided, without what explains it."""
    content = plans.model_dump(mode="json", exclude={"reasons", "planned_from"})
    for configuration in content["configurations"].values():
        del configuration["reasons"], configuration["ceiling"]
        if configuration["common_shape"] is None:
            del configuration["common_shape"]  # the files are from before there was one
    return content


def plans_for(
    name: str, gpu_memory_gb: float, configurations: Sequence[str] = BUDGETED_CONFIGURATIONS, **machine: Any
) -> dict[str, dict[str, Any]]:
    """What a data set of `BUDGETED` gets for a budget: the numbers that decide time, memory and context."""
    data = make_fingerprint(BUDGETED[name])
    plans = plan_dataset(*data, configurations=configurations, gpu_memory_gb=gpu_memory_gb, **machine)
    return {
        configuration: {
            "window": list(plan.window),
            "batch_size": plan.batch_size,
            "method": plan.representation.summary,
            "network": f"{plan.network.name} {plan.network.summary}",
            "estimated_memory_gb": plan.estimated_memory_gb,
            "tflop_per_update": round(plan.flops_per_update / 1e12, 3),
            "is_warned_of": "warning" in plan.reasons,
        }
        for configuration, plan in plans.configurations.items()
    }


def plans_for_cpus(
    name: str, time_budget_s: float, configurations: Sequence[str] = BUDGETED_CONFIGURATIONS
) -> dict[str, dict[str, Any]]:
    """What a data set of `TIMED` gets for CPUs and a time of each training."""
    return plans_for(name, 8, configurations, cpu_gflops=CPU_GFLOPS, time_budget_s=time_budget_s)


def _case(name: str, shape: Shape, spacing_mm: Spacing) -> CaseFingerprint:
    return CaseFingerprint(
        case=name,
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
