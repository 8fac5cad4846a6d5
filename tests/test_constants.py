"""Every constant of every recipe and method in one table, against methods.md, the project's digest of the papers.

Values are written down from methods.md, never read from the code; "1.7" and the like are its sections, [C] what it has
from the authors' code, [G] what it chose where a paper is silent. "ours" is what no paper says, "off" what a paper does
not mention, and "not:" begins what differs from the paper. A setting without a line and a line without a setting both
fail: a new constant is written down here. It is one table, as that is how one looks for a number, so the file is long.
"""

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel

from seg25d.core import grids
from seg25d.ensembling import staple
from seg25d.ensembling.nonlocal_staple import NonlocalStapleSettings
from seg25d.inference import components
from seg25d.networks import mixing, resnet_unet, rstn, se_unet, swin_unetr, vnet, xception_cbam_unet
from seg25d.networks.specs import fusion_net
from seg25d.networks.specs import mixing as mixing_settings
from seg25d.networks.specs.topology import Topology
from seg25d.planning import network_rules, splits
from seg25d.planning.network_rules import make_network, networks_for
from seg25d.planning.pretext import PretextConfig
from seg25d.planning.recipe_rules import PLANNING_RULES
from seg25d.preprocessing import normalize
from seg25d.representations import fused_views, stack, super_image
from seg25d.representations.fused_views import FusedViews
from seg25d.representations.lifted import fused_views as lifted_views
from seg25d.representations.projections import method, model, schedule
from seg25d.representations.projections.method import Projections
from seg25d.representations.slices import Slices
from seg25d.representations.stack import Stack
from seg25d.representations.super_image import SuperImage
from seg25d.training import augmentation, device_augmentation, losses, muon
from seg25d.training.recipes import RECIPES, find_recipe
from seg25d.views import model_sets


class Line(NamedTuple):
    """A value of the table."""

    setting: str
    owners: str
    """Names of columns; `others`: all that have the setting and no line of their own."""
    value: Any
    source: str
    """Section of methods.md, or what else it comes from."""


RSTN_CODE = "github.com/198808xc/OrganSegRSTN at 1b5b947"
HECKTOR = "sobirov2022 sobirov2022_pta"
ATRIA = "sobirov2022_atria sobirov2022_atria64"
SOBIROV = f"{HECKTOR} {ATRIA}"
XIA = "xia2018 xia2018_fine"
PAPERS = f"{SOBIROV} shivdeo2021 angermann2022 {XIA}"
OURS = "default mv joint"

# Columns: the recipes, and what the fine models of one have of their own; `mv`, the fusion network in all recipes but
# `mv_xia2018`; `joint`, trained on with its views.
TRAINING: list[Line] = [
    Line("seed", "others", 0, "ours"),
    Line("epochs", "default", 500, "ours"),
    Line("epochs", SOBIROV, 100, "1.7"),
    Line("epochs", "shivdeo2021", 30, "2.2 [G]"),
    Line("epochs", "angermann2022", 60, "3.7 [G]"),
    Line("epochs", "xia2018", 80, "4.1: 80,000 updates of the coarse stage"),
    Line("epochs", "xia2018_fine", 60, "4.1: 60,000 updates of the fine stage"),
    Line("epochs", "mv mv_xia2018", 300, "4.3: 30,000 updates"),
    Line("epochs", "joint", 50, "ours"),
    Line("iterations_per_epoch", f"{OURS} mv_xia2018", 100, "ours"),
    Line("iterations_per_epoch", HECKTOR, 90, "1.7: 179 of 224 cases in batches of 2"),
    Line("iterations_per_epoch", ATRIA, 38, "1.7: 75 of 100 cases in batches of 2 [G]"),
    Line("iterations_per_epoch", "shivdeo2021", 1762, "2.2: 56,387 slices in stacks of 32"),
    Line("iterations_per_epoch", "angermann2022", 102, "3.8: six of seven parts of 119 patients"),
    Line("iterations_per_epoch", XIA, 1000, "ours; see epochs"),
    Line("iterations", "others", None, "ours"),
    Line("time_budget_seconds", "others", None, "ours"),
    Line("loss", OURS, "dice_cross_entropy", "nnU-Net"),
    Line("loss", SOBIROV, "dice_focal", "1.7 [C]"),
    Line("loss", f"shivdeo2021 angermann2022 {XIA} mv_xia2018", "dice", "2.2, 3.7, 4.1, 4.3"),
    Line("dice_smooth", "others", 1.0, "1.7 [C], 2.2 [G], ours"),
    Line("dice_smooth", "angermann2022", 1e-6, "3.7"),
    Line("dice_smooth", XIA, 1e-6, "4.1: none; the authors' dice_loss_layer.cpp (OrganSegC2F, 2bae35e)"),
    Line("optimizer", OURS, "muon", "ours"),
    Line("optimizer", SOBIROV, "adamw", "1.7"),
    Line("optimizer", "shivdeo2021 angermann2022", "adam", "2.2, 3.7"),
    Line("optimizer", f"{XIA} mv_xia2018", "sgd", "4.1; 4.3 [G]"),
    Line("learning_rate", "default mv", 3e-3, "ours"),
    Line("learning_rate", f"{SOBIROV} shivdeo2021 angermann2022", 1e-3, "1.7, 2.2, 3.7"),
    Line("learning_rate", "xia2018", 3e-3, "not: 4.1 has 1e-5 in the coarse stage, from trained weights"),
    Line("learning_rate", "xia2018_fine", 3e-3, "not: 4.1 has 1e-4 in the fine stage, from trained weights"),
    Line("learning_rate", "mv_xia2018", 0.01, "4.3"),
    Line("learning_rate", "joint", 3e-4, "ours"),
    Line("momentum", "others", 0.9, "4.3 [G]; elsewhere not used"),
    Line("momentum", XIA, 0.99, "4.1"),
    Line("weight_decay", OURS, 1e-2, "ours"),
    Line("weight_decay", SOBIROV, 1e-5, "1.7"),
    Line("weight_decay", "shivdeo2021 angermann2022", 0.0, "off"),
    Line("weight_decay", f"{XIA} mv_xia2018", 5e-4, "4.1; 4.3 [G]"),
    Line("warmup", OURS, 0.02, "ours"),
    Line("warmup", "others", 0.0, "off"),
    Line("schedule", OURS, "cosine", "ours"),
    Line("schedule", SOBIROV, "cosine_restarts", "1.7"),
    Line("schedule", "shivdeo2021", "step", "2.2"),
    Line("schedule", "angermann2022", "plateau", "3.7"),
    Line("schedule", XIA, "constant", "4.1: gamma, but a single step"),
    Line("schedule", "mv_xia2018", "drops", "4.3"),
    Line("schedule_epochs", "others", 25, "1.7; elsewhere not used"),
    Line("schedule_epochs", "shivdeo2021", 5, "2.2"),
    Line("schedule_epochs", "angermann2022", 3, "3.7"),
    Line("schedule_factor", "others", 0.5, "3.7; elsewhere not used"),
    Line("schedule_factor", "shivdeo2021", 1 / 3, "2.2"),
    Line("schedule_factor", "mv_xia2018", 0.1, "4.3"),
    Line("schedule_drops", "others", (20_000 / 30_000, 25_000 / 30_000), "4.3; elsewhere not used"),
    Line("lowest_learning_rate", "others", 0.0, "ours"),
    Line("lowest_learning_rate", SOBIROV, 1e-5, "1.7"),
    Line("early_stopping", "others", None, "off"),
    Line("early_stopping", "angermann2022", 5, "3.7"),
    Line("restore_best", "others", False, "off"),
    Line("restore_best", "shivdeo2021 angermann2022", True, "2.2 [G], 3.7"),
    Line("threshold", "others", None, "1.9, 3.7, 4.3: 0.5, which for one class is the likeliest"),
    Line("threshold", "shivdeo2021", 0.2, "2.2"),
    Line("gradient_clip", f"{OURS} mv_xia2018", 12.0, "nnU-Net; not: 4.3 mentions none"),
    Line("gradient_clip", f"{SOBIROV} shivdeo2021 {XIA}", None, "off"),
    Line("gradient_clip", "angermann2022", 1e-3, "not: 3.7 mentions none; without it the U-Net without norm collapses"),
    Line("weight_averaging", OURS, 0.99, "ours"),
    Line("weight_averaging", "others", 0.0, "off"),
    Line("foreground_share", "default joint", 0.5, "ours"),
    Line("foreground_share", XIA, 1.0, "4.1: none but slices of the object"),
    Line("foreground_share", "others", 0.0, "off; 4.3: patches from anywhere in the region"),
    Line("largest_slices", "others", None, "off"),
    Line("largest_slices", "xia2018", 0.98, "4.1: of the coarse stage"),
    Line("largest_slices", "xia2018_fine", 1.0, "FINE_SLICE_THRESHOLD of run.sh (OrganSegC2F, 2bae35e)"),
    Line("small_windows", "default", None, "ours"),
    Line("small_windows", "others", 0.0, "off"),
    Line("validation_windows", "others", 40, "ours"),
    Line("precision", "others", "auto", "ours"),
    Line(
        "augmentation.enabled",
        f"sobirov2022 {ATRIA} shivdeo2021 angermann2022 {XIA}",
        False,
        "1.7, 4.1; off in 2.2, 3.7",
    ),
    Line("augmentation.enabled", "others", True, "1.7 PT&A, 4.3, ours"),
    Line("augmentation.place", "others", "auto", "ours"),
    # What is switched off stays as in the default.
    Line("augmentation.spatial", "others", 0.2, "nnU-Net"),
    Line("augmentation.spatial", "sobirov2022_pta", 1.0, "1.7, TorchIO's RandomAffine"),
    Line("augmentation.spatial", "mv mv_xia2018", 0.0, "4.3: nothing but turns of the cube"),
    Line("augmentation.rotation_degrees", "others", 15.0, "ours"),
    Line("augmentation.rotation_degrees", "sobirov2022_pta", 10.0, "1.7, TorchIO's RandomAffine"),
    Line("augmentation.scaling", "others", (0.8, 1.25), "ours"),
    Line("augmentation.scaling", "sobirov2022_pta", (0.9, 1.1), "1.7, TorchIO's RandomAffine"),
    Line("augmentation.scaling_per_axis", "others", False, "nnU-Net"),
    Line("augmentation.scaling_per_axis", "sobirov2022_pta", True, "1.7, TorchIO's RandomAffine"),
    Line("augmentation.elastic", "others", 0.0, "off"),
    Line("augmentation.elastic", "sobirov2022_pta", 1.0, "1.7, TorchIO's RandomElasticDeformation"),
    Line("augmentation.elastic_mm", "others", 2.0, "ours"),
    Line("augmentation.elastic_mm", "sobirov2022_pta", 7.5, "1.7, TorchIO's RandomElasticDeformation"),
    Line("augmentation.elastic_distribution", "others", "normal", "ours"),
    Line("augmentation.elastic_distribution", "sobirov2022_pta", "uniform", "1.7, TorchIO's RandomElasticDeformation"),
    Line("augmentation.elastic_control_points", "others", 4, "ours"),
    Line("augmentation.elastic_control_points", "sobirov2022_pta", 5, "1.7: TorchIO's 7, of which 2 lie outside"),
    Line("augmentation.elastic_fixed_border", "others", False, "ours"),
    Line("augmentation.elastic_fixed_border", "sobirov2022_pta", True, "1.7, TorchIO's locked borders"),
    Line("augmentation.anisotropy", "others", 0.0, "off"),
    Line("augmentation.anisotropy", "sobirov2022_pta", 1.0, "1.7, TorchIO's RandomAnisotropy"),
    Line("augmentation.anisotropy_factor", "others", (1.5, 5.0), "1.7, TorchIO's RandomAnisotropy"),
    Line("augmentation.noise", "others", 0.1, "nnU-Net"),
    Line("augmentation.blur", "others", 0.1, "nnU-Net"),
    Line("augmentation.brightness", "others", 0.15, "nnU-Net"),
    Line("augmentation.contrast", "others", 0.15, "nnU-Net"),
    Line("augmentation.low_resolution", "others", 0.125, "nnU-Net"),
    Line("augmentation.gamma_inverted", "others", 0.1, "nnU-Net"),
    Line("augmentation.gamma", "others", 0.3, "nnU-Net"),
    Line(
        "augmentation.{noise blur brightness contrast low_resolution gamma_inverted gamma}",
        "sobirov2022_pta mv mv_xia2018",
        0.0,
        "1.7, 4.3: not among the transforms",
    ),
    Line("augmentation.log_gamma", "others", 0.0, "off"),
    Line("augmentation.log_gamma", "sobirov2022_pta", 1.0, "1.7, TorchIO's RandomGamma"),
    Line("augmentation.mirror", "others", 0.5, "nnU-Net; 1.7, TorchIO's RandomFlip"),
    Line("augmentation.mirror", "mv mv_xia2018", 0.0, "4.3 [G]: proper turns"),
    Line("augmentation.cube_rotation", "others", 0.0, "off"),
    Line("augmentation.cube_rotation", "mv mv_xia2018", 1.0, "4.3: 24 variants"),
    Line("fusion", f"default {PAPERS}", None, "4.3: of the fusion network alone"),
    Line("fusion.data", "mv mv_xia2018 joint", "cross", "4.4"),
    Line("fusion.image", "mv mv_xia2018 joint", True, "4.2"),
    Line("fusion.fine", "mv joint", False, "ours"),
    Line("fusion.fine", "mv_xia2018", True, "4.1: the baseline [18]"),
    Line("fusion.joint", "mv mv_xia2018", False, "4.3: trained apart"),
    Line("fusion.joint", "joint", True, "ours"),
    Line("pretext", "others", None, "1.8: a step of its own"),
    Line("pretrained", "others", None, "1.8: a step of its own"),
    Line("fine", "others", None, "4.1: of fine models alone"),
]

# Columns: fine models of xia2018, and of all other recipes.
FINE: list[Line] = [
    Line("margin", "others", 20, "4.1"),
    Line("random_margin", "others", 40, "4.1"),
    Line("random_share", "others", 0.5, "4.1"),
    Line("max_rounds", "others", 10, "4.1"),
    Line("stop_dice", "others", 0.95, "4.1"),
    Line("large_components", "xia2018", True, "4.1"),
    Line("large_components", "others", False, "ours"),
]

# Columns: the recipes. What is not there is left to the planner.
PLANNING: list[Line] = [
    Line("num_folds", "others", 5, "1.7; nnU-Net"),
    Line("num_folds", ATRIA, 4, "1.7"),
    Line("num_folds", "angermann2022", 7, "3.8"),
    Line("num_folds", "xia2018", 4, "4.1; not: in the order of the cases, 20/20/21/21"),
    Line("fold_seed", "others", 12345, "nnU-Net"),
    Line("fold_seed", SOBIROV, 786, "1.7 [C]: of HECKTOR; of the atria none is known"),
    Line("mirror_axes", "default", (0, 1, 2), "nnU-Net"),
    Line("mirror_axes", "others", (), "1.7, 4.1; off in 2.2, 3.7"),
    Line("mirror_axes", "sobirov2022_pta", (2,), "1.7, TorchIO's RandomFlip"),
    Line("spacing_mm", HECKTOR, (1.0, 1.0, 1.0), "1.7"),
    Line("common_shape", "sobirov2022_atria", (88, 160, 160), "1.7: 88 slices; [G] 160 x 160"),
    Line("common_shape", "sobirov2022_atria64", (64, 160, 160), "1.7: 64 slices; [G] 160 x 160"),
    Line("common_shape", "shivdeo2021", (None, 512, 512), "2.2"),
    Line("slice_axis", ATRIA, 0, "1.7: 88 slices, those of the files"),
    Line("slice_axis", "shivdeo2021", 0, "2.1: axial slices"),
    Line("published", f"{ATRIA} shivdeo2021", True, "1.2, 2.3"),
    Line("published", "others", False, "ours: strides and kernels follow the spacing"),
    Line("channels.ct.channel", f"{HECKTOR} angermann2022", "CT", "ours"),
    Line("channels.ct.channel", "shivdeo2021", "ct_window:dicom", "2.2"),
    Line("channels.ct.channel", "xia2018", "ct_window:70:340", "4.1: -100 to 240"),
    Line("channels.ct.scheme", HECKTOR, "ct", "1.7"),
    Line("channels.ct.scheme", "shivdeo2021", "ct_window_dicom", "2.2"),
    Line("channels.ct.scheme", "angermann2022", "rescale_0_1", "3.1"),
    Line("channels.ct.scheme", "xia2018", "ct_window", "4.1"),
    Line("channels.ct.lower", HECKTOR, -1024.0, "1.7"),
    Line("channels.ct.lower", "shivdeo2021", -1350.0, "2.2 [G]: -600/1500 without a header's window"),
    Line("channels.ct.lower", "xia2018", -100.0, "4.1"),
    Line("channels.ct.upper", HECKTOR, 1024.0, "1.7"),
    Line("channels.ct.upper", "shivdeo2021", 150.0, "2.2 [G]"),
    Line("channels.ct.upper", "xia2018", 240.0, "4.1"),
    Line("channels.ct.mean", HECKTOR, 0.0, "1.7"),
    Line("channels.ct.std", HECKTOR, 1024.0, "1.7"),
    Line("channels.other.channel", HECKTOR, "PET", "1.7"),
    Line("channels.other.channel", ATRIA, "MRI", "1.7"),
    Line("channels.other.channel", "shivdeo2021 angermann2022 xia2018", "other", "ours"),
    Line("channels.other.scheme", HECKTOR, "zscore_offset", "1.7: (x - mean) / (std + 1e-3)"),
    Line("channels.other.scheme", ATRIA, "zscore", "1.7 [G]"),
    Line("channels.other.scheme", "shivdeo2021 angermann2022 xia2018", "rescale_0_1", "3.1; 2.2, 4.1: CT alone"),
    Line("configurations.{si 3d}.network", SOBIROV, "super_image_unet", "1.2"),
    Line("configurations.{si 3d}.batch_size", SOBIROV, 2, "1.7; of the atria [G]"),
    Line("configurations.si.settings.grid", "sobirov2022_atria", (11, 8), "1.7"),
    Line("configurations.si.settings.grid", "sobirov2022_atria64", (8, 8), "1.7"),
    Line("configurations.{si 3d}.context", SOBIROV, 0, "1.1"),
    Line("configurations.stack.network", "shivdeo2021", "vnet", "2.3"),
    Line("configurations.stack.batch_size", "shivdeo2021", 1, "2.2 [G]"),
    Line("configurations.stack.num_slices", "shivdeo2021", 32, "2.1"),
    Line("configurations.stack.settings.last_stack", "shivdeo2021", "padded", "2.1"),
    Line("configurations.axial.network", "shivdeo2021", "xception_cbam_unet", "2.4"),
    Line("configurations.axial.batch_size", "shivdeo2021", 16, "2.2 [G]"),
    Line("configurations.axial.context", "shivdeo2021", 0, "2.4: single slices"),
    Line("configurations.axial.num_slices", "shivdeo2021", 1, "2.4: single slices"),
    Line("configurations.{axial coronal sagittal 3d mip}.network", "angermann2022", "half_unet", "3.6"),
    Line("configurations.{3d mip}.batch_size", "angermann2022", 1, "3.7"),
    Line("configurations.{axial coronal sagittal}.batch_size", "angermann2022", 16, "ours: 3.6 has no number"),
    Line("configurations.{axial coronal sagittal}.num_slices", "angermann2022", 1, "3.6: a data set of slices"),
    Line("configurations.{axial coronal sagittal 3d}.context", "angermann2022", 0, "3.6"),
    Line("configurations.{axial coronal sagittal}.batch_size", "xia2018", 1, "4.1; not: FCN-8s, here a planned U-Net"),
    Line("configurations.{axial coronal sagittal}.context", "xia2018", 1, "4.1: three slices"),
    Line("configurations.{axial coronal sagittal}.num_slices", "xia2018", 3, "4.1: three slices"),
    Line("configurations.mip.settings.path_schedule", "angermann2022", "paper", "3.7"),
    Line("configurations.mv.network", "xia2018", "fusion_net", "4.2"),
    Line("configurations.mv.batch_size", "xia2018", 16, "4.3"),
    Line("configurations.mv.settings.from_mean", "xia2018", False, "4.2"),
]

# Columns: networks by the name that recipes ask for, in 2D or 3D.
UNETS = "unet_2 unet_3 super_image_unet_2 super_image_unet_3 half_unet_2 half_unet_3"
PAPER_UNETS = "super_image_unet_2 super_image_unet_3 half_unet_2 half_unet_3"
NETWORKS: list[Line] = [
    Line("widths", "unet_2", (32, 64, 128, 256, 512, 512, 512), "nnU-Net"),
    Line("widths", "unet_3", (32, 64, 128, 256, 320, 320, 320), "nnU-Net"),
    Line("widths", "super_image_unet_2 super_image_unet_3", (24, 48, 96, 192), "1.2 [C]"),
    Line("widths", "half_unet_2", (32, 64, 128, 256, 512), "3.6"),
    Line("widths", "half_unet_3", (8, 16, 32, 64, 128), "3.6"),
    Line("widths", "vnet_2 vnet_3", (16, 32, 64, 128, 256), "2.3"),
    Line("encoder_blocks", UNETS, 2, "nnU-Net, 1.2, 3.6"),
    Line("encoder_blocks", "vnet_2 vnet_3", (1, 2, 3, 3, 3), "2.3, the paper's figure"),
    Line("decoder_blocks", UNETS, 2, "nnU-Net, 1.2, 3.6"),
    Line("decoder_blocks", "vnet_2 vnet_3", (3, 3, 2, 1), "2.3, the paper's figure"),
    Line("residual", UNETS, False, "nnU-Net, 1.2, 3.6"),
    Line("norm", "unet_2 unet_3 super_image_unet_2 super_image_unet_3", "instance", "nnU-Net, 1.2"),
    Line("norm", "half_unet_2 half_unet_3 vnet_2 vnet_3", "none", "3.6, 2.3"),
    Line("norm", "fusion_net_3 resnet_unet_2", "batch", "4.2, 1.2"),
    Line("activation", "unet_2 unet_3", "leaky_relu", "nnU-Net"),
    Line("activation", PAPER_UNETS, "relu", "1.2, 3.6"),
    Line("conv_bias", "unet_2 unet_3 super_image_unet_2 super_image_unet_3", False, "ours, 1.2"),
    Line("conv_bias", "half_unet_2 half_unet_3", True, "3.6"),
    Line("downsampling", "unet_2 unet_3", "stride", "nnU-Net"),
    Line("downsampling", PAPER_UNETS, "max_pool", "1.2, 3.6"),
    Line("upsampling", "unet_2 unet_3", "transposed", "nnU-Net"),
    Line("upsampling", PAPER_UNETS, "transposed_3", "1.2, 3.6"),
    Line("initialisation", "unet_2 unet_3 super_image_unet_2 super_image_unet_3", "he", "nnU-Net; ours"),
    Line("initialisation", "half_unet_2 half_unet_3", "glorot", "ours: Keras' default, 3.6 names none"),
    Line("num_supervised", "unet_2 unet_3", 4, "ours: nnU-Net's but for scales of little weight"),
    Line("num_supervised", PAPER_UNETS, 1, "1.2, 3.6"),
    Line("width", "se_unet_2 se_unet_3", 24, "1.3 [C]"),
    Line("width", "fusion_net_3", 32, "4.2 [G]"),
    Line("reduction", "se_unet_2 se_unet_3", 2, "1.3 [C]"),
    Line("encoder_kernel", "se_unet_2 se_unet_3", 3, "1.3; 1.5 has 7"),
    Line("dims", "swin_unetr_2", 2, "1.4"),
    Line("dims", "swin_unetr_3", 3, "1.4"),
    Line("feature_size", "swin_unetr_2 swin_unetr_3", 24, "1.4"),
    Line("checkpointing", "swin_unetr_2 swin_unetr_3 vnet_2 vnet_3", False, "ours"),
    Line("attention", "xception_cbam_unet_2", "decoder", "2.4 [G]"),
    Line("dropout", "xception_cbam_unet_2", 0.1, "2.4 [C]"),
    Line("depth", "resnet_unet_2", 34, "1.2 [C]"),
    Line("network.widths", "rstn_2", (32, 64, 128, 256, 512, 512), "4.1 [G]: any of ours in place of FCN-8s"),
    Line("network.{encoder_blocks decoder_blocks}", "rstn_2", 2, "nnU-Net"),
    Line("network.{residual conv_bias}", "rstn_2", False, "nnU-Net; ours"),
    Line("network.norm", "rstn_2", "instance", "nnU-Net"),
    Line("network.activation", "rstn_2", "leaky_relu", "nnU-Net"),
    Line("network.downsampling", "rstn_2", "stride", "nnU-Net"),
    Line("network.upsampling", "rstn_2", "transposed", "nnU-Net"),
    Line("network.initialisation", "rstn_2", "he", "nnU-Net"),
    Line("network.num_supervised", "rstn_2", 1, "4.1: scores at full size"),
    Line("regions", "rstn_2", False, "4.1"),
    Line("margin", "rstn_2", 20, "4.1 [C]"),
    Line("random_margins", "rstn_2", 0.5, "4.1 [C]"),
    Line("coarse_weight", "rstn_2", 1 / 3, RSTN_CODE),
    Line("max_rounds", "rstn_2", 10, "4.1 [C]"),
    Line("stop_dice", "rstn_2", 0.99, "4.1 [C]"),
    Line("saliency_kernels", "rstn_2", (3, 5), "4.1 [C]"),
    Line("zero_scores", "fusion_net_3", False, "4.2"),
    Line("initial_weights", "fusion_net_3", "random", "4.3"),
]

# Columns: modules that are a method's; what they compute with beside recipes, plans and networks.
CONSTANTS: list[Line] = [
    Line("FIRST_KERNEL", "se_unet", 7, "1.3 [C]"),
    Line("EPSILON", "se_unet", 1e-5, "torch's default, which 1.3 [C] uses"),
    Line("PATCH_STEPS", "swin_unetr", 32, "1.4 [C]"),
    Line("PRELU_SLOPE", "vnet", 0.25, "2.3 [C]"),
    Line("SLOPE", "xception_cbam_unet", 0.1, "2.4 [C]"),
    Line("REDUCTION", "xception_cbam_unet", 16, "2.4 [C]"),
    Line("SKIP_WIDTHS", "xception_cbam_unet", (128, 256, 728, 1024), "2.4 [C]"),
    Line("MIDDLE_WIDTH", "xception_cbam_unet", 512, "2.4 [C]"),
    Line("DECODER_WIDTHS", "xception_cbam_unet resnet_unet", (256, 128, 64, 32, 16), "2.4 [C], 1.2 [C]"),
    Line("NUM_MIDDLE_BLOCKS", "xception_cbam_unet", 8, "2.4 [C]"),
    Line("NUM_BLOCKS", "resnet_unet", {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}, "1.2, He et al. 2016"),
    Line("STEM_WIDTH", "resnet_unet xception_cbam_unet", 64, "1.2, He et al. 2016; 2.4 [C], Chollet 2017"),
    Line("WIDTHS", "resnet_unet", (64, 128, 256, 512), "1.2, He et al. 2016"),
    Line("SHARE", "mixing", 0.25, "Lin et al. 2019"),
    Line("FIRST_STAGE", "mixing", 3, "ours"),
    Line("NUM_HEADS", "mixing", 4, "ours"),
    Line("HEAD_WIDTH", "mixing", 32, "Liu et al. 2021"),
    Line("ACS_SHARE", "mixing", 0.5, "not: Yang et al. 2021 have 2 / 3"),
    Line("STEEPEST", "slice_mixing", 8, "Press et al. 2022"),
    Line("REACH", "slice_mixing", 8, "ours"),
    Line("STAGES", "fusion_net", 3, "4.2"),
    Line("FOREGROUND", "rstn", 0.5, "4.1 [C]"),
    Line("OUTSIDE", "rstn", -10.0, "not: -9,999,999 in " + RSTN_CODE),
    Line("SALIENCY_DEVIATION", "rstn", 1e-3, "not: 0 in " + RSTN_CODE),
    Line("CONTEXT", "super_image", 0, "1.2: tiles are single slices"),
    Line("SQUARE_ENOUGH", "super_image", 4 / 3, "1.10: 8 x 6 equals 3D, 12 x 4 loses"),
    Line("SHRINKING_STEPS", "super_image stack", 16, "ours"),
    Line("SMALLEST_IN_PLANE", "super_image stack projections", 32, "ours"),
    Line("OVERLAP_FACTOR", "stack", 0.625, "2.1: 20 of 32 slices"),
    Line("SMALLEST_STACK", "stack", 8, "ours"),
    Line("LEAST_SLICES", "stack", 16, "ours: half of the 32 of 2.1"),
    Line("LEAST_SHARE", "super_image", 0.5, "ours; 1.1 has all slices"),
    Line("VIEWS", "projections", ((12, 60), (12, 36), (6, 36), (6, 18)), "3.7: p 12, m 60; the cheaper ones ours"),
    Line("SMALLEST_ALONG_ROTATION", "projections", 32, "ours"),
    Line("IN_PLANE_STEPS", "projections", 16, "ours"),
    Line("SAME_SPACING", "grids", 0.99, "ours"),
    Line("ANISOTROPY", "grids", 3.0, "nnU-Net, configuration.py"),
    Line("ALIKE", "grids", 1.5, "ours"),
    Line("COUNTED_TOGETHER", "grids", 1 << 20, "ours"),
    Line("FILTER_NOISE", "projection_model", 0.01, "3.3 [G]: small"),
    Line("GAIN", "projection_model", 20.0, "3.5 [G]"),
    Line("SHIFT", "projection_model", 0.85, "3.5 [G]"),
    Line("SHIFT_OF_INVERSION", "projection_model", 0.5, "ours: half of what is inside"),
    Line("KEPT_MATRICES", "projection_model", 2, "ours"),
    Line("START", "projection_schedule", 0.99, "3.7"),
    Line("PAPER_EPOCHS", "projection_schedule", 30, "3.7: c(30) = 0.013"),
    Line("EDGE", "fused_views", 64, "4.3"),
    Line("SMALLEST_EDGE", "fused_views", 16, "ours"),
    Line("EDGE_STEP", "fused_views", 8, "4.2: three halvings"),
    Line("ROI_MARGIN", "fused_views", 32, "4.3"),
    Line("LEAST", "lifted_views", 1e-3, "ours"),
    Line("SMOOTH", "losses", 1.0, "ours"),
    Line("FOCAL_GAMMA", "losses", 2.0, "1.7 [C]"),
    Line("FOCAL_CLAMP", "losses", 1e-3, "1.7 [C]"),
    Line("VOLUME", "losses", (2, 3, 4), "1.7 [C]: per sample"),
    Line("BATCH", "losses", (0, 2, 3, 4), "nnU-Net's batch Dice"),
    Line("LARGE", "components", 0.5, "4.1"),
    Line("MAX_ITERATIONS", "staple", 100, "4.5 [C]"),
    Line("TOLERANCE", "staple", 1e-5, "ITK's default"),
    Line("STD_OFFSET", "normalize", 1e-3, "1.7"),
    Line("SMALLEST_STD", "normalize", 1e-8, "nnU-Net"),
    Line("NUM_FOLDS", "splits", 5, "nnU-Net"),
    Line("SEED", "splits", 12345, "nnU-Net"),
    Line("MOMENTUM", "muon", 0.95, "Jordan et al. 2024"),
    Line("COEFFICIENTS", "muon", (3.4445, -4.775, 2.0315), "Jordan et al. 2024"),
    Line("NUM_STEPS", "muon", 5, "Jordan et al. 2024"),
    Line("RMS", "muon", 1.0, "ours; Liu et al. 2025 have 0.2"),
    Line("OTHERS", "muon", 5.0, "ours"),
    Line("AT_ONCE", "muon", 4194304, "ours"),
    Line("BETAS", "muon", (0.9, 0.999), "AdamW"),
    Line("EPSILON", "muon", 1e-8, "AdamW"),
    Line("ANISOTROPIC", "augmentation", 3.0, "nnU-Net"),
    Line("MANY_CLASSES", "augmentation", 16, "ours"),
    Line("HOLDOUT_SHARE", "model_sets", 0.4, "4.4: 150 cases for the views, 100 for the fusion"),
    Line("PAPER_STAGES", "network_rules", 5, "1.3, 2.3"),
    Line("RSTN_STAGES", "network_rules", 6, "4.1: FCN-8s halves five times"),
    Line("WIDE_FROM_GB", "network_rules", 11.6, "ours"),
    Line("NOISE", "augmentation", (0.0, 0.1), "nnU-Net"),
    Line("BLUR_VOXELS", "augmentation", (0.5, 1.0), "nnU-Net"),
    Line("FACTOR", "augmentation", (0.75, 1.25), "nnU-Net"),
    Line("RESOLUTION", "augmentation", (0.5, 1.0), "nnU-Net"),
    Line("GAMMA", "augmentation", (0.7, 1.5), "nnU-Net"),
    Line("CUTOFF", "device_augmentation", 4.0, "scipy, as batchgenerators has it"),
    Line("LOG_GAMMA", "augmentation", 0.3, "1.7, TorchIO's RandomGamma"),
]

# Columns: records, as a recipe that says nothing else leaves them.
DEFAULTS: list[Line] = [
    Line("axis", "Stack SuperImage", 0, "1.1, 2.1"),
    Line("context", "Slices SuperImage", 0, "1.1, 2.4, 3.6"),
    Line("{overlap predicted_overlap}", "Stack", 0, "2.1: no overlap at inference; see OVERLAP_FACTOR for training"),
    Line("last_stack", "Stack", "flush", "not: 2.1 fills it up, as the recipe does"),
    Line("detector_axis", "Projections", None, "3.1 [G]"),
    Line("num_training_views", "Projections", 12, "3.7"),
    Line("num_views", "Projections", 60, "3.7"),
    Line("projection", "Projections", "max", "3.2"),
    Line("inversion", "Projections", False, "3.4; section 5 of the paper names it for other organs"),
    Line("normalization", "Projections", "affine", "3.5 [G]"),
    Line("path_schedule", "Projections", "progress", "not: 3.7 counts epochs, as the recipe does"),
    Line("num_classes", "Projections", 1, "3.5"),
    Line("background", "Projections", True, "ours: with a background of 0 softmax is the sigmoid of 3.5"),
    Line("views", "FusedViews", ("axial", "coronal", "sagittal"), "4.1"),
    Line("regions", "FusedViews", False, "4.2"),
    Line("image", "FusedViews", True, "4.2"),
    Line("from_mean", "FusedViews", True, "not: 4.2, as the recipe has it"),
    Line("task", "PretextConfig", "inpainting", "1.8"),
    Line("hidden_share", "PretextConfig", 0.5, "1.8 [G]"),
    Line("piece", "PretextConfig", 0.25, "1.8 [G]"),
    Line("whole_slices", "PretextConfig", False, "1.8 [G]"),
    Line("grid", "PretextConfig", None, "1.8 [G]"),
    Line("exchanged_share", "PretextConfig", 1.0, "1.8 [G]"),
    Line("search_radius", "NonlocalStapleSettings", 3, "4.5 [C]"),
    Line("patch_radius", "NonlocalStapleSettings", 2, "4.5 [C]"),
    Line("distance_deviation", "NonlocalStapleSettings", 1.5, "4.5 [C]"),
    Line("intensity_deviation", "NonlocalStapleSettings", 0.25, "4.5 [C]"),
    Line("prior", "NonlocalStapleSettings", "voxelwise", "4.5 [C]"),
    Line("consensus", "NonlocalStapleSettings", 0.99, "4.5 [C]"),
    Line("agreed_margin", "NonlocalStapleSettings", 2, "ours"),
    Line("tolerance", "NonlocalStapleSettings", 1e-4, "4.5 [C]"),
    Line("max_iterations", "NonlocalStapleSettings", 100, "4.5 [C]"),
]

Table = dict[tuple[str, str], Any]
"""Values by column and setting."""
NAMES = {"name", "recipe", "source", "schema_version"}
"""Fields that are no numbers of a method."""
OF_THE_TOPOLOGY: dict[str, Any] = {"strides": True, "kernels": True, "network": {"strides", "kernels"}}
"""Fields of networks, and of networks within them."""
MODULES = {
    "fusion_net": fusion_net,
    "mixing": mixing_settings,
    "slice_mixing": mixing,
    "resnet_unet": resnet_unet,
    "rstn": rstn,
    "se_unet": se_unet,
    "swin_unetr": swin_unetr,
    "vnet": vnet,
    "xception_cbam_unet": xception_cbam_unet,
    "super_image": super_image,
    "stack": stack,
    "grids": grids,
    "projections": method,
    "projection_model": model,
    "projection_schedule": schedule,
    "fused_views": fused_views,
    "lifted_views": lifted_views,
    "losses": losses,
    "components": components,
    "staple": staple,
    "normalize": normalize,
    "splits": splits,
    "augmentation": augmentation,
    "device_augmentation": device_augmentation,
    "model_sets": model_sets,
    "muon": muon,
    "network_rules": network_rules,
}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings within settings by names with dots."""
    found = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif name not in NAMES:
            found[prefix + name] = value
    return found


def recipes() -> Table:
    configs = dict(RECIPES)
    fusions = {name: find_recipe(name, fuses_views=True) for name in RECIPES}
    joint = {name: find_recipe(name, fuses_views=True, joint=True) for name in RECIPES}
    configs |= {"mv": fusions["default"], "mv_xia2018": fusions["xia2018"], "joint": joint["default"]}
    configs["xia2018_fine"] = find_recipe("xia2018", fine=True).model_copy(update={"fine": None})
    # What the columns stand for.
    for name in RECIPES:
        assert joint[name] == configs["joint"].model_copy(update={"recipe": name})
        wanted = configs["mv_xia2018" if name == "xia2018" else "mv"]
        assert fusions[name] == wanted.model_copy(update={"recipe": name})
    return {
        (owner, key): value for owner, config in configs.items() for key, value in flat(config.model_dump()).items()
    }


def fine_models() -> Table:
    configs = {name: find_recipe(name, fine=True) for name in RECIPES}
    for name, config in configs.items():
        assert name == "xia2018" or config.model_copy(update={"fine": None}) == RECIPES[name]
    return {(name, key): value for name, config in configs.items() for key, value in flat(dict(config.fine)).items()}


def plans() -> Table:
    return {
        (name, key): value
        for name, rules in PLANNING_RULES.items()
        for key, value in flat(rules.model_dump(exclude_none=True)).items()
    }


def networks() -> Table:
    """Without strides and kernels, which are the topology's."""
    found = {}
    for dims in (2, 3):
        topology = Topology(strides=((1,) * dims, *((2,) * dims,) * 6), kernels=((3,) * dims,) * 7)
        for name in networks_for(dims):
            values = make_network(name, topology).model_dump(exclude=OF_THE_TOPOLOGY)
            found |= {(f"{name}_{dims}", key): value for key, value in flat(values).items()}
    return found


def constants() -> Table:
    """Numbers, and tuples of them, that the modules define."""
    return {
        (owner, name): getattr(module, name)
        for owner, module in MODULES.items()
        for name in assigned(module)
        if name.isupper() and not name.startswith("_") and is_number(getattr(module, name))
    }


def assigned(module: ModuleType) -> list[str]:
    """Names that a module gives values to, as against those that it imports."""
    targets = [
        target
        for statement in ast.parse(inspect.getsource(module)).body
        for target in getattr(statement, "targets", [getattr(statement, "target", None)])
    ]
    names = [name for target in targets for name in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [name.id for name in names if isinstance(name, ast.Name)]


def is_number(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(is_number, value.values()))
    return all(map(is_number, value)) if isinstance(value, tuple) else isinstance(value, int | float)


def defaults() -> Table:
    records: list[type[BaseModel]] = [Slices, Stack, SuperImage, Projections, FusedViews]
    records += [PretextConfig, NonlocalStapleSettings]
    return {
        (record.__name__, name): field.default
        for record in records
        for name, field in record.model_fields.items()
        if name not in NAMES and not field.is_required()
    }


def written(lines: list[Line], actual: Table) -> Table:
    """What the lines say of the columns that there are."""
    said: Table = {}
    others = {}
    for line in lines:
        for setting in spelled_out(line.setting):
            if line.owners == "others":
                assert setting not in others, f"two lines for the others: {setting}"
                others[setting] = line.value
                continue
            for owner in line.owners.split():
                assert (owner, setting) not in said, f"two lines for {owner}: {setting}"
                said[owner, setting] = line.value
    for setting, value in others.items():
        owners = [owner for owner, known in actual if known == setting and (owner, setting) not in said]
        assert owners, f"a line for nobody: {setting}"
        said |= {(owner, setting): value for owner in owners}
    return said


def spelled_out(setting: str) -> list[str]:
    """`a.{b c}.d` is `a.b.d` and `a.c.d`."""
    before, braces, after = (re.fullmatch(r"(.*?)(?:\{(.*)\}(.*))?", setting) or pytest.fail(setting)).groups()
    return [setting] if braces is None else [f"{before}{word}{after}" for word in braces.split()]


@pytest.mark.parametrize(
    ("lines", "collect"),
    [
        pytest.param(TRAINING, recipes, id="training"),
        pytest.param(FINE, fine_models, id="fine models"),
        pytest.param(PLANNING, plans, id="planning"),
        pytest.param(NETWORKS, networks, id="networks"),
        pytest.param(CONSTANTS, constants, id="modules"),
        pytest.param(DEFAULTS, defaults, id="records"),
    ],
)
def test_every_constant_is_the_one_in_the_table(lines: list[Line], collect: Callable[[], Table]) -> None:
    actual = collect()
    expected = written(lines, actual)
    assert sorted(actual.keys() - expected.keys()) == [], "without a line in the table"
    assert sorted(expected.keys() - actual.keys()) == [], "in the table, but nowhere else"
    different = {key: (expected[key], value) for key, value in actual.items() if not same(expected[key], value)}
    assert different == {}, "(in the table, in the code)"


def same(first: Any, second: Any) -> bool:
    """Whether values are equal, and not only because True is 1."""
    return bool(first == second) and isinstance(first, bool) == isinstance(second, bool)
