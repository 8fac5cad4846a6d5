"""The processor and the verdict of its self-test, which decides between bfloat16 and float32."""

import os
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch

from seg25d.core.cgroups import read_text
from seg25d.core.errors import InputError, RecordError
from seg25d.core.leftovers import remove_leftovers
from seg25d.core.records import Record, digest, read_record, write_record

CAPS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that keep torch and oneDNN from using instruction sets."""
INSTRUCTION_SETS: dict[str, Callable[[], bool]] = {
    "AVX2": torch.cpu._is_avx2_supported,
    "AVX-512": torch.cpu._is_avx512_supported,
    "AVX512-BF16": torch.cpu._is_avx512_bf16_supported,
    "AMX": torch.cpu._is_amx_tile_supported,
}
"""Instruction sets that decide speed and precision."""


class Processor(Record):
    """All that a verdict depends on."""

    name: str
    """Such as `AMD EPYC 9654`."""
    instruction_sets: tuple[str, ...]
    """Members of `INSTRUCTION_SETS` that the processor has."""
    vectors: str
    """Vector instructions of torch's own kernels: `DEFAULT`, `AVX2` or `AVX512`."""
    caps: dict[str, str]
    """Variables of `CAPS` that are set."""
    torch: str

    @property
    def key(self) -> str:
        """Digest of all fields."""
        return digest(self.model_dump(mode="json"), 16)

    @property
    def multiplies_bfloat16(self) -> bool:
        """Whether there are instructions for products in bfloat16; CPUs without them emulate these and are slower."""
        return bool({"AVX512-BF16", "AMX"} & set(self.instruction_sets))

    @property
    def description(self) -> str:
        """In a few words."""
        caps = "".join(f", {name}={value}" for name, value in self.caps.items())
        sets = ", ".join(self.instruction_sets) or "no AVX2"
        return f"{self.name} ({sets}{caps})"


class Verdict(Record):
    """Result of a self-test of bfloat16 on a processor."""

    schema_version: Literal[1] = 1
    processor: Processor
    precision: Literal["bfloat16", "float32"]
    """The one to compute in."""
    safe: bool
    """Whether bfloat16 passed: no crash, no hang, no wrong number."""
    tested: bool = True
    """Whether it could be tested at all; if not, this is for one process only."""
    reason: str
    """One sentence for people."""
    seconds: dict[str, float]
    """Seconds of the timed updates in `bfloat16` and `float32`, as far as they were timed."""

    def save(self) -> None:
        """Keep it for this process, and for later ones on this machine if there is a place to write to."""
        _OF_THIS_PROCESS[self.processor.key] = self
        if not self.tested:
            return
        with suppress(InputError, OSError, RuntimeError):  # no right to write; no home
            remove_leftovers(cache_folder())
            write_record(_verdict_file(self.processor), self)


_OF_THIS_PROCESS: dict[str, Verdict] = {}
"""Verdicts of this process by the key of the processor, as there may be no place to write them to."""


def this_processor() -> Processor:
    """The processor that this process computes on, as torch sees it."""
    return Processor(
        name=_processor_name(),
        instruction_sets=tuple(name for name, is_supported in INSTRUCTION_SETS.items() if is_supported()),
        vectors=torch.backends.cpu.get_cpu_capability(),
        caps={name: os.environ[name] for name in CAPS if name in os.environ},
        torch=torch.__version__,
    )


def read_verdict(processor: Processor) -> Verdict | None:
    """Read the verdict of the last self-test of this processor; None if there is none or it cannot be read."""
    if processor.key in _OF_THIS_PROCESS:
        return _OF_THIS_PROCESS[processor.key]
    try:
        verdict = read_record(_verdict_file(processor), Verdict)
    except (RecordError, OSError, RuntimeError):
        return None
    return verdict if verdict.processor == processor else None


def cache_folder() -> Path:
    """The user's cache folder (XDG Base Directory Specification): whoever clears it repeats tests of seconds.

    Raises:
        RuntimeError: If the user has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seg25d"


def _verdict_file(processor: Processor) -> Path:
    return cache_folder() / f"processor_{processor.key}.json"


def _processor_name() -> str:
    """As Linux knows it, else as Python does."""
    lines = (line.split(":", 1) for line in read_text(Path("/proc/cpuinfo")).splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines}
    return fields.get("model name") or platform.processor() or platform.machine()
