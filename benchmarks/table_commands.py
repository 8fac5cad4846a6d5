"""The commands of the papers' tables, and how long each takes, reckoned from measured seconds of updates.

Commands are in the order in which they are of use: those first that decide what a paper claims, with trainings long
enough to do so, and those of `SPARE` last, for which there is no time left in six hours. Seconds are those of two
threads of the slowest of the machines of the documentation ("Zen 3" there, without bfloat16): of an update, and of what
comes with each training (the start of Python, looks at validation windows, prediction and scores of the validation
cases without mirroring). The second part was 40 s on data set 27 (14 s for the 14 cases, 11 s for the looks), and is
reckoned by the size of the cases elsewhere. Other machines take other times; `seconds.json` says what a command took.
"""

from typing import NamedTuple

CPU = ("--device", "cpu", "--num-processes", "0")
SEEDS = 3
"""Trainings of each contender, the default of all tables."""


class Cost(NamedTuple):
    """Seconds of a kind of training."""

    update: float
    rest: float
    """Per training, whatever its length."""
    source: str


RUN = "log.jsonl of `seg25d run 27 --time-budget 60min`"
BY_PLAN = "operations of an update by the plan, at 64 GFLOP/s as those of 27"
LOOKS = "; 12 looks at validation windows"
COSTS = {
    "4 2d": Cost(0.42, 25, BY_PLAN),
    "4 3d": Cost(0.9, 30, BY_PLAN),
    "4 si": Cost(0.7, 25, BY_PLAN),
    "4 stack": Cost(0.13, 25, "peers_hippocampus_avx2.json, 16 of 40 slices"),
    "4 view": Cost(0.42, 12, "as 4 2d, without scores"),
    "4 view rstn": Cost(0.85, 15, "twice 4 2d: two networks"),
    "4 vfn": Cost(1.5, 150, BY_PLAN),
    "4 view xia2018": Cost(0.05, 8, "`train 4 coronal 0 --recipe xia2018 --iterations 2000`, one thread"),
    "4 vfn xia2018": Cost(23.6, 150, BY_PLAN),
    "4 resnet_unet": Cost(3.3, 60, BY_PLAN),
    "4 atria": Cost(1.5, 25, BY_PLAN),
    "4 shivdeo2021 slices": Cost(1.5, 45, BY_PLAN),
    "4 shivdeo2021 stack": Cost(6.0, 60, BY_PLAN),
    "27 2d": Cost(1.9, 40, RUN),
    "27 3d": Cost(2.0, 40, RUN),
    "27 si": Cost(2.1, 40, RUN + ", 12 slices instead of 9"),
    "27 stack": Cost(1.6, 40, RUN),
    "27 view": Cost(1.9, 20, RUN),
    "27 view rstn": Cost(1.9, 25, "planned to cost as much as 27 2d, in smaller windows"),
    "27 vfn": Cost(1.7, 220, BY_PLAN),
    "902 3d": Cost(0.9, 45, "vessels.json, one thread of Zen 4, times 0.9, by its voxels, 0.3 of 901" + LOOKS),
    "902 slices": Cost(2.0, 55, "by its pixels, 0.4 of 901, by the plan" + LOOKS),
    "902 mip": Cost(1.5, 90, "vessels.json, one thread of Zen 4, times 0.9, by its voxels, 0.3 of 901" + LOOKS),
}
"""By data set and kind of training."""
PREPARATION_SECONDS = 480.0
"""For making the vessels, planning and preprocessing."""


class Trainings(NamedTuple):
    """Trainings of one kind that a command does."""

    kind: str
    """Key of `COSTS`."""
    number: int
    updates: int | None = None
    seconds: float | None = None
    """Of each, in tables of equal time."""

    @property
    def total_seconds(self) -> float:
        """How long all of them take."""
        cost = COSTS[self.kind]
        own = self.seconds if self.seconds is not None else (self.updates or 0) * cost.update
        return self.number * (own + cost.rest)


class Command(NamedTuple):
    """A command, without workspace and output."""

    words: tuple[str, ...]
    decides: str
    """What it is there for."""
    trainings: tuple[Trainings, ...] = ()

    @property
    def seconds(self) -> float:
        """About how long it takes where nothing is there yet; a minute if it trains nothing."""
        return sum(each.total_seconds for each in self.trainings) or 60.0


def of_rows(updates: int, *kinds: tuple[str, int]) -> tuple[Trainings, ...]:
    """Trainings of so many rows of each kind, with all seeds."""
    return tuple(Trainings(kind, rows * SEEDS, updates=updates) for kind, rows in kinds)


def in_time(seconds: float, *kinds: tuple[str, int]) -> tuple[Trainings, ...]:
    """The same with a time for each training."""
    return tuple(Trainings(kind, rows * SEEDS, seconds=seconds) for kind, rows in kinds)


def fusions(number: str, run: str, kind: str, lengths: tuple[int, int], decides: str, *more: str) -> dict[str, Command]:
    """The table of fusions of one kind of views.

    Args:
        number: Of the data set.
        run: Name of the run, by which the table is named.
        kind: Of the training of a view.
        lengths: Updates of each view, and of each fusion network.
        decides: What it is there for.
        more: Further words, such as `--without-ablation`: no network that does not see the image.
    """
    of_views, of_fusion = lengths
    words = ("fusions.py", "--dataset", number, "--disable-tta", "--run", run)
    numbers = ("--view-iterations", str(of_views), "--iterations", str(of_fusion))
    networks = 1 if "--without-ablation" in more else 2
    trainings = (*of_rows(of_views, (f"{number} {kind}", 3)), *of_rows(of_fusion, (f"{number} vfn", networks)))
    name = "rstn" if "rstn" in run else "fusions"
    return {f"{name}_{number}_updates": Command((*words, *numbers, *more, *CPU), decides, trainings)}


ENCODER = "WORKSPACE/benchmarks/encoder_weights/resnet34_of_Dataset027_ACDC.safetensors"
"""Where one command puts a file that another one takes; the folder is filled in."""
PRETRAINED_ROWS = (
    "resnet_unet, scratch",
    "resnet_unet, resnet34_of_Dataset027_ACDC",
    "resnet_unet, resnet34_of_Dataset027_ACDC, augmented",
)
GRIDS_4, GRIDS_27 = (("super_image_grids.py", "--dataset", number) for number in ("4", "27"))
LAYOUTS = ("--layouts", "6x8", "24x2", "2x24")
"""Of tiles of 56 x 40 pixels: 336 x 320, 1344 x 80 and 112 x 960."""
STACKS_4, STACKS_27 = (("stacks_and_slices.py", "--dataset", number) for number in ("4", "27"))
BEST_STACKS = "stacks, overlap 0.625"
VESSELS_902 = ("sparse_vessels.py", "--dataset", "902", "--recipe", "angermann2022")
SHORT_EPOCHS = ("--set", "iterations_per_epoch=10", "early_stopping=null")
PT = ("pretraining.py", "--dataset", "4", "--configuration", "si", "--recipe", "sobirov2022", "--labels", "160")
XIA = ("fusions.py", "--dataset", "4", "--run", "mv__holdout__fine__xia2018", "--recipe", "xia2018", "--disable-tta")
UNETS, RSTNS = "VFN against majority voting and the mean, non-local STAPLE", "RSTN beside the same"
FEW_LOOKS = ("--set", "validation_windows=10")
"""A look of the fusion network at 40 windows of data set 27 takes long, and decides nothing."""

COMMANDS: dict[str, Command] = {
    "network_costs": Command(("network_costs.py",), "numbers of parameters and operations"),
    "grids_4_updates": Command(
        (*GRIDS_4, *LAYOUTS, "--iterations", "120", *CPU),
        "3D against super images, layouts, HD95",
        of_rows(120, ("4 3d", 1), ("4 si", 3)),
    ),
    "stacks_4_updates": Command(
        (
            *(*STACKS_4, "--stack-size", "16", "--only", "slices", "stacks, overlap 0", BEST_STACKS),
            *("--iterations", "300", *CPU),
        ),
        "stacks against slices, overlaps, area plots",
        of_rows(300, ("4 2d", 1), ("4 stack", 2)),
    ),
    **fusions("4", "mv__holdout", "view", (120, 80), f"{UNETS}, the image"),
    "vessels_902_updates": Command(
        (*VESSELS_902, *SHORT_EPOCHS, "--iterations", "120", *CPU),
        "random 2.5D against slices and 3D",
        of_rows(120, ("902 3d", 1), ("902 slices", 1), ("902 mip", 1)),
    ),
    **fusions("4", "mv__rstn__holdout", "view rstn", (120, 80), RSTNS, "--without-ablation"),
    "xia2018_4_updates": Command(
        (*XIA, "--without-ablation", "--view-iterations", "1500", "--iterations", "2", *CPU),
        "the paper's coarse-to-fine views; their fusion network is hardly trained",
        (*of_rows(1500, ("4 view xia2018", 6)), *of_rows(2, ("4 vfn xia2018", 1))),
    ),
    "shivdeo_4_updates": Command(
        (
            *(*STACKS_4, "--recipe", "shivdeo2021_64", "--set", "threshold=null"),
            *("--only", "slices", BEST_STACKS, "--iterations", "80", *CPU),
        ),
        "the published V-Net against the published slice-wise network",
        of_rows(80, ("4 shivdeo2021 slices", 1), ("4 shivdeo2021 stack", 1)),
    ),
    **fusions("27", "mv__holdout", "view", (50, 50), UNETS, "--without-ablation", *FEW_LOOKS),
    **fusions("27", "mv__rstn__holdout", "view rstn", (50, 50), RSTNS, "--without-ablation", *FEW_LOOKS),
    "grids_4_time": Command(
        (*GRIDS_4, *LAYOUTS, "--only", "3D", "6 x 8", "--time-budget", "120s", *CPU),
        "3D against super images",
        in_time(120, ("4 3d", 1), ("4 si", 1)),
    ),
    "stacks_4_time": Command(
        (*STACKS_4, "--stack-size", "16", "--only", "slices", BEST_STACKS, "--time-budget", "120s", *CPU),
        "stacks against slices",
        in_time(120, ("4 2d", 1), ("4 stack", 1)),
    ),
    "grids_27_updates": Command(
        (*GRIDS_27, "--layouts", "4x3", "--iterations", "80", *CPU),
        "3D against super images, of thick slices",
        of_rows(80, ("27 3d", 1), ("27 si", 1)),
    ),
    "stacks_27_updates": Command(
        (*STACKS_27, "--stack-size", "8", "--only", "slices", BEST_STACKS, "--iterations", "80", *CPU),
        "stacks against slices, of thick slices",
        of_rows(80, ("27 2d", 1), ("27 stack", 1)),
    ),
    "atria_4_updates": Command(
        ("atria.py", "--dataset", "4", "--iterations", "60", *CPU),
        "11 x 8, 8 x 8 and 3D in one common size",
        of_rows(60, ("4 atria", 3)),
    ),
    "encoder_27_updates": Command(
        ("encoder_weights.py", "--dataset", "27", "--iterations", "60", *CPU, "--output", ENCODER),
        "weights for PT and PT&A",
        (Trainings("27 2d", 1, updates=60),),
    ),
    "pretrained_4_updates": Command(
        (
            *(*PT, "--weights", ENCODER, "--augmented-recipe", "sobirov2022_pta"),
            *("--only", *PRETRAINED_ROWS, "--seeds", "3", "--iterations", "60", *CPU),
        ),
        "PT and PT&A, with a ResNet trained on data set 27",
        of_rows(60, ("4 resnet_unet", 3)),
    ),
}
"""The command of each table by name; `updates` and `time` in the name say what is equal."""
SPARE = ("atria_4_updates", "encoder_27_updates", "pretrained_4_updates")
"""The last ones, beyond six hours."""
