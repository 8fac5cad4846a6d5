"""Planning rules of the papers' recipes: one record each.

The other part of a recipe, its training settings, is in `training/recipes.py` under the same name. "1.7" etc. are
sections of methods.md, the project's digest of the papers.
"""

from typing import Literal, TypeAlias

from pydantic import Field

from seg25d.core.errors import InputError
from seg25d.core.limits import CommonShape
from seg25d.core.records import Record
from seg25d.core.registry import Registry
from seg25d.core.types import Spacing
from seg25d.planning.case_fingerprint import ChannelIntensities
from seg25d.planning.channel_rules import asks_for_scheme, choose_normalization, named_normalization
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.recipe_names import PLACES
from seg25d.planning.splits import NUM_FOLDS, SEED
from seg25d.representations import ANATOMICAL
from seg25d.representations.base import ConfigurationRules

ChannelKind: TypeAlias = Literal["ct", "other"]


class PlanningRules(Record):
    """Settings that a recipe fixes in its plans; the defaults leave everything to the planner."""

    name: str
    source: str
    """Source that the reasons in the plans cite."""
    configurations: dict[str, ConfigurationRules] = Field(default_factory=dict)
    """Rules of the configurations that the recipe is meant for; empty: all configurations, chosen by the planner."""
    spacing_mm: Spacing | None = None
    """The spacing that all cases are resampled to."""
    common_shape: CommonShape | None = None
    """Voxels that all cases are resized to; along axes with None, and if it is None, the spacing decides."""
    slice_axis: Literal[0, 1, 2] | None = None
    """The axis that all methods slice along and that `2d` stands for; None: as for other data, see `slicing_axis`."""
    published: bool = False
    """Whether strides and kernels are as published (`published_topology`) instead of those that suit the spacing."""
    channels: dict[ChannelKind, ChannelNormalization] = Field(default_factory=dict)
    """Normalisation of channels called `CT`, and of others, whose name does not ask for a scheme of its own."""
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    """Axes along which training and prediction may mirror, where the labels allow it."""
    num_folds: int = NUM_FOLDS
    fold_seed: int = SEED
    """Seed of the shuffling of the cases before they are divided into folds."""

    def allows(self, configuration: str) -> bool:
        """Whether the recipe is meant for a configuration."""
        return not self.configurations or configuration in self.configurations

    def of(self, configuration: str) -> ConfigurationRules:
        """The settings that the recipe fixes for a configuration that it is meant for."""
        return self.configurations.get(configuration, ConfigurationRules())

    def fixed_normalization(self, channel: str) -> ChannelNormalization | None:
        """The recipe's normalisation of a channel; None where the channel's name or the planner chooses."""
        kind: ChannelKind = "ct" if named_normalization(channel).scheme == "ct" else "other"
        fixed = None if asks_for_scheme(channel) else self.channels.get(kind)
        return None if fixed is None else fixed.model_copy(update={"channel": channel})

    def normalization(self, channel: str, intensities: ChannelIntensities) -> ChannelNormalization:
        """The normalisation of a channel: what its name asks for, else the recipe's, else `choose_normalization`.

        Raises:
            InputError: If the name is a known scheme with wrong parameters.
        """
        return self.fixed_normalization(channel) or choose_normalization(channel, intensities)


LATER_RULES = ("common_shape", "slice_axis", "published")
"""Rules that earlier versions did not have."""
DEFAULT_RULES = PlanningRules(name="default", source="")

SOBIROV2022 = PlanningRules(
    name="sobirov2022",
    source="Sobirov et al. 2022",
    configurations={  # 1.7: batch 2. 1.2: the U-Net; 1.3 to 1.5 have the other networks. 1.1: no neighbours.
        name: ConfigurationRules(network="super_image_unet", batch_size=2, context=0) for name in ("si", "3d")
    },
    spacing_mm=(1.0, 1.0, 1.0),  # 1.7
    channels={  # 1.7: CT clip(-1024, 1024) / 1024; PET (x - mean) / (std + 1e-3) per volume
        "ct": ChannelNormalization(channel="CT", scheme="ct", lower=-1024, upper=1024, mean=0, std=1024),
        "other": ChannelNormalization(channel="PET", scheme="zscore_offset"),
    },
    mirror_axes=(),  # 1.7: no augmentation
    num_folds=5,  # 1.7
    fold_seed=786,  # 1.7
)

SOBIROV2022_PTA = SOBIROV2022.model_copy(
    update={
        "name": "sobirov2022_pta",
        "mirror_axes": (2,),  # TorchIO's RandomFlip: the first axis of (W, H, D), with its default settings
    }
)
"""The same with the augmentation of the row PT&A of Table 3."""

SOBIROV2022_ATRIA = SOBIROV2022.model_copy(
    update={
        "name": "sobirov2022_atria",
        "configurations": {
            # 1.7: 11 x 8 tiles, by which 88 slices are less square (1760 x 1280) than by the planner's 10 x 9.
            "si": ConfigurationRules(network="super_image_unet", batch_size=2, context=0, settings={"grid": (11, 8)}),
            "3d": ConfigurationRules(network="super_image_unet", batch_size=2, context=0),
        },
        "spacing_mm": None,
        "common_shape": (88, 160, 160),  # 1.7: resized to the same size, whose numbers are lost; 88 slices
        "slice_axis": 0,  # whatever axis is the coarsest after that
        "published": True,  # 1.2, as the resized voxels are oblong
        "channels": {"other": ChannelNormalization(channel="MRI", scheme="zscore")},  # 1.7
        "num_folds": 4,  # 1.7
    }
)
"""The first setting of the atria, Table 3."""

SOBIROV2022_ATRIA64 = SOBIROV2022_ATRIA.model_copy(
    update={
        "name": "sobirov2022_atria64",
        "configurations": {
            **SOBIROV2022_ATRIA.configurations,
            "si": SOBIROV2022_ATRIA.configurations["si"].model_copy(update={"settings": {"grid": (8, 8)}}),  # 1.7
        },
        "common_shape": (64, 160, 160),  # 1.7
    }
)
"""The second one, with square super images."""

SHIVDEO2021 = PlanningRules(
    name="shivdeo2021",
    source="Shivdeo et al. 2021",
    configurations={
        # 2.3: V-Net, 2.2: batch 1. 2.1: 32 slices, the last stack is filled up.
        "stack": ConfigurationRules(network="vnet", batch_size=1, num_slices=32, settings={"last_stack": "padded"}),
        # 2.4: U-Net with Xception and CBAM on single slices, 2.2: batch 16. The paper has axial slices alone.
        "axial": ConfigurationRules(network="xception_cbam_unet", batch_size=16, context=0, num_slices=1),
    },
    common_shape=(None, 512, 512),  # 2.2: slices are resized to 512 x 512
    slice_axis=0,  # 2.1: stacks of axial slices
    published=True,  # 2.3: strides of 2 and kernels of 5
    channels={  # 2.2: the window of the DICOM header, that of lungs where there is none, scaled to 0 .. 1
        "ct": named_normalization("ct_window:dicom"),
        "other": ChannelNormalization(channel="other", scheme="rescale_0_1"),
    },
    mirror_axes=(),  # 2.2: augmentation is not mentioned
)

ANGERMANN2022 = PlanningRules(
    name="angermann2022",
    source="Angermann & Haltmeier 2022",
    configurations={  # 3.7: batch 1 volume; 3.6: the U-Nets of the method and of both baselines
        "3d": ConfigurationRules(network="half_unet", batch_size=1, context=0),
        # Slices are a data set of their own (3.6), of whose batches the paper says nothing. Ours: 16 slices of as many
        # volumes. Neighbours can all be empty, which teaches to find nothing (documentation/concepts/choices.md).
        **dict.fromkeys(ANATOMICAL, ConfigurationRules(network="half_unet", batch_size=16, context=0, num_slices=1)),
        # 3.7: c(n) by the number of epochs.
        "mip": ConfigurationRules(network="half_unet", batch_size=1, settings={"path_schedule": "paper"}),
    },
    channels={  # 3.1: intensities from 0 to 1
        "ct": ChannelNormalization(channel="CT", scheme="rescale_0_1"),
        "other": ChannelNormalization(channel="other", scheme="rescale_0_1"),
    },
    mirror_axes=(),  # 3.7: augmentation is not mentioned
    num_folds=7,  # 3.8
)

XIA2018 = PlanningRules(
    name="xia2018",
    source="Xia et al. 2018",
    configurations={
        # 4.1: three neighbouring slices, batch 1; the planner's 2D U-Net in place of FCN-8s.
        **dict.fromkeys(ANATOMICAL, ConfigurationRules(batch_size=1, context=1, num_slices=3)),
        # 4.3: batch 16; 4.2: scores are the network's alone.
        "mv": ConfigurationRules(network="fusion_net", batch_size=16, settings={"from_mean": False}),
    },
    channels={  # 4.1: HU from -100 to 240, scaled to 0 .. 1
        "ct": named_normalization("ct_window:70:340"),
        "other": ChannelNormalization(channel="other", scheme="rescale_0_1"),
    },
    mirror_axes=(),  # 4.1: no augmentation of the views
    num_folds=4,  # 4.1
)

PLANNING_RULES: Registry[PlanningRules] = Registry(PLACES)
"""The rules by the name of the recipe."""


def find_rules(recipe: str) -> PlanningRules:
    """The rules of a recipe.

    Raises:
        InputError: If there is no such recipe; the message lists the known ones.
    """
    if recipe not in PLANNING_RULES:
        raise InputError(f"there is no recipe {recipe!r}; known: {', '.join(PLANNING_RULES)}")
    return PLANNING_RULES[recipe]
