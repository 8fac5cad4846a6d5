"""Updates per second of configurations in each precision, optionally with a restricted instruction set.

    python benchmarks/processor_speed.py --workspace WORKSPACE --datasets 4 5 27 --output FILE.json [--source OTHER]

Data sets must be planned. Inputs are random, with the shapes of the plans. Every measurement runs in a separate
process, so that a crash or a hang becomes a row of the table. `--source` runs the package of another checkout, such as
the previous commit, alternating with this one, so that noise of the machine affects both. `--operators` also tells how
the processor time of an update is shared out between convolutions and the rest. `--compile` also measures models that
went through `torch.compile` (which needs a C++ compiler), with an empty cache and again with what that left in it;
`first` is the first update, in which it compiles, `processor` and `first_processor` are processor seconds, which what
else runs changes less.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from seg25d.core.device import choose_execution
from seg25d.core.records import read_record
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import read_description
from seg25d.planning.plan import Plans
from seg25d.training.losses import DiceCrossEntropy
from seg25d.training.recipes import find_recipe
from seg25d.training.state import new_state

WARM_UP = 2
"""Updates before the clock starts."""
TIMEOUT_S = 300
TIMEOUT_COMPILED_S = 1200
"""torch.compile makes minutes of C++ for a large network."""
PROFILED = 3
"""Updates that are looked at operator by operator."""
LEAST_SECONDS = 0.0005
"""Of what is named."""


def measure(arguments: argparse.Namespace) -> None:
    """Print seconds per update as one JSON line, in a separate process."""
    workspace = Workspace.resolve(arguments.workspace)
    folder = workspace.preprocessed_dataset(workspace.dataset_name(arguments.dataset))
    plan = read_record(folder.plans(), Plans).configurations[arguments.configuration]
    description = read_description(folder.dataset)
    execution = choose_execution("cpu", arguments.precision)
    torch.manual_seed(0)
    model = plan.build_model(len(description.channel_names), description.labels.num_outputs)
    channels = plan.representation.input_channels(len(description.channel_names))
    if plan.representation.name == "fused_views":
        channels = next(each for each in model.modules() if isinstance(each, nn.Conv3d)).in_channels
    # Older checkouts do not know this word.
    words = {"fuses_views": True} if arguments.configuration == "mv" else {}
    state = new_state(model, find_recipe("default", **words), execution)
    forward = torch.compile(model) if arguments.compiled else model
    images = torch.randn(plan.batch_size, channels, *plan.window).clamp(0, 1)
    target = torch.randint(0, 2, (plan.batch_size, *plan.window), dtype=torch.uint8)
    loss_function = DiceCrossEntropy(description.labels, 1e-5)

    def update() -> float:
        begun = time.perf_counter()
        with execution.autocast():
            outputs = forward(images)
        with record_function("loss"):
            loss = loss_function(outputs, target)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with record_function("optimizer"):
            state.optimizer.step()
        return time.perf_counter() - begun

    model.train()
    found = timed(update, arguments.seconds)
    if arguments.compiled:
        found["graph_breaks"] = torch._dynamo.utils.counters["graph_break"].total()
    if arguments.operators:
        found["operators"] = by_operator(update)
    print(json.dumps(found))


def timed(update: Callable[[], float], wanted: float) -> dict[str, Any]:
    """The first of some updates, and what those after the warm-up take, in about so many seconds."""
    before = processor_seconds()
    first, first_processor = update(), processor_seconds() - before
    for _ in range(WARM_UP - 1):
        update()
    seconds: list[float] = []
    before = processor_seconds()
    while len(seconds) < 3 or (sum(seconds) < wanted and len(seconds) < 200):
        seconds.append(update())
    processor = (processor_seconds() - before) / len(seconds)
    seconds.sort()
    found = {"median": seconds[len(seconds) // 2], "smallest": seconds[0], "updates": len(seconds)}
    return found | {"processor": processor, "first": first, "first_processor": first_processor}


def processor_seconds() -> float:
    """Processor seconds of this process and of those that it has waited for, such as compilers."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def by_operator(update: Callable[[], float]) -> dict[str, float]:
    """Seconds of an update by kind of operator, each without the operators that it calls, on the calling threads."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(PROFILED):
            update()
    kinds: Counter[str] = Counter()
    for event in profiler.key_averages():
        kinds[_kind(event.key)] += event.self_cpu_time_total / 1e6 / PROFILED
    return {kind: round(seconds, 4) for kind, seconds in kinds.most_common() if seconds > LEAST_SECONDS}


def _kind(operator: str) -> str:
    if "convolution" in operator:  # weights' gradients are put together by torch.ops.aten.convolution_backward
        return "convolutions"
    if "norm" in operator.lower() and "clip" not in operator:
        return "norms"
    return operator.removeprefix("aten::").removesuffix("_")


def run(
    arguments: argparse.Namespace,
    source: Path,
    case: dict[str, str],
    caps: dict[str, str],
    compiled_in: str | None = None,
) -> Any:
    """Run one measurement in a process; return a message if it failed.

    Args:
        arguments: Of the command.
        source: Checkout whose package is measured.
        case: Data set, configuration and precision.
        caps: Variables of the environment.
        compiled_in: Folder for what torch.compile makes; None: nothing is compiled.
    """
    command = [sys.executable, __file__, "--measure", "--workspace", str(arguments.workspace)]
    command += ["--seconds", str(arguments.seconds), *(["--operators"] if arguments.operators else [])]
    for key, value in case.items():
        command += [f"--{key}", value]
    caps = caps if compiled_in is None else {**caps, "TORCHINDUCTOR_CACHE_DIR": compiled_in}
    command += [] if compiled_in is None else ["--compiled"]
    limit = TIMEOUT_S if compiled_in is None else TIMEOUT_COMPILED_S
    environment = {**os.environ, **caps, "PYTHONPATH": str(source)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode:
        return f"status {done.returncode}: {(done.stderr.strip().splitlines() or ['died'])[-1][:120]}"
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure every configuration in every precision, print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", default=["4", "5", "27"])
    parser.add_argument("--configurations", nargs="+", default=["stack", "3d", "mv", "axial", "si"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--caps", nargs="*", default=[], help="VARIABLE=VALUE of the environment, for all measurements")
    parser.add_argument("--seconds", type=float, default=5.0, help="time per measurement (default: 5)")
    parser.add_argument("--operators", action="store_true", help="also seconds of an update by kind of operator")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, and again with its cache")
    parser.add_argument("--source", type=Path, help="another checkout, measured alternately")
    parser.add_argument("--output", type=Path)
    for name in ("dataset", "configuration", "precision"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--compiled", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments)
        return
    here = Path(__file__).resolve().parent.parent
    caps = dict(each.split("=", 1) for each in arguments.caps)
    rows = []
    for dataset in arguments.datasets:
        for configuration in arguments.configurations:
            for precision in arguments.precisions:
                case = {"dataset": dataset, "configuration": configuration, "precision": precision}
                row: dict[str, Any] = {**case, "caps": caps, "here": run(arguments, here, case, caps)}
                if arguments.source:
                    row["source"] = run(arguments, arguments.source.resolve(), case, caps)
                if arguments.compile:
                    with tempfile.TemporaryDirectory() as folder:
                        row["compiled"] = run(arguments, here, case, caps, folder)
                        row["compiled_again"] = run(arguments, here, case, caps, folder)
                rows.append(row)
                print(json.dumps(row), flush=True)
                if arguments.output:
                    arguments.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
