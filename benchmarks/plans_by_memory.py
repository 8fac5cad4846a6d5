"""Plans for a data set of a given shape at several memory budgets, with the traced memory and arithmetic.

python benchmarks/plans_by_memory.py --shape 32 512 512 --configuration stack --channel CT
python benchmarks/plans_by_memory.py --shape 96 288 224 --configuration mip --channel MRA
"""

import argparse
import json
from pathlib import Path
from typing import Any

from made_up import make_up_dataset

from seg25d.planning.plan import ConfigurationPlan
from seg25d.planning.planner import plan_dataset
from seg25d.planning.recipe_rules import find_rules


def decision(plan: ConfigurationPlan) -> dict[str, Any]:
    """The parts of a plan that differ between budgets."""
    return {
        "window": plan.window,
        "batch_size": plan.batch_size,
        "representation": plan.representation.model_dump(mode="json"),
        "network": f"{plan.network.name} {plan.network.summary}",
        "checkpointing": getattr(plan.network, "checkpointing", False),
        "num_parameters": plan.num_parameters,
        "estimated_memory_gb": plan.estimated_memory_gb,
        "tflop_per_update": plan.flops_per_update / 1e12,
    }


def main() -> None:
    """Plan for every budget, and print and optionally write the decisions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--shape", type=int, nargs=3, required=True, metavar=("D", "H", "W"))
    parser.add_argument("--spacing-mm", type=float, nargs=3, default=(1.0, 1.0, 1.0), metavar=("D", "H", "W"))
    parser.add_argument("--configuration", required=True)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--channel", default="CT")
    parser.add_argument("--num-cases", type=int, default=100)
    parser.add_argument("--num-classes", type=int, default=1)
    parser.add_argument("--gpu-memory-gb", type=float, nargs="+", default=[8.0, 16.0, 80.0])
    parser.add_argument("--cpu-gflops", type=float, default=0.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    fingerprint, description = make_up_dataset(
        tuple(arguments.shape),
        num_classes=arguments.num_classes,
        spacing_mm=tuple(arguments.spacing_mm),
        num_cases=arguments.num_cases,
        channel=arguments.channel,
    )
    results = {}
    for memory in arguments.gpu_memory_gb:
        plans = plan_dataset(
            fingerprint,
            description,
            configurations=[arguments.configuration],
            rules=find_rules(arguments.recipe),
            gpu_memory_gb=memory,
            cpu_gflops=arguments.cpu_gflops,
        )
        results[f"{memory:g} GB"] = [decision(plan) for plan in plans.configurations.values()]
        print(f"{memory:g} GB", json.dumps(results[f"{memory:g} GB"]))
    if arguments.output:
        arguments.output.write_text(json.dumps({"arguments": vars(arguments) | {"output": None}, "results": results}))


if __name__ == "__main__":
    main()
