"""What the papers claim, as data: the sentence, where it is tested, and on which side of which number it puts a score.

A claim is about the difference of two rows of the tables of `table_commands.py`, the first minus the second, in one
score: it says that it is above 0, or at least not above, or that both are level. `verdicts.py` says what came out.
"""

import math
from typing import NamedTuple

SOBIROV, SHIVDEO = "Sobirov et al. 2022", "Shivdeo et al. 2021"
ANGERMANN, XIA = "Angermann & Haltmeier 2019", "Xia et al. 2018"


class Range(NamedTuple):
    """Where a claim puts a difference: between two numbers, these included."""

    low: float
    high: float


ABOVE = Range(0.0, math.inf)
NO_GAIN = Range(-math.inf, 0.0015)
"""Up to what Xia et al. do not call an improvement: 84.63 against 84.48 (Table 1, [17])."""
LEVEL = Range(-0.01, 0.01)
"""The largest difference that Sobirov et al. call similar: 0.747 and 0.737 (section 4)."""


class Claim(NamedTuple):
    """A claim of a paper."""

    paper: str
    sentence: str
    tables: tuple[str, ...]
    """Names of the tables in which it is tested, each by itself; `A + B`: the first row is in A, the second in B."""
    first: str
    """Name of a row."""
    second: str
    claimed: Range = ABOVE
    score: str = "dice"
    incomparable: str = ""
    """Why it cannot be decided here, whatever comes out."""


GRIDS = ("grids_4_updates", "grids_4_time")
STACKS = ("stacks_4_updates", "stacks_4_time", "stacks_27_updates", "shivdeo_4_updates")
VESSELS = ("vessels_901_time", "vessels_902_time", "vessels_902_updates")
FUSIONS = ("fusions_4_updates", "fusions_27_updates")
RSTN = ("rstn_4_updates", "rstn_27_updates")
BESIDE = ("rstn_4_updates + fusions_4_updates", "rstn_27_updates + fusions_27_updates")
PRETRAINING = ("pretraining_4_2d_updates", "pretraining_4_si_updates")
BEST_STACKS, WORST_STACKS = "stacks, overlap 0.625", "stacks, overlap 0"
LONG, SCRATCH = "scratch, as long as both", "resnet_unet, scratch"
WEIGHTS = "resnet_unet, resnet34_of_Dataset027_ACDC"

CLAIMS: tuple[Claim, ...] = (
    Claim(SOBIROV, "super images are level with 3D (Table 2)", GRIDS, "8 x 6", "3D", LEVEL),
    Claim(SOBIROV, "super images are level with 3D (Table 2)", ("grids_27_updates",), "4 x 3", "3D", LEVEL),
    Claim(SOBIROV, "squarer layouts are better: 8 x 6 than 4 x 12", GRIDS[:1], "8 x 6", "4 x 12"),
    Claim(SOBIROV, "squarer layouts are better: 8 x 6 than 24 x 2", GRIDS[:1], "8 x 6", "24 x 2"),
    Claim(SOBIROV, "HD95 of super images is larger (section 4)", GRIDS, "8 x 6", "3D", ABOVE, "hd95_mm"),
    Claim(SOBIROV, "as it is measured on their plane (section 4)", GRIDS, "8 x 6", "3D", ABOVE, "plane_hd95_mm"),
    Claim(SOBIROV, "3D is above 11 x 8 (Table 3)", ("atria_4_updates",), "3D", "11 x 8"),
    Claim(SOBIROV, "8 x 8 is above 11 x 8 (Table 3)", ("atria_4_updates",), "8 x 8", "11 x 8"),
    Claim(SOBIROV, "masking helps (Table 1)", PRETRAINING, "inpainting", "scratch", ABOVE, "10"),
    Claim(SOBIROV, "masking helps, in equal updates", PRETRAINING, "inpainting", LONG, ABOVE, "10"),
    Claim(SOBIROV, "jigsaw helps (Table 1)", PRETRAINING, "jigsaw", "scratch", ABOVE, "10"),
    Claim(SOBIROV, "jigsaw helps, in equal updates", PRETRAINING, "jigsaw", LONG, ABOVE, "10"),
    Claim(SOBIROV, "pretrained weights help (PT, Table 3)", ("pretrained_4_updates",), WEIGHTS, SCRATCH, ABOVE, "160"),
    Claim(
        SOBIROV,
        "augmentation helps with them (PT&A, Table 3)",
        ("pretrained_4_updates",),
        f"{WEIGHTS}, augmented",
        WEIGHTS,
        score="160",
    ),
    Claim(SHIVDEO, "stacks are above slices (section 5)", STACKS, BEST_STACKS, "slices"),
    Claim(
        SHIVDEO,
        "area plots of slices vary more than those of stacks (section 5.3)",
        STACKS,
        "slices",
        BEST_STACKS,
        score="area_total_variation",
    ),
    Claim(
        SHIVDEO,
        "area plots of slices are farther from the truth (section 5.3)",
        STACKS,
        "slices",
        BEST_STACKS,
        score="area_mean_absolute_difference",
    ),
    Claim(
        SHIVDEO,
        "without overlap, area plots are farther from the truth (section 5.5)",
        STACKS[:1],
        WORST_STACKS,
        BEST_STACKS,
        score="area_mean_absolute_difference",
    ),
    Claim(ANGERMANN, "random 2.5D is above slices (section 4)", VESSELS, "random 2.5D", "slices"),
    Claim(ANGERMANN, "random 2.5D is above 3D (section 4)", VESSELS, "random 2.5D", "3D"),
    Claim(ANGERMANN, "slices are above 3D (section 4)", VESSELS, "slices", "3D"),
    Claim(XIA, "VFN is above majority voting (Table 1, views of one network each)", FUSIONS, "VFN", "majority"),
    Claim(XIA, "without the image VFN gains less (section 3.1)", FUSIONS[:1], "VFN", "VFN without image"),
    Claim(XIA, "without the image it gains, too (section 3.1)", FUSIONS[:1], "VFN without image", "majority"),
    Claim(XIA, "non-local STAPLE does not gain (Table 1)", (*FUSIONS, *RSTN), "nlstaple", "majority", NO_GAIN),
    Claim(XIA, "RSTNs as views [17] are above plain networks (Table 1)", BESIDE, "majority", "majority"),
    Claim(XIA, "VFN does not gain on RSTNs as views [17] (Table 1)", RSTN, "VFN", "majority", NO_GAIN),
    Claim(
        XIA,
        "VFN is above majority voting (Table 1, coarse-to-fine views [18])",
        ("xia2018_4_updates",),
        "VFN",
        "majority",
        incomparable="5 of 30,000 updates of VFN",
    ),
)
"""In the order of the page."""
