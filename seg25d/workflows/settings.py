"""Settings of runs: words of the user and a recipe become finished settings, once, before anything is done."""

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
from seg25d.training.recipes import find_recipe
from seg25d.training.usual_lengths import PRETRAINING_EPOCHS
from seg25d.workflows.options import PretrainingOptions, TrainingOptions

logger = logging.getLogger(__name__)
JOINT = "fusion.joint"
"""The setting that has views and fusion trained together."""
FINE = "fine"
"""The setting that has a fine model trained, for coarse-to-fine segmentation; also the parts of it."""


@dataclass(frozen=True)
class Settings:
    """What the folds of a run are trained with."""

    recipe: TrainingConfig
    """Where a fold that has not begun starts from."""
    changes: Mapping[str, str]
    """What the user changes, by name, as text; also of a fold that has begun, which goes on with its own settings."""
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
    """The settings that words mean.

    Args:
        options: Recipe, seed and length.
        words: Settings by name: those of the options, or those that a run which others need is to have.
        fuses_views: Whether it is for a network that fuses views.
        pretrained: What a run that has not begun begins with.

    Raises:
        InputError: If there is no such recipe or setting, or both a number of updates and a time are given.
        RecordError: If a value does not fit.
    """
    fine = asks_for_fine(words)
    recipe = find_recipe(options.recipe, fuses_views=fuses_views, fine=fine)
    if fuses_views and JOINT in words:
        fusion = apply_settings(recipe, {JOINT: words[JOINT]}).fusion
        assert fusion is not None, "the recipe of what fuses views has it"
        recipe = find_recipe(options.recipe, fuses_views=True, joint=fusion.joint, fine=fine)
    if isinstance(options, PretrainingOptions):
        recipe = _for_pretraining(recipe, options)
    if pretrained is not None:
        recipe = recipe.model_copy(update={"pretrained": pretrained})
    seed = {} if options.seed is None else {"seed": str(options.seed)}
    length = length_settings(options.epochs, options.iterations, options.time_budget_s, recipe.iterations_per_epoch)
    changes = seed | length | {key: value for key, value in words.items() if key != FINE}
    config = apply_settings(recipe, changes)
    if "early_stopping" in words and config.time_budget_seconds is not None:
        logger.warning("early_stopping has no effect with a time budget, which says how long the run is")
    return Settings(recipe, changes, config)


def asks_for_fine(words: Mapping[str, str]) -> bool:
    """Whether a fine model is to be trained: `fine` is true, or a part of it is set."""
    part_is_set = any(key.startswith(f"{FINE}.") for key in words)
    return parse_record({FINE: words.get(FINE, part_is_set)}, _Fine, "--set").fine


def _for_pretraining(recipe: TrainingConfig, options: PretrainingOptions) -> TrainingConfig:
    """A recipe, as far as it is not about labels."""
    return recipe.model_copy(
        update={
            "epochs": PRETRAINING_EPOCHS,
            "pretext": PretextConfig(task=options.task),
            "restore_best": True,
            "foreground_share": 0.0,
            "threshold": None,
            "early_stopping": None,
            "augmentation": AugmentationConfig(enabled=False),
        }
    )
