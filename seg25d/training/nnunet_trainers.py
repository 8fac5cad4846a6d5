"""nnU-Net's trainers by name: what each changes of the default recipe; those without a counterpart, and what to do.

Names and values: nnunetv2 2.8.1, `nnunetv2/training/nnUNetTrainer`. `nnUNetTrainer` itself is the recipe as it is, with
our optimizer and length (documentation/concepts/choices.md); an epoch of the others that fix a number of epochs has
nnU-Net's 250 updates.
"""

from collections.abc import Mapping
from typing import NamedTuple

from seg25d.core.errors import InputError

DEFAULT_TRAINER = "nnUNetTrainer"
ITERATIONS_PER_EPOCH = 250
"""nnUNetTrainer.py: num_iterations_per_epoch."""


class NnunetTrainer(NamedTuple):
    """What one of nnU-Net's trainers changes."""

    meaning: str
    settings: Mapping[str, str] = {}
    """Settings by name, as text, as `--set` takes them."""
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    """Axes along which training and prediction may mirror, where the plan allows it."""
    network: Mapping[str, str | int] = {}
    """Settings of the network that the plan gets."""


def _epochs(number: int) -> dict[str, str]:
    lengths = {"epochs": str(number), "iterations_per_epoch": str(ITERATIONS_PER_EPOCH)}
    return {**lengths, "iterations": "null", "time_budget_seconds": "null"}


def _adam(learning_rate: float) -> NnunetTrainer:
    """Adam with a polynomial schedule, as nnUNetTrainerAdam.py has it."""
    settings = {"optimizer": "adam", "learning_rate": f"{learning_rate:g}", "weight_decay": "3e-05"}
    meaning = f"Adam, learning rate {learning_rate:g}, polynomial schedule"
    return NnunetTrainer(meaning, {**settings, "schedule": "poly", "warmup": "0"})


_UPDATES = f"epochs of {ITERATIONS_PER_EPOCH} updates"
NNUNET_TRAINERS: Mapping[str, NnunetTrainer] = {
    DEFAULT_TRAINER: NnunetTrainer("the default recipe, optimizer and length of seg25d"),
    f"{DEFAULT_TRAINER}_1epoch": NnunetTrainer(f"one epoch of {ITERATIONS_PER_EPOCH} updates", _epochs(1)),
    **{
        f"{DEFAULT_TRAINER}_{number}epochs": NnunetTrainer(f"{number} {_UPDATES}", _epochs(number))
        for number in (5, 10, 20, 50, 100, 250, 500, 750, 2000, 4000, 8000)
    },
    **{
        f"{DEFAULT_TRAINER}_{number}epochs_NoMirroring": NnunetTrainer(
            f"{number} {_UPDATES}, no mirroring", _epochs(number), ()
        )
        for number in (250, 2000, 4000, 8000)
    },
    f"{DEFAULT_TRAINER}Benchmark_5epochs": NnunetTrainer(f"5 {_UPDATES}; log.jsonl has their seconds", _epochs(5)),
    f"{DEFAULT_TRAINER}NoMirroring": NnunetTrainer("no mirroring, neither in training nor in prediction", {}, ()),
    f"{DEFAULT_TRAINER}_onlyMirror01": NnunetTrainer("mirroring along D and H alone", {}, (0, 1)),
    f"{DEFAULT_TRAINER}_onlyMirror01_1500ep": NnunetTrainer(
        f"1500 {_UPDATES}, mirroring along D and H alone", _epochs(1500), (0, 1)
    ),
    f"{DEFAULT_TRAINER}NoDA": NnunetTrainer("no augmentation, no mirroring", {"augmentation.enabled": "false"}, ()),
    f"{DEFAULT_TRAINER}DiceLoss": NnunetTrainer("soft Dice alone", {"loss": "dice"}),
    f"{DEFAULT_TRAINER}DiceCELoss_noSmooth": NnunetTrainer(
        "Dice and cross-entropy, nothing added to the Dice (1e-8, compound_losses.py: where it is 0 / 0)",
        {"dice_smooth": "1e-08"},
    ),
    f"{DEFAULT_TRAINER}VanillaAdam": _adam(1e-2),
    f"{DEFAULT_TRAINER}VanillaAdam1en3": _adam(1e-3),
    f"{DEFAULT_TRAINER}VanillaAdam3en4": _adam(3e-4),
    f"{DEFAULT_TRAINER}CosAnneal": NnunetTrainer(
        "gradient descent with momentum 0.99, learning rate 0.01, cosine schedule",
        {
            "optimizer": "sgd",
            "momentum": "0.99",
            "learning_rate": "0.01",
            "weight_decay": "3e-05",
            "schedule": "cosine",
            "warmup": "0",
        },
    ),
    f"{DEFAULT_TRAINER}_warmup": NnunetTrainer(
        "the learning rate rises for the first 5 % (50 of 1000 epochs)", {"warmup": "0.05"}
    ),
    f"{DEFAULT_TRAINER}_probabilisticOversampling_033": NnunetTrainer(
        "a third of the windows at an object", {"foreground_share": "0.33"}
    ),
    f"{DEFAULT_TRAINER}_probabilisticOversampling_010": NnunetTrainer(
        "a tenth of the windows at an object", {"foreground_share": "0.1"}
    ),
    f"{DEFAULT_TRAINER}NoDeepSupervision": NnunetTrainer(
        "scores of the finest scale alone in the loss", network={"num_supervised": 1}
    ),
    f"{DEFAULT_TRAINER}BN": NnunetTrainer("batch norm in place of instance norm", network={"norm": "batch"}),
}
"""Trainers by name."""

OTHERS: Mapping[str, str] = {
    f"{DEFAULT_TRAINER}Adam": "AMSGrad is not here; the nearest is -tr nnUNetTrainerVanillaAdam, or --set "
    "optimizer=adamw",
    f"{DEFAULT_TRAINER}Adan": "Adan is not here; the default optimizer, Muon, needs no trainer of its own",
    f"{DEFAULT_TRAINER}CELoss": "the cross-entropy comes with the Dice here: leave -tr out",
    f"{DEFAULT_TRAINER}Topk10Loss": "the top-k loss is not here; --set loss=dice_focal looks at hard voxels, too",
    f"{DEFAULT_TRAINER}DiceTopK10Loss": "the top-k loss is not here; --set loss=dice_focal looks at hard voxels, too",
    f"{DEFAULT_TRAINER}DA5": "its augmentation is not here; --set augmentation.KEY=VALUE changes ours",
    f"{DEFAULT_TRAINER}_DASegOrd0": "its augmentation is not here; --set augmentation.KEY=VALUE changes ours",
    f"{DEFAULT_TRAINER}Benchmark_5epochs_noDataLoading": "windows are always loaded; log.jsonl has the share of time "
    "that is spent waiting for them, `data_wait_share`",
}
"""Beginnings of the names of trainers without a counterpart, and what to do instead; the longest one counts."""


def find_trainer(name: str) -> NnunetTrainer:
    """The trainer of this name.

    Raises:
        InputError: If there is no counterpart; says what to use instead, and lists those that there are.
    """
    if name in NNUNET_TRAINERS:
        return NNUNET_TRAINERS[name]
    begun = max((start for start in OTHERS if name.startswith(start)), key=len, default="")
    cure = OTHERS.get(begun, "settings are changed with --set KEY=VALUE, lengths with --epochs or --time-budget")
    raise InputError(f"-tr: there is no trainer {name}: {cure}; known: {', '.join(NNUNET_TRAINERS)}")
