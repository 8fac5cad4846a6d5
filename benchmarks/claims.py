"""What the papers claim, as data: the sentence, its number, where it is tested, and what of a result confirms it.

A claim is about differences of two rows of a table of `table_commands.py`, the first minus the second: a gain, none, or
that both are level. One table, named here before anything was measured, decides it; others stand beside. What no table
here can decide is listed with the reason. `verdicts.py` says what came out.
"""

import math
from typing import NamedTuple

SOBIROV, SHIVDEO = "Sobirov et al. 2022", "Shivdeo et al. 2021"
ANGERMANN, XIA = "Angermann & Haltmeier 2019", "Xia et al. 2018"
DICE = "dice"


class Range(NamedTuple):
    """Which differences confirm a claim, and which refute it; what lies between does neither."""

    low: float
    """Confirmed: the interval lies between these two."""
    high: float
    below: float
    """Refuted: it lies below this one, or above the next."""
    above: float


def gain(paper: float = 0.0) -> Range:
    """A claimed gain: confirmed above 0, refuted below half of the paper's; one without a number below 0."""
    return Range(0.0, math.inf, paper / 2, math.inf)


def level(margin: float) -> Range:
    """Two methods that the paper calls similar."""
    return Range(-margin, margin, -margin, margin)


LEVEL = level(0.01)
"""The largest difference that Sobirov et al. call similar: 0.747 and 0.737 (section 4)."""
LEVEL_MM = level(1.0)
"""Of HD95, whose numbers are lost: a voxel of their data (section 2.3)."""
VFN_GAIN = 0.0156
"""84.06 against 82.50 (Xia et al., Table 1, [18])."""
NO_GAIN = Range(-math.inf, VFN_GAIN / 2, -math.inf, VFN_GAIN / 2)
"""Less than half of what they call an improvement."""
NO_GAIN_NO_LOSS = Range(-VFN_GAIN / 2, VFN_GAIN / 2, -math.inf, VFN_GAIN / 2)
"""The same of a network: one that loses is not trained as theirs, which decides nothing."""


class Contrast(NamedTuple):
    """A difference of two rows."""

    first: str
    """Name of a row."""
    second: str
    claimed: Range
    score: str = DICE
    """A score of the rows, or `A - B`: one minus the other, of each case."""

    @property
    def name(self) -> str:
        """The two rows, and the score if it is not the Dice."""
        return f"{self.first} minus {self.second}" + ("" if self.score == DICE else f" ({self.score})")


class Claim(NamedTuple):
    """A claim of a paper."""

    paper: str
    sentence: str
    """With its place in the paper."""
    number: str
    """What the paper measured."""
    table: str
    """Name of the table that decides; `A + B`: first rows are in A, second ones in B."""
    contrasts: tuple[Contrast, ...]
    """All of them have to hold."""
    beside: tuple[str, ...] = ()
    """Tables that do not decide."""
    paired: bool = False
    """Whether rows belong together by their seeds: fusions of the same views, trainings on the same drawn cases."""
    incomparable: str = ""
    """Why it cannot be decided here, whatever comes out."""


class Count(NamedTuple):
    """A number of parameters in a paper, which `network_costs.py` counts."""

    paper: str
    sentence: str
    row: str
    number: float
    """The paper's."""
    half_unit: float
    """Half a unit of its last digit."""
    divided_by: str | None = None
    """Another row: the number is a ratio."""


class Untested(NamedTuple):
    """A claim that no table here tests."""

    paper: str
    sentence: str
    reason: str


BEST_STACKS, WORST_STACKS = "stacks, overlap 0.625", "stacks, overlap 0"
SCRATCH, WEIGHTS = "resnet_unet, scratch", "resnet_unet, resnet34_of_Dataset027_ACDC"
ALL_LABELS = "160"
"""The Dice after training with as many labels, in tables of `pretraining.py`."""
PLANE, VOLUME = "plane_hd95_mm", "volume_hd95_mm"
AREA = "area_mean_absolute_difference"
STACKS = ("stacks_4_updates", "stacks_4_time", "stacks_27_updates")
"""Of the planner's networks, and of slices that see their neighbours: not the paper's, so they decide nothing of it."""

CLAIMS: tuple[Claim, ...] = (
    Claim(
        SOBIROV,
        "super images are level with 3D (Table 2)",
        "0.778, 3D 0.779",
        "grids_4_updates",
        (Contrast("6 x 8", "3D", LEVEL),),
        ("grids_4_time",),
    ),
    Claim(
        SOBIROV,
        "the same, of thick slices",
        "0.778, 3D 0.779",
        "grids_27_updates",
        (Contrast("4 x 3", "3D", LEVEL),),
    ),
    Claim(
        SOBIROV,
        "squarer layouts are better (Table 2; the squarest here, by pixels, are 6 x 8: 336 x 320)",
        "+0.034 on 24 x 2, +0.016 on 2 x 24",
        "grids_4_updates",
        (Contrast("6 x 8", "24 x 2", gain(0.034)), Contrast("6 x 8", "2 x 24", gain(0.016))),
    ),
    Claim(
        SOBIROV,
        "HD95 of U-Nets on super images and in 3D is similar (section 4)",
        "lost",
        "grids_4_updates",
        (Contrast("6 x 8", "3D", LEVEL_MM, VOLUME),),
        ("grids_4_time",),
    ),
    Claim(
        SOBIROV,
        "measured on the plane of super images, HD95 is larger there than in 3D, and is not in the volume (section 4, "
        "their explanation for Swin UNETR)",
        "none",
        "grids_4_updates",
        (Contrast("6 x 8", "3D", gain(), f"{PLANE} - {VOLUME}"), Contrast("6 x 8", "3D", LEVEL_MM, VOLUME)),
        ("grids_4_time",),
    ),
    Claim(
        SOBIROV,
        "3D is above 11 x 8 (Table 3)",
        "+0.081",
        "atria_4_updates",
        (Contrast("3D", "11 x 8", gain(0.081)),),
    ),
    Claim(
        SOBIROV,
        "8 x 8 is above 11 x 8 (Table 3)",
        "+0.039",
        "atria_4_updates",
        (Contrast("8 x 8", "11 x 8", gain(0.039)),),
    ),
    Claim(
        SOBIROV,
        "pretrained weights help (PT, Table 3, there of ImageNet)",
        "+0.044",
        "pretrained_4_updates",
        (Contrast(WEIGHTS, SCRATCH, gain(0.044), ALL_LABELS),),
        paired=True,
    ),
    Claim(
        SOBIROV,
        "augmentation helps with them (PT&A, Table 3)",
        "+0.006",
        "pretrained_4_updates",
        (Contrast(f"{WEIGHTS}, augmented", WEIGHTS, gain(0.006), ALL_LABELS),),
        paired=True,
    ),
    Claim(
        SHIVDEO,
        "stacks are above slices (Table 2)",
        "+0.06",
        "shivdeo_4_updates",
        (Contrast(BEST_STACKS, "slices", gain(0.06)),),
        STACKS,
    ),
    Claim(
        SHIVDEO,
        "area plots of slices vary more than those of stacks (section 5.3)",
        "figures",
        "shivdeo_4_updates",
        (Contrast("slices", BEST_STACKS, gain(), "area_total_variation"),),
        STACKS,
    ),
    Claim(
        SHIVDEO,
        "area plots of slices are farther from the truth (section 5.3)",
        "figures",
        "shivdeo_4_updates",
        (Contrast("slices", BEST_STACKS, gain(), AREA),),
        STACKS,
    ),
    Claim(
        SHIVDEO,
        "without overlap, area plots are farther from the truth (section 5.5)",
        "figures",
        "stacks_4_updates",
        (Contrast(WORST_STACKS, BEST_STACKS, gain(), AREA),),
    ),
    Claim(
        ANGERMANN,
        "random 2.5D is above slices (section 4)",
        "+0.010",
        "vessels_902_updates",
        (Contrast("random 2.5D", "slices", gain(0.010)),),
    ),
    Claim(
        ANGERMANN,
        "random 2.5D is above 3D (section 4)",
        "+0.036",
        "vessels_902_updates",
        (Contrast("random 2.5D", "3D", gain(0.036)),),
    ),
    Claim(
        XIA,
        "VFN is above majority voting (Table 1, [18]; and, as it starts as the mean of the views here, above that)",
        "+0.0156",
        "fusions_4_updates",
        (Contrast("VFN", "majority", gain(VFN_GAIN)), Contrast("VFN", "mean", gain())),
        ("fusions_27_updates",),
        paired=True,
    ),
    Claim(
        XIA,
        "without the image VFN gains less (section 3.1)",
        "about half of its gain",
        "fusions_4_updates",
        (Contrast("VFN", "VFN without image", gain(VFN_GAIN / 2)),),
        paired=True,
    ),
    Claim(
        XIA,
        "without the image it gains, too (section 3.1)",
        "about half of its gain",
        "fusions_4_updates",
        (Contrast("VFN without image", "majority", gain(VFN_GAIN / 2)), Contrast("VFN without image", "mean", gain())),
        paired=True,
    ),
    Claim(
        XIA,
        "non-local STAPLE does not gain on majority voting (Table 1)",
        "-0.0025 [18], -0.0001 [17]",
        "fusions_4_updates",
        (Contrast("nlstaple", "majority", NO_GAIN),),
        ("fusions_27_updates", "rstn_4_updates", "rstn_27_updates"),
        paired=True,
    ),
    Claim(
        XIA,
        "RSTNs as views [17] are above networks of one pass (Table 1, where these are coarse-to-fine [18])",
        "+0.0198",
        "rstn_4_updates + fusions_4_updates",
        (Contrast("majority", "majority", gain(0.0198)),),
        ("rstn_27_updates + fusions_27_updates",),
    ),
    Claim(
        XIA,
        "VFN does not gain on RSTNs as views (Table 1, [17], pancreas of NIH)",
        "+0.0015",
        "rstn_4_updates",
        (Contrast("VFN", "majority", NO_GAIN_NO_LOSS),),
        ("rstn_27_updates",),
        paired=True,
    ),
    Claim(
        XIA,
        "VFN gains on RSTNs as views in 4 of 4 organs (Table 2, [17])",
        "+0.0069, +0.0029, +0.0034, +0.0084",
        "rstn_4_updates",
        (Contrast("VFN", "majority", gain(0.0054)), Contrast("VFN", "mean", gain())),
        ("rstn_27_updates",),
        paired=True,
    ),
    Claim(
        XIA,
        "VFN is above majority voting (Table 1, coarse-to-fine views [18])",
        "+0.0156",
        "xia2018_4_updates",
        (Contrast("VFN", "majority", gain(VFN_GAIN)), Contrast("VFN", "mean", gain())),
        paired=True,
        incomparable="2 of 30,000 updates of VFN",
    ),
)
"""In the order of the page."""

COUNTS: tuple[Count, ...] = (
    Count(SOBIROV, "2D has a third of the parameters (U-Net, section 4)", "U-Net (SI) 3D", 3, 0.05, "U-Net (SI) 2D"),
    Count(SOBIROV, "SE-norm U-Net in 3D: 21.75 M (section 4)", "SE-norm U-Net 3D", 21.75e6, 5e3),
    Count(SOBIROV, "SE-norm U-Net in 2D: 8.51 M (section 4)", "SE-norm U-Net 2D", 8.51e6, 5e3),
    Count(SOBIROV, "the same with kernels of 7: 28.09 M (section 4)", "SE-norm U-Net, kernel 7, 2D", 28.09e6, 5e3),
    Count(SOBIROV, "Swin UNETR in 3D: 15.7 M (section 4)", "Swin UNETR 3D", 15.7e6, 5e4),
    Count(SOBIROV, "Swin UNETR in 2D: 6.3 M (section 4)", "Swin UNETR 2D", 6.3e6, 5e4),
    Count(SHIVDEO, "V-Net: 206 M (section 4.2)", "V-Net 3D", 206e6, 5e5),
    Count(SHIVDEO, "U-Net with Xception and CBAM: 38 M (section 4.1)", "Xception + CBAM 2D, a slice", 38e6, 5e5),
    Count(ANGERMANN, "3D U-Net: 1.6 M (section 2.1)", "U-Net (2.5D) 3D", 1.6e6, 5e4),
    Count(ANGERMANN, "2D U-Net: 8.6 M (section 2.2)", "U-Net (2.5D) 2D", 8.6e6, 5e4),
)
"""They are exact: no test is needed."""

BESIDE_WORK = "tables of equal updates may be made beside other work; their columns have the seconds"

UNTESTED: tuple[Untested, ...] = (
    Untested(SOBIROV, "SE-norm U-Nets are level in 2D and 3D, kernels of 7 gain little (Table 1)", "not run"),
    Untested(SOBIROV, "Swin UNETR is level in 2D and 3D, its HD95 is larger on super images (Table 1)", "not run"),
    Untested(
        SOBIROV,
        "masking and jigsaw help a little: +0.004, +0.001 (Table 1)",
        "after minutes, as with 10 labels or single slices (`pretraining.py`), it is another question: not comparable",
    ),
    Untested(SOBIROV, "pretraining lowers HD95 (section 4)", "`pretraining.py` has Dice alone"),
    Untested(SHIVDEO, "stacks predict 4 to 5 times as fast (Table 3)", f"of whole CTs; {BESIDE_WORK}"),
    Untested(
        ANGERMANN,
        "random 2.5D has the smallest spread over cases (section 4)",
        "five made-up validation cases have none to speak of",
    ),
    Untested(
        ANGERMANN, "random 2.5D takes as much memory as 3D (section 4)", "of a GPU; the table has that of a process"
    ),
    Untested(XIA, "VFN takes 10 % more time than its views (section 1)", BESIDE_WORK),
    Untested(
        XIA,
        "VFN ends alike from random weights and from weights of 1 (section 2.3)",
        "no row; `initial_weights` in `plans.json` makes such a network",
    ),
    Untested(XIA, "cross-cross-augmentation gains 1 % (section 2.3)", "15 models of views for each seed"),
    Untested(XIA, "views with VFN are level with 3D (Table 1)", "no table has both after equal time"),
)
