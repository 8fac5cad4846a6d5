"""The process that `machine/self_test.py` starts: it computes, and may crash or hang.

    python -m seg25d.machine DEVICE PRECISION SEED SECONDS TRIALS CHECK [CHECK ...]

Prints a JSON line before each trial, so that a crash can be told where, and one with the finding after each check.
"""

import faulthandler
import itertools
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator

import torch

from seg25d.core.device import Execution, choose_execution
from seg25d.machine.layers import (
    LIMITS,
    Trial,
    known_troubles,
    random_convolutions,
    random_other_layers,
    relative_error,
)
from seg25d.machine.names import KNOWN, NETWORKS, OTHERS, TIMING, convolutions_name
from seg25d.machine.networks import compare_update, seconds_per_update, small_networks


def main() -> None:
    """Run the checks that are named."""
    device, precision, seed, seconds, trials, *checks = sys.argv[1:]
    faulthandler.enable()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    execution = choose_execution(device, precision)
    for check in checks:
        begun = time.perf_counter()
        finding: dict[str, object]
        if check == TIMING:
            precisions = ("bfloat16", "float32")
            seconds_each = seconds_per_update([choose_execution(device, precision) for precision in precisions])
            finding = {"seconds_per_update": dict(zip(precisions, seconds_each, strict=True))}
        elif check == NETWORKS:
            finding = _check_networks(execution)
        else:
            finding = _check_layers(
                check, itertools.islice(_trials(check, int(seed)), int(trials)), execution, float(seconds)
            )
        say({"check": check, **finding, "seconds": time.perf_counter() - begun})


def _end_with_parent() -> None:
    """Standard input ends when the process that started this one does, however that ends."""
    while os.read(0, 1024):
        pass
    os._exit(0)


def say(line: dict[str, object]) -> None:
    """One JSON line to the process that started this one."""
    print(json.dumps(line), flush=True)  # noqa: T201 - that is how they talk


def _trials(check: str, seed: int) -> Iterator[Trial]:
    rng = random.Random(seed)
    if check == KNOWN:
        return known_troubles()
    if check == OTHERS:
        return random_other_layers(rng)
    dims, transposed = next(
        (dims, transposed)
        for dims, transposed in itertools.product((2, 3), (False, True))
        if convolutions_name(dims, transposed) == check
    )
    return random_convolutions(dims, rng, transposed=transposed)


def _check_layers(check: str, trials: Iterator[Trial], execution: Execution, seconds: float) -> dict[str, object]:
    """Trials: all known faulty ones, then as many others as the time allows."""
    end, count, largest = time.perf_counter() + seconds, 0, 0.0
    for trial in trials:
        say({"check": check, "at": trial.words})
        error = relative_error(trial, execution)
        count, largest = count + 1, max(largest, error)
        if not error <= LIMITS[execution.dtype]:
            return {"wrong": f"{trial.words}: relative error {error:.3g}", "trials": count}
        if check != KNOWN and time.perf_counter() > end:
            break
    return {"trials": count, "error": largest}


def _check_networks(execution: Execution) -> dict[str, object]:
    count, largest = 0, 0.0
    for name, network, images in small_networks():
        say({"check": NETWORKS, "at": name})
        comparison = compare_update(network, images, execution)
        count, largest = count + 1, max(largest, comparison.scores)
        if not comparison.is_right(execution.dtype):
            return {"wrong": f"{name}: {comparison.words}", "trials": count}
    return {"trials": count, "error": largest}


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
