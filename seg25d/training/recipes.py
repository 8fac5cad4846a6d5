"""Training recipes by name: how each paper trains.

The other half of a recipe, its planning rules, is in `planning/recipe_rules.py`, under the same name.
"1.7" and the like are sections of methods.md, the project's digest of the papers. Options that a paper does not use
are off: warm-up, clipping of gradients, the running mean of the weights, windows around the foreground, parts of
windows.
"""

from typing import Any

from seg25d.core.errors import InputError
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.planning.recipe_names import WITH_FINE_VIEWS
from seg25d.training.config import AugmentationConfig, FusionConfig, TrainingConfig

NO_INTENSITY: dict[str, Any] = dict.fromkeys(
    ("noise", "blur", "brightness", "contrast", "low_resolution", "gamma_inverted", "gamma"), 0.0
)
"""No change of intensities."""

PTA_AUGMENTATION = AugmentationConfig(
    # RandomAffine: one zoom per axis from 0.9 to 1.1, 10 degrees.
    spatial=1.0,
    rotation_degrees=10.0,
    scaling=(0.9, 1.1),
    scaling_per_axis=True,
    # RandomElasticDeformation: 7 control points, of which the outermost lie outside of the image and the next on its
    # border, both fixed; up to 7.5 mm along each axis. Here they are joined linearly, there by cubic splines.
    elastic=1.0,
    elastic_mm=7.5,
    elastic_distribution="uniform",
    elastic_control_points=5,
    elastic_fixed_border=True,
    # RandomAnisotropy: one axis, 1.5 to 5 times as coarse. RandomGamma: logarithm from -0.3 to 0.3.
    anisotropy=1.0,
    anisotropy_factor=(1.5, 5.0),
    log_gamma=1.0,
    # RandomFlip: with a chance of one half, along the axes that the plan allows.
    mirror=0.5,
    **NO_INTENSITY,
)
"""The row PT&A of Sobirov et al., Table 3 (1.7): five transforms of TorchIO, with TorchIO's default settings."""

SOBIROV2022 = TrainingConfig(
    recipe="sobirov2022",
    epochs=100,  # 1.7
    iterations_per_epoch=90,  # 1.7: a pass over 179 of 224 cases in batches of 2
    loss="dice_focal",  # 1.7: not in the paper, from the authors' code
    dice_smooth=1.0,  # 1.7
    optimizer="adamw",  # 1.7
    learning_rate=1e-3,  # 1.7
    weight_decay=1e-5,  # 1.7
    schedule="cosine_restarts",  # 1.7
    schedule_epochs=25,  # 1.7
    lowest_learning_rate=1e-5,  # 1.7
    threshold=None,  # 1.9: 0.5, which for one class is the likeliest
    warmup=0.0,
    gradient_clip=None,
    weight_averaging=0.0,
    foreground_share=0.0,
    augmentation=AugmentationConfig(enabled=False),  # 1.7
)

SOBIROV2022_PTA = SOBIROV2022.model_copy(update={"recipe": "sobirov2022_pta", "augmentation": PTA_AUGMENTATION})
"""The same with augmentation. Pretraining, the P of PT&A, is a step of its own."""

SOBIROV2022_ATRIA = SOBIROV2022.model_copy(
    update={"recipe": "sobirov2022_atria", "iterations_per_epoch": 38}  # 1.7: 75 of 100 cases in batches of 2
)
SOBIROV2022_ATRIA64 = SOBIROV2022_ATRIA.model_copy(update={"recipe": "sobirov2022_atria64"})

SHIVDEO2021 = TrainingConfig(
    recipe="shivdeo2021",
    epochs=30,  # 2.2: our choice, the paper has none
    iterations_per_epoch=1762,  # 2.2: 56,387 slices in stacks of 32 without overlap, one per update
    loss="dice",  # 2.2
    dice_smooth=1.0,  # 2.2: our choice
    optimizer="adam",  # 2.2
    learning_rate=1e-3,  # 2.2
    weight_decay=0.0,  # 2.2: not mentioned
    schedule="step",  # 2.2
    schedule_epochs=5,  # 2.2
    schedule_factor=1 / 3,  # 2.2
    restore_best=True,  # 2.2: our choice, the paper does not say which epoch is tested
    threshold=0.2,  # 2.2
    warmup=0.0,
    gradient_clip=None,
    weight_averaging=0.0,
    foreground_share=0.0,
    augmentation=AugmentationConfig(enabled=False),  # 2.2: not mentioned
)

ANGERMANN2022 = TrainingConfig(
    recipe="angermann2022",
    epochs=60,  # 3.7: our choice, the paper has early stopping only
    iterations_per_epoch=102,  # 3.8: a pass over 102 of 119 volumes
    loss="dice",  # 3.7, equation 1
    dice_smooth=1e-6,  # 3.7
    optimizer="adam",  # 3.7
    learning_rate=1e-3,  # 3.7
    weight_decay=0.0,  # 3.7: not mentioned
    schedule="plateau",  # 3.7
    schedule_epochs=3,  # 3.7
    schedule_factor=0.5,  # 3.7
    early_stopping=5,  # 3.7
    restore_best=True,  # 3.7
    threshold=None,  # 3.7: 0.5, which for one class is the likeliest
    warmup=0.0,
    # Ours. Without a norm in the network the gradient grows a thousandfold within thirty updates, faster than Adam's
    # second moment: slice-wise runs ended with empty masks and no gradient. It is as small as the first gradients.
    gradient_clip=1e-3,
    weight_averaging=0.0,
    foreground_share=0.0,
    augmentation=AugmentationConfig(enabled=False),  # 3.7: not mentioned
)

XIA2018 = TrainingConfig(
    recipe="xia2018",
    epochs=80,  # 4.1: 80,000 updates of the coarse stage
    iterations_per_epoch=1000,
    loss="dice",  # 4.1
    dice_smooth=1e-6,  # 4.1 has none; FLT_EPSILON of the authors' dice_loss_layer.cpp (OrganSegC2F, 2bae35e)
    optimizer="sgd",  # 4.1
    learning_rate=3e-3,  # 4.1 has 1e-5 from trained weights; from random ones: documentation/concepts/choices.md
    momentum=0.99,  # 4.1
    weight_decay=5e-4,  # 4.1
    schedule="constant",  # 4.1
    warmup=0.0,
    gradient_clip=None,
    weight_averaging=0.0,
    foreground_share=1.0,  # 4.1: every window is one of the slices below
    largest_slices=0.98,  # 4.1
    augmentation=AugmentationConfig(enabled=False),  # 4.1
)
"""The views, which are the coarse models of coarse-to-fine ones; the fusion network has `FUSION` in every recipe."""

XIA2018_FINE = XIA2018.model_copy(
    update={
        "epochs": 60,  # 4.1: 60,000 updates of the fine stage
        "learning_rate": 3e-3,  # 4.1 has 1e-4 from trained weights; as above
        "largest_slices": 1.0,  # FINE_SLICE_THRESHOLD of the authors' run.sh (OrganSegC2F, 2bae35e)
        "fine": FineConfig(large_components=True),  # 4.1: organs of one piece
    }
)
"""The fine models of the views."""

CUBE = AugmentationConfig(spatial=0.0, **NO_INTENSITY, mirror=0.0, cube_rotation=1.0)
"""Only the rotations of a cube (4.3)."""

FUSION = TrainingConfig(
    epochs=300,  # 4.3: 30,000 updates
    foreground_share=0.0,  # 4.3: patches from anywhere in the region around the object
    augmentation=CUBE,
    fusion=FusionConfig(),
)
"""Training of the network that fuses views, as of all others. In short runs the paper's, below, ends below the mean
of the views with which the network starts (hippocampus, 250 updates: documentation/concepts/choices.md)."""

XIA2018_FUSION = TrainingConfig(
    recipe="xia2018",
    epochs=300,  # 4.3: 30,000 updates
    iterations_per_epoch=100,
    loss="dice",  # 4.3
    optimizer="sgd",  # 4.3: our choice, the paper names none
    learning_rate=0.01,  # 4.3
    momentum=0.9,  # 4.3: our choice, as the weight decay
    weight_decay=5e-4,
    schedule="drops",  # 4.3: a tenth after 20,000 updates, another one after 25,000
    schedule_drops=(2 / 3, 5 / 6),
    schedule_factor=0.1,
    warmup=0.0,
    weight_averaging=0.0,
    foreground_share=0.0,  # 4.3: patches from anywhere in the region around the object
    augmentation=CUBE,
    fusion=FusionConfig(fine="xia2018" in WITH_FINE_VIEWS),  # 4.1: the views of the baseline, [18] of the paper
)
"""Training of the fusion network in Xia et al. 2018."""

JOINT = TrainingConfig.model_validate(
    FUSION.model_dump()
    | {
        "epochs": 50,  # ours, as all of this: the paper leaves it as future work
        "learning_rate": 3e-4,  # a tenth, as everything is trained already
        "foreground_share": 0.5,
        # Rotating the cube would exchange the views, so the views' own augmentation is used.
        "augmentation": AugmentationConfig(),
        "fusion": FusionConfig(joint=True),
    }
)
"""Joint training of views and fusion network."""

FINE: dict[str, TrainingConfig] = {XIA2018_FINE.recipe: XIA2018_FINE}
"""Fine models by recipe; those of other recipes train as the coarse ones, with the defaults of `FineConfig`."""

DEFAULT = TrainingConfig(small_windows=None)

RECIPES: dict[str, TrainingConfig] = {
    config.recipe: config
    for config in (
        DEFAULT,
        SOBIROV2022,
        SOBIROV2022_PTA,
        SOBIROV2022_ATRIA,
        SOBIROV2022_ATRIA64,
        SHIVDEO2021,
        ANGERMANN2022,
        XIA2018,
    )
}
"""The recipes by name."""


def find_recipe(name: str, *, fuses_views: bool = False, joint: bool = False, fine: bool = False) -> TrainingConfig:
    """The settings of a recipe.

    Args:
        name: Of the recipe.
        fuses_views: Whether it is for a network that fuses views.
        joint: Whether that is trained together with its views.
        fine: Whether it is the fine model of coarse-to-fine segmentation.

    Raises:
        InputError: If there is no such recipe; the message lists the known ones.
    """
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}; known: {', '.join(RECIPES)}")
    if fuses_views:
        alone = XIA2018_FUSION if name == "xia2018" else FUSION
        recipe = (JOINT if joint else alone).model_copy(update={"recipe": name})
    else:
        recipe = (FINE if fine and name in FINE else RECIPES)[name]
    return recipe.model_copy(update={"fine": recipe.fine or FineConfig()}) if fine else recipe
