"""Every setting of a run changes what is trained: one that nobody passes on would be a number in a file, no more."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from seg25d.training import trainer
from seg25d.training.config import AugmentationConfig, TrainingConfig
from seg25d.training.sampling import WindowSource
from seg25d.training.state import TrainingState
from seg25d.training.trainer import FoldJob

Maker = Callable[..., FoldJob]
RUN: dict[str, Any] = {
    "epochs": 4,
    "iterations_per_epoch": 1,
    "validation_windows": 2,
    "optimizer": "adamw",
    "schedule": "constant",
    "warmup": 0.0,
    "gradient_clip": None,
    "weight_averaging": 0.0,
    "augmentation": {"enabled": False},
}
STEPS = {"schedule": "step", "schedule_epochs": 1}
CHANGES: dict[str, tuple[Mapping[str, Any], Any]] = {
    "seed": ({}, 1),
    "epochs": ({}, 3),
    "iterations_per_epoch": ({}, 2),
    "iterations": ({}, 3),
    "loss": ({}, "dice_focal"),
    "dice_smooth": ({"loss": "dice"}, 100.0),
    "optimizer": ({}, "sgd"),
    "learning_rate": ({}, 0.02),
    "momentum": ({"optimizer": "sgd"}, 0.5),
    "weight_decay": ({}, 0.9),
    "warmup": ({}, 0.9),
    "schedule": ({}, "poly"),
    "schedule_epochs": (STEPS, 2),
    "schedule_factor": (STEPS, 0.1),
    "schedule_drops": ({"schedule": "drops"}, (0.25, 0.5)),
    "lowest_learning_rate": ({"schedule": "cosine"}, 0.009),
    "gradient_clip": ({"optimizer": "sgd"}, 1e-4),
    "weight_averaging": ({}, 0.9),
    "foreground_share": ({"foreground_share": 0.0}, 1.0),
    "validation_windows": ({}, 3),
}
"""Setting: what else the run has, and another value."""
ELSEWHERE = {
    "schema_version": "no setting",
    "recipe": "a name",
    "time_budget_seconds": "test_trainer.py",
    "early_stopping": "test_trainer.py",
    "restore_best": "test_trainer.py",
    "threshold": "of the model's header, below",
    "small_windows": "test_small_windows.py",
    "largest_slices": "test_largest_slices.py",
    "precision": "test_trainer.py",
    "augmentation": "below",
    **dict.fromkeys(("fusion", "fine", "pretext", "pretrained"), "tests of their own"),
}


SEEN = ("train_loss", "validation_loss", "validation_dice", "learning_rate")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, make_job: Maker) -> Callable[..., str]:
    """Trains, and gives a digest of the weights at the end, and of losses, Dice and learning rates on the way.

    Neither pictures nor files are made: they are what takes long.
    """
    states: list[TrainingState] = []

    class Silent:
        def __init__(self, folder: object, state: TrainingState, *_: object, **__: object) -> None:
            states.append(state)

        def step(self, progress: float) -> None: ...

        def epoch(self) -> None: ...

        def draw(self, final: bool) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(trainer, "Monitor", Silent)
    for name in ("save_checkpoint", "save_model"):
        monkeypatch.setattr(trainer, name, lambda *_: None)

    def train(settings: Mapping[str, Any], threshold: float | None = None) -> str:
        job = make_job(f"run_{len(states)}", **settings)
        trainer.train_fold(replace(job, header=job.header.model_copy(update={"threshold": threshold})))
        digest = hashlib.sha256()
        for line in states[-1].log:
            digest.update(repr([line[name] for name in SEEN]).encode())
        for name, values in states[-1].averaged.state_dict().items():
            digest.update(name.encode() + values.numpy().tobytes())
        return digest.hexdigest()

    return train


def test_no_setting_is_forgotten_here() -> None:
    assert set(CHANGES) | set(ELSEWHERE) == set(TrainingConfig.model_fields)


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_changes_what_is_trained(trained: Callable[..., str], name: str) -> None:
    others, value = CHANGES[name]
    assert trained({**RUN, **others}) != trained({**RUN, **others, name: value})


def test_the_threshold_of_a_model_counts_in_its_validation(trained: Callable[..., str]) -> None:
    assert len({trained(RUN, threshold) for threshold in (None, 0.01, 0.99)}) == 3


def test_the_same_settings_train_the_same(trained: Callable[..., str]) -> None:
    assert trained(RUN) == trained(RUN)


CHANCES = [
    *("spatial", "elastic", "anisotropy", "noise", "blur", "brightness", "contrast", "low_resolution"),
    *("gamma_inverted", "gamma", "log_gamma", "cube_rotation"),
]
ALWAYS = dict.fromkeys(CHANCES, 1.0)
OTHER_VALUES: dict[str, Any] = {
    "enabled": False,
    "rotation_degrees": 40.0,
    "scaling": (0.5, 0.6),
    "scaling_per_axis": True,
    "elastic_mm": 1.0,
    "elastic_distribution": "uniform",
    "elastic_control_points": 6,
    "elastic_fixed_border": True,
    "anisotropy_factor": (2.0, 3.0),
}


@pytest.mark.parametrize("name", [name for name in AugmentationConfig.model_fields if name != "place"])
def test_a_setting_of_the_augmentation_changes_what_is_seen(make_job: Maker, name: str) -> None:
    changed = ALWAYS | {name: OTHER_VALUES.get(name, 0.0)}

    def seen(settings: Mapping[str, Any]) -> bytes:
        job = make_job("a", augmentation={"mirror": 0.5, **settings})
        plan = job.header.plan.model_copy(update={"window": (8, 8, 8)})
        source = WindowSource(job.store, plan, job.config, {"train": job.split.train, "validate": job.split.val})
        return b"".join(source.window("train", index)[0].numpy().tobytes() for index in range(4))

    assert seen(changed) != seen(ALWAYS)
