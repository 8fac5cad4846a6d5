"""How fast the CPUs of this machine train, as a power of two, so that the same machine plans the same."""

import logging
import math
from contextlib import suppress
from typing import Literal

import torch

from seg25d.core.device import choose_execution, flop_counter
from seg25d.core.errors import InputError, RecordError
from seg25d.core.leftovers import remove_leftovers
from seg25d.core.processor import Processor, cache_folder, this_processor
from seg25d.core.records import Record, digest, read_record, write_record
from seg25d.machine.networks import seconds_per_update, timed_networks
from seg25d.machine.self_test import check_before_training

logger = logging.getLogger(__name__)


class Speed(Record):
    """What was measured, in a file of its own in the user's cache folder."""

    schema_version: Literal[1] = 1
    processor: Processor
    precision: str
    gflops: float
    """10^9 floating-point operations per second of one thread."""


def cpu_gflops() -> float:
    """10^9 floating-point operations per second with which this machine trains, measured now or before.

    Of forward and backward passes of two small networks, in the precision of trainings, as many times as torch has
    threads; large windows and volumes have 0.6 to 1.6 times that (documentation/concepts/choices.md).

    Returns:
        The nearest power of two: what else the machine does hardly changes it.
    """
    check_before_training("cpu", "auto")
    execution = choose_execution("cpu")
    processor, precision = this_processor(), str(execution.dtype)
    name = f"speed_{digest([processor.key, precision], 16)}.json"
    known: Speed | None = None
    with suppress(RecordError, OSError, RuntimeError):
        known = read_record(cache_folder() / name, Speed)
    if known is None:
        logger.info("timing a few updates on this machine, once, as large updates take long on CPUs")
        with torch.random.fork_rng([]):
            known = Speed(processor=processor, precision=precision, gflops=_gflops_of_a_thread())
        with suppress(InputError, OSError, RuntimeError):  # no right to write; no home
            remove_leftovers(cache_folder())
            write_record(cache_folder() / name, known)
    return float(2.0 ** round(math.log2(known.gflops * torch.get_num_threads())))


def _gflops_of_a_thread() -> float:
    with flop_counter() as counter:
        for network, images in timed_networks().values():
            network(images)[0][0].square().mean().backward()
    (seconds,) = seconds_per_update([choose_execution("cpu")])
    return float(counter.get_total_flops() / seconds / 1e9)
