"""The commands of the papers' tables, and how long each takes, reckoned from measured seconds of updates.

Commands are in the order in which they are of use: those first that decide what a paper claims. Seconds are those of
two threads of the slowest of the machines of the documentation ("Zen 3" there, without bfloat16): of an update, and of
what comes with each training (the start of Python, looks at validation windows, prediction and scores of the validation
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
    "4 shivdeo2021": Cost(1.3, 45, BY_PLAN),
    "27 2d": Cost(1.9, 40, RUN),
    "27 3d": Cost(2.0, 40, RUN),
    "27 si": Cost(2.1, 40, RUN + ", 12 slices instead of 9"),
    "27 stack": Cost(1.6, 40, RUN),
    "27 view": Cost(1.9, 20, RUN),
    "27 view rstn": Cost(1.9, 25, "planned to cost as much as 27 2d, in smaller windows"),
    "27 vfn": Cost(1.7, 220, BY_PLAN),
    "901 3d": Cost(3.0, 40, "vessels.json, one thread of Zen 4, times 0.9"),
    "901 slices": Cost(5.0, 60, BY_PLAN),
    "901 mip": Cost(5.0, 50, "vessels.json, one thread of Zen 4, times 0.9"),
    "902 3d": Cost(0.9, 25, "by its voxels, 0.3 of 901"),
    "902 slices": Cost(2.0, 35, "by its pixels, 0.4 of 901"),
    "902 mip": Cost(1.5, 30, "by its voxels, 0.3 of 901"),
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


def vessels(number: str, *, updates: int | None, seconds: int) -> dict[str, Command]:
    """The table of sparse vessels, in equal time and in equal updates.

    Args:
        number: Of the data set.
        updates: Of each training; None: only in equal time.
        seconds: Of each training.
    """
    words = ("sparse_vessels.py", "--dataset", number, "--recipe", "angermann2022")
    kinds = [(f"{number} {kind}", 1) for kind in ("3d", "slices", "mip")]
    timed, counted = f"vessels_{number}_time", f"vessels_{number}_updates"
    decides = "random 2.5D against slices and 3D"
    found = {timed: Command((*words, "--time-budget", f"{seconds}s", *CPU), decides, in_time(seconds, *kinds))}
    if updates is not None:
        found[counted] = Command((*words, "--iterations", str(updates), *CPU), decides, of_rows(updates, *kinds))
    return found


def fusions(number: str, updates: int, *, ablation: bool) -> dict[str, Command]:
    """The table of fusions, once of U-Nets and once of RSTNs as views.

    Args:
        number: Of the data set.
        updates: Of every model.
        ablation: Whether there is a network that does not see the image, of U-Nets.
    """
    words = ("fusions.py", "--dataset", number, "--disable-tta", "--iterations", str(updates))
    without, vfn = ("--without-ablation",), f"{number} vfn"
    return {
        f"fusions_{number}_updates": Command(
            (*words, "--run", "mv__holdout", *(() if ablation else without), *CPU),
            "VFN against majority voting, the image, non-local STAPLE",
            of_rows(updates, (f"{number} view", 3), (vfn, 1 + ablation)),
        ),
        f"rstn_{number}_updates": Command(
            (*words, "--run", "mv__rstn__holdout", *without, *CPU),
            "RSTN beside the same",
            of_rows(updates, (f"{number} view rstn", 3), (vfn, 1)),
        ),
    }


def few_labels(configuration: str, updates: int, pretraining: int) -> dict[str, Command]:
    """The table of inpainting and jigsaw with ten labels."""
    words = ("pretraining.py", "--dataset", "4", "--configuration", configuration, "--labels", "10", "--seeds", "3")
    lengths = ("--iterations", str(updates), "--pretraining-iterations", str(pretraining))
    kind = f"4 {configuration}"
    trainings = (
        *of_rows(updates, (kind, 3)),
        *of_rows(updates + pretraining, (kind, 1)),
        *of_rows(pretraining, (kind, 2)),
    )
    command = Command((*words, *lengths, *CPU), "gain of inpainting and jigsaw", trainings)
    return {f"pretraining_4_{configuration}_updates": command}


ENCODER = "WORKSPACE/benchmarks/encoder_weights/resnet34_of_Dataset027_ACDC.safetensors"
"""Where one command puts a file that another one takes; the folder is filled in."""
PRETRAINED_ROWS = (
    "resnet_unet, scratch",
    "resnet_unet, resnet34_of_Dataset027_ACDC",
    "resnet_unet, resnet34_of_Dataset027_ACDC, augmented",
)
GRIDS_4, GRIDS_27 = (("super_image_grids.py", "--dataset", number) for number in ("4", "27"))
STACKS_4, STACKS_27 = (("stacks_and_slices.py", "--dataset", number) for number in ("4", "27"))
SLICES_AND_BEST_STACKS = ("--only", "slices", "stacks, overlap 0.625")
PT = ("pretraining.py", "--dataset", "4", "--configuration", "si", "--recipe", "sobirov2022", "--labels", "160")
XIA = ("fusions.py", "--dataset", "4", "--run", "mv__holdout__fine__xia2018", "--recipe", "xia2018", "--disable-tta")

COMMANDS: dict[str, Command] = {
    "network_costs": Command(("network_costs.py",), "numbers of parameters and operations"),
    "grids_4_updates": Command(
        (*GRIDS_4, "--iterations", "45", *CPU),
        "3D against super images, layouts",
        of_rows(45, ("4 3d", 1), ("4 si", 6)),
    ),
    **fusions("4", 70, ablation=True),
    "stacks_4_updates": Command(
        (*STACKS_4, "--stack-size", "16", "--iterations", "150", *CPU),
        "stacks against slices, overlaps, area plots",
        of_rows(150, ("4 2d", 1), ("4 stack", 3)),
    ),
    **vessels("902", updates=30, seconds=60),
    **vessels("901", updates=None, seconds=70),
    **few_labels("2d", 60, 120),
    "shivdeo_4_updates": Command(
        (
            *(*STACKS_4, "--recipe", "shivdeo2021_32", "--set", "threshold=null"),
            *(*SLICES_AND_BEST_STACKS, "--iterations", "60", *CPU),
        ),
        "the published V-Net against the published slice-wise network",
        of_rows(60, ("4 shivdeo2021", 2)),
    ),
    "atria_4_updates": Command(
        ("atria.py", "--dataset", "4", "--iterations", "25", *CPU),
        "11 x 8, 8 x 8 and 3D in one common size",
        of_rows(25, ("4 atria", 3)),
    ),
    "encoder_27_updates": Command(
        ("encoder_weights.py", "--dataset", "27", "--iterations", "60", *CPU, "--output", ENCODER),
        "weights for PT and PT&A",
        (Trainings("27 2d", 1, updates=60),),
    ),
    "pretrained_4_updates": Command(
        (
            *(*PT, "--weights", ENCODER, "--augmented-recipe", "sobirov2022_pta"),
            *("--only", *PRETRAINED_ROWS, "--seeds", "3", "--iterations", "20", *CPU),
        ),
        "PT and PT&A, with a ResNet trained on data set 27",
        of_rows(20, ("4 resnet_unet", 3)),
    ),
    "xia2018_4_updates": Command(
        (*XIA, "--without-ablation", "--view-iterations", "1000", "--iterations", "5", *CPU),
        "the paper's coarse-to-fine views and fusion network",
        (*of_rows(1000, ("4 view xia2018", 6)), *of_rows(5, ("4 vfn xia2018", 1))),
    ),
    **few_labels("si", 30, 60),
    **fusions("27", 50, ablation=False),
    "grids_4_time": Command(
        (*GRIDS_4, "--only", "3D", "8 x 6", "--time-budget", "60s", *CPU),
        "3D against super images",
        in_time(60, ("4 3d", 1), ("4 si", 1)),
    ),
    "stacks_4_time": Command(
        (*STACKS_4, "--stack-size", "16", *SLICES_AND_BEST_STACKS, "--time-budget", "60s", *CPU),
        "stacks against slices",
        in_time(60, ("4 2d", 1), ("4 stack", 1)),
    ),
    "stacks_27_updates": Command(
        (*STACKS_27, "--stack-size", "8", *SLICES_AND_BEST_STACKS, "--iterations", "40", *CPU),
        "stacks against slices, of thick slices",
        of_rows(40, ("27 2d", 1), ("27 stack", 1)),
    ),
    "grids_27_updates": Command(
        (*GRIDS_27, "--layouts", "4x3", "--iterations", "30", *CPU),
        "3D against super images, of thick slices",
        of_rows(30, ("27 3d", 1), ("27 si", 1)),
    ),
}
"""The command of each table by name; `updates` and `time` in the name say what is equal."""
