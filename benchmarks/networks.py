"""Comparison of networks of a configuration in equal time: widths, depths, residual blocks, neighbouring slices.

OMP_NUM_THREADS=1 python benchmarks/networks.py --dataset 4 --configuration stack --time-budget 90s \
    --output benchmarks/results/networks_hippocampus_stack.json

Every row is the planned configuration with another network (or other neighbouring slices), trained for the same time
on the first fold and scored on its whole validation cases. `stack` and `3d` compare 3D networks, slices and super
images 2D networks.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from contest import Contender, compete, make_parser, with_parts
from result_tables import OVER_SEEDS, Table, columns

from seg25d.networks.specs.unet import UNetSpec
from seg25d.networks.specs.vnet import VNetSpec
from seg25d.planning.plan import ConfigurationPlan

Change = Callable[[ConfigurationPlan], ConfigurationPlan]


def unet(**settings: Any) -> Change:
    """A change to a U-Net with the planned stages and kernels."""

    def change(plan: ConfigurationPlan) -> ConfigurationPlan:
        planned = plan.network
        assert isinstance(planned, UNetSpec | VNetSpec), "made for configurations with a U-Net or a V-Net"
        kept = planned.model_dump() if isinstance(planned, UNetSpec) else {"num_supervised": len(planned.strides) - 2}
        topology = {"strides": planned.strides, "kernels": planned.kernels}
        return with_parts(plan, network=kept | topology | settings | {"name": "unet"})

    return change


def shallower(plan: ConfigurationPlan) -> ConfigurationPlan:
    """Remove the coarsest stage of the planned U-Net."""
    planned = plan.network
    assert isinstance(planned, UNetSpec), "made for configurations with a U-Net"
    network = planned.model_dump()
    kept = {name: network[name][:-1] for name in ("strides", "kernels", "widths")}
    return with_parts(plan, network={**network, **kept, "num_supervised": max(1, planned.num_supervised - 1)})


def vnet(**settings: Any) -> Change:
    """A change to a V-Net with the planned stages and kernels, and instance norm."""

    def change(plan: ConfigurationPlan) -> ConfigurationPlan:
        planned = plan.network
        assert isinstance(planned, UNetSpec | VNetSpec), "made for configurations with a U-Net or a V-Net"
        stages = len(planned.strides)
        fresh = {
            "encoder_blocks": VNetSpec.model_fields["encoder_blocks"].default[:stages],
            "decoder_blocks": VNetSpec.model_fields["decoder_blocks"].default[5 - stages :],
            "norm": "instance",
        }
        kept = planned.model_dump() if isinstance(planned, VNetSpec) else fresh
        topology = {"strides": planned.strides, "kernels": planned.kernels}
        return with_parts(plan, network=kept | topology | settings | {"name": "vnet"})

    return change


def context(slices: int) -> Change:
    """A change of the number of neighbouring slices on each side."""

    def change(plan: ConfigurationPlan) -> ConfigurationPlan:
        return with_parts(plan, representation={**plan.representation.model_dump(), "context": slices})

    return change


def doubling(first: int, stages: int) -> tuple[int, ...]:
    """Widths of stages that double at each one."""
    return tuple(first * 2**stage for stage in range(stages))


def contenders(configuration: str, stages: int) -> list[Contender]:
    """The planned network, and the variants."""

    def row(name: str, change: Change) -> Contender:
        return Contender(name, configuration, change)

    rows = [Contender("planned", configuration)]
    once = {"encoder_blocks": 1, "decoder_blocks": 1}
    if configuration == "stack":
        middle = doubling(16, stages)
        rows.append(row("V-Net 16-32-64-128", vnet(widths=middle)))
        rows.append(row("U-Net 16-32-64-128", unet(widths=middle)))
        rows.append(row("U-Net 16-32-64-128, one convolution per stage", unet(widths=middle, **once)))
        rows.append(row("U-Net 16-32-64-128, one residual block per stage", unet(widths=middle, residual=True, **once)))
        return rows
    wide = doubling(32, stages)
    rows.append(row("U-Net 16-32-128-256", unet(widths=(wide[0] // 2, wide[1] // 2, *wide[2:]))))
    rows.append(row("U-Net 32-64-128-256", unet(widths=wide)))
    rows.append(row("U-Net 8-16-32-64", unet(widths=doubling(8, stages))))
    rows.append(row("one convolution per stage", unet(**once)))
    rows.append(row("one residual block per stage", unet(residual=True, **once)))
    rows.append(row("one stage less", shallower))
    rows.append(row("no deep supervision", unet(num_supervised=1)))
    rows.append(row("V-Net 8-16-32-64", vnet(widths=doubling(8, stages))))
    if configuration != "si":
        rows += [row(f"{slices} neighbours per side", context(slices)) for slices in (0, 1)]
    return rows


TABLE = Table(
    "networks",
    "Networks in equal training time",
    {
        "network": lambda row: row["name"],
        **columns("Dice", "HD95 mm", "parameters", "updates", "memory", "s/case", "GFLOPs"),
    },
    (OVER_SEEDS,),
    references=("planned",),
)


def main() -> None:
    """Train every network for the same time, score it and write the table."""
    parser = make_parser(__doc__ or "", "4")
    parser.add_argument("--configuration", default="stack")
    parser.add_argument("--stages", type=int, default=4, help="stages of the planned network (default: 4)")
    options = parser.parse_args()
    table = replace(TABLE, name=f"{TABLE.name}_{options.configuration}")
    compete(contenders(options.configuration, options.stages), table, options)


if __name__ == "__main__":
    main()
