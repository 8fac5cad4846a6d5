"""Settings of runs: the user's options and a recipe are resolved to complete settings once, before any work."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from seg25d.core.records import Record, parse_record
from seg25d.planning.pretext import PretextConfig
from seg25d.training.config import (
    AugmentationConfig,
    PretrainedConfig,
    TrainingConfig,
    apply_settings,
    length_settings,
)
from seg25d.training.nnunet_trainers import find_trainer
from seg25d.training.recipes import find_recipe
from seg25d.training.usual_lengths import PRETRAINING_EPOCHS
from seg25d.workflows.options import PretrainingOptions, TrainingOptions

logger = logging.getLogger(__name__)
JOINT = "fusion.joint"
"""The setting for training views and fusion together."""
FINE_VIEWS = "fusion.fine"
"""The setting for coarse-to-fine views, which are not trained together with the fusion."""
FINE = "fine"
"""The setting for training a fine model, for coarse-to-fine segmentation; also the prefix of its parts."""


@dataclass(frozen=True)
class Settings:
    """Training settings of the folds of a run."""

    recipe: TrainingConfig
    """Settings before the user's changes."""
    changes: Mapping[str, str]
    """The user's changes, by name, as text; also applied to a fold that has begun, which keeps its other settings."""
    config: TrainingConfig
    """Settings of a fold that has not begun."""


class _Fine(Record):
    fine: bool


def resolve_settings(
    options: TrainingOptions,
    words: Mapping[str, str],
    *,
    fuses_views: bool = False,
    pretrained: PretrainedConfig | None = None,
) -> Settings:
    """Resolve the user's options to settings.

    Args:
        options: Recipe, trainer of nnU-Net, seed and length.
        words: Settings by name, as text: those of the options, or those of a run that another one needs.
        fuses_views: Whether the network fuses views.
        pretrained: The pretrained weights of a run that has not begun.

    Raises:
        InputError: If the recipe or a setting does not exist, or both a number of updates and a time are given.
        RecordError: If a value does not fit.
    """
    fine = asks_for_fine(words)
    recipe = find_recipe(options.recipe, fuses_views=fuses_views, fine=fine)
    if fuses_views and JOINT in words:
        fusion = apply_settings(recipe, {FINE_VIEWS: "false", JOINT: words[JOINT]}).fusion
        assert fusion is not None, "the recipe of what fuses views has it"
        recipe = find_recipe(options.recipe, fuses_views=True, joint=fusion.joint, fine=fine)
    if isinstance(options, PretrainingOptions):
        recipe = _adapt_to_pretraining(recipe, options)
    if pretrained is not None:
        recipe = recipe.model_copy(update={"pretrained": pretrained})
    trainer = {} if options.trainer is None else find_trainer(options.trainer).settings
    seed = {} if options.seed is None else {"seed": str(options.seed)}
    length = length_settings(options.epochs, options.iterations, options.time_budget_s, recipe.iterations_per_epoch)
    changes = {**trainer} | seed | length | {key: value for key, value in words.items() if key != FINE}
    config = apply_settings(recipe, changes)
    if "early_stopping" in words and config.time_budget_seconds is not None:
        logger.warning("early_stopping has no effect with a time budget, which determines the length of the run")
    return Settings(recipe, changes, config)


def asks_for_fine(words: Mapping[str, str]) -> bool:
    """Whether the settings ask for a fine model: `fine` is true, or a part of it is set."""
    part_is_set = any(key.startswith(f"{FINE}.") for key in words)
    return parse_record({FINE: words.get(FINE, part_is_set)}, _Fine, "--set").fine


def _adapt_to_pretraining(recipe: TrainingConfig, options: PretrainingOptions) -> TrainingConfig:
    """Adapt a recipe to pretraining: without the settings that need labels."""
    return recipe.model_copy(
        update={
            "epochs": PRETRAINING_EPOCHS,
            "pretext": PretextConfig(task=options.task),
            "restore_best": True,
            "foreground_share": 0.0,
            "largest_slices": None,
            "threshold": None,
            "early_stopping": None,
            "augmentation": AugmentationConfig(enabled=False),
        }
    )
