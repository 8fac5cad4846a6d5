"""Parameters and operations of all networks in two and three dimensions (Sobirov et al. 2022, Table 1, and others).

python benchmarks/network_costs.py --output benchmarks/results/network_costs.json
python benchmarks/network_costs.py --dataset 4 --output benchmarks/results/network_costs_hippocampus.json

Without `--dataset`, these are the networks of the papers with the papers' sizes: a volume of 144 x 144 x 144 voxels and
the super image of the same voxels, 1728 x 1728, with two input channels and one output. With it, these are the
configurations of that data set's plans with their windows. Operations are counted on tensors without data.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from finished import settings_of
from result_tables import Row, Table, write_tables
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from seg25d.core.device import flop_counter
from seg25d.core.records import read_record
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import read_description
from seg25d.networks.base import Network
from seg25d.networks.paper_unets import half_unet, super_image_unet
from seg25d.networks.specs.resnet_unet import ResNetUNetSpec
from seg25d.networks.specs.se_unet import SEUNetSpec
from seg25d.networks.specs.swin_unetr import SwinUNETRSpec
from seg25d.networks.specs.vnet import VNetSpec
from seg25d.networks.specs.xception_cbam_unet import XceptionCBAMUNetSpec
from seg25d.planning.plan import Plans

SIDE = 144
"""Voxels along each axis of a case of HECKTOR; 144 slices make 12 x 12 tiles (methods.md 1.1)."""
SUPER_IMAGE = 12 * SIDE
STACK = (32, 512, 512)
"""Input size of Shivdeo et al. (methods.md 2.3)."""


def make_stages(dims: int, number: int, kernel: int = 3) -> dict[str, Any]:
    """Make stages with strides of 2 and equal kernels."""
    return {"strides": ((1,) * dims, *((2,) * dims,) * (number - 1)), "kernels": ((kernel,) * dims,) * number}


def paper_networks() -> list[tuple[str, Network, int, tuple[int, ...], str]]:
    """Name, settings, input channels, input size, and the paper's number of parameters."""
    volume, tiled, one_slice = (SIDE,) * 3, (SUPER_IMAGE,) * 2, STACK[1:]
    rows: list[tuple[str, Network, int, tuple[int, ...], str]] = []
    for dims, size in ((3, volume), (2, tiled)):
        rows.append((f"U-Net (SI) {dims}D", super_image_unet(dims), 2, size, "3D : 2D = 3"))
    for dims, size, paper in ((3, volume, "21.75 M"), (2, tiled, "8.51 M")):
        rows.append((f"SE-norm U-Net {dims}D", SEUNetSpec(**make_stages(dims, 5)), 2, size, paper))
    seven = SEUNetSpec(**make_stages(2, 5), encoder_kernel=7)
    rows.append(("SE-norm U-Net, kernel 7, 2D", seven, 2, tiled, "28.09 M"))
    for dims, size, paper in ((3, (160,) * 3, "15.7 M"), (2, tiled, "6.3 M")):
        rows.append((f"Swin UNETR {dims}D", SwinUNETRSpec(dims=dims), 2, size, paper))
    rows.append(("ResNet-34 U-Net 2D", ResNetUNetSpec(), 2, tiled, "-"))
    rows.append(("V-Net 3D", VNetSpec(**make_stages(3, 5, kernel=5)), 1, STACK, "206 M"))
    rows.append(("Xception + CBAM 2D, a slice", XceptionCBAMUNetSpec(), 3, one_slice, "38 M"))
    for dims, size, paper in ((3, (96, 288, 224), "1.6 M"), (2, (288, 224), "8.6 M")):
        rows.append((f"U-Net (2.5D) {dims}D", half_unet(dims), 1, size, paper))
    return rows


def count_operations(network: nn.Module, images: Tensor) -> float:
    """Count the additions and multiplications of a forward pass."""
    with flop_counter() as counter, torch.no_grad():
        network.eval()(images)
    return float(counter.get_total_flops())


def row(name: str, network: nn.Module, images: Tensor, voxels: int, paper: str) -> Row:
    """Make a row with parameters and operations."""
    return {
        "name": name,
        "input": list(images.shape),
        "parameters": sum(each.numel() for each in network.parameters()),
        "flops": count_operations(network, images),
        "voxels": voxels,
        "paper": paper,
    }


def of_papers() -> list[Row]:
    """Make a row for every network of the papers, in 2D and 3D."""
    rows = []
    for name, spec, channels, size, paper in paper_networks():
        with FakeTensorMode():
            images = torch.empty(1, channels, *size)
            rows.append(row(name, spec.build(channels, 1), images, math.prod(size), paper))
    return rows


def of_plans(plans: Plans, num_channels: int, num_outputs: int) -> list[Row]:
    """Make a row for every planned configuration but `mv`, whose views have their own rows."""
    rows = []
    for name, plan in plans.configurations.items():
        if plan.representation.name == "fused_views":
            continue
        with FakeTensorMode():
            model = plan.build_model(num_channels, num_outputs)
            images = torch.empty(1, num_channels, *plan.window)
            rows.append(row(f"{name} ({plan.network.name})", model, images, math.prod(plan.window), "-"))
    return rows


TABLE = Table(
    "network_costs",
    "Parameters and operations of the networks",
    {
        "network": lambda row: row["name"],
        "input": lambda row: " x ".join(map(str, row["input"][1:])),
        "parameters": lambda row: f"{row['parameters']:,}",
        "paper": lambda row: row["paper"],
        "GMACs": lambda row: f"{row['flops'] / 2e9:.1f}",
        "kMACs per voxel": lambda row: f"{row['flops'] / 2e3 / row['voxels']:.1f}",
    },
    (
        "Multiplications with additions of convolutions and matrix products in a forward pass without mirroring. "
        "Swin UNETR needs sizes divisible by 32: 160 instead of 144 in 3D (methods.md 1.1).",
    ),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dataset", help="planned: 1, 001 or Dataset001_Name (default: the papers' networks)")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="FILE.json; FILE.md is written beside it")
    options = parser.parse_args(arguments)
    if options.dataset is None:
        rows = of_papers()
    else:
        workspace = Workspace.resolve(options.workspace)
        folder = workspace.preprocessed_dataset(workspace.dataset_name(options.dataset))
        plans = read_record(folder.plans(recipe=options.recipe), Plans)
        description = read_description(folder.dataset)
        rows = of_plans(plans, len(description.channel_names), description.labels.num_outputs)
    write_tables(TABLE, rows, {"settings": settings_of(options)}, options.output)


if __name__ == "__main__":
    main()
