"""The one search: the best window whose training step fits the budgets of memory and time, then the largest batch."""

from collections.abc import Iterable, Iterator
from math import inf, prod
from typing import TypeAlias

from seg25d.core.errors import InputError
from seg25d.core.records import Record
from seg25d.core.types import Shape
from seg25d.networks.base import NetworkSpec
from seg25d.networks.specs.vnet import VNetSpec
from seg25d.planning.geometry import choose_topology, round_up
from seg25d.planning.memory import GIGABYTE, MemoryUse, training_memory
from seg25d.planning.network_rules import (
    WIDE_FROM_GB,
    choose_network,
    published_topology,
    with_checkpointing,
    with_mixing,
)
from seg25d.representations.base import AnyRepresentation, ConfigurationRules, VolumeGeometry

CARD_SHARE = 31 / 32
"""Share of the memory that is planned for, whether it is printed on a card, which has 7.76 or 7.78 of 8 GB for programs
(torch's messages in github.com/meta-llama/codellama/issues/82, github.com/sshan-zhao/GASDA/issues/19), or what a card
has, of which fragmentation takes a part. Not measured on a GPU here; with OVERHEAD_BYTES 1.25 of 24 GB stay free, as in
nnU-Net (22.7 GB, documentation/resenc_presets.md there)."""
OVERHEAD_BYTES = GIGABYTE // 2
"""Bytes kept free for memory that tracing cannot see: the CUDA context (0.27 to 0.62 GB,
github.com/pytorch/pytorch/pull/86509) and the smaller of cuDNN's workspaces; torch passes over algorithms whose
workspace finds no room."""
SMALLEST_BATCH = 2
"""As in nnU-Net (default_experiment_planner.py: UNet_min_batch_size); with small budgets only where a window covers
little of the data set."""
UPDATE_SECONDS = 2.0
"""Seconds that an update may take on CPUs: a quarter of an hour is then 450 updates. With 500 `stack` reaches a Dice of
0.866 on the hippocampus, with 4000 0.885; with 85 `3d` had 0.20 on cardiac MR (documentation/concepts/choices.md)."""
UPDATES_OF_A_TRAINING = 500
"""Updates that a training of a given time should have or more: with 500 `stack` has a Dice of 0.866 on the hippocampus,
of 0.885 with 4000, and `2d` 0.862, of 0.879 with 3000 (documentation/concepts/choices.md); an epoch of nnU-Net has 250.
The number itself has not been compared with others yet."""
LARGEST_BATCH = 64
"""Batch size beyond which a step only gets slower."""
LARGEST_SHARE_SMALL, LARGEST_SHARE_LARGE = 0.008, 0.025
"""Share of the data set's voxels that one batch covers at most (nnU-Net: 0.05), for small and large memory budgets.
Many small updates learn more in the same time, on CPUs by far (documentation/concepts/choices.md)."""


def largest_share(gpu_memory_gb: float) -> float:
    """The share for a memory budget."""
    return LARGEST_SHARE_LARGE if gpu_memory_gb >= WIDE_FROM_GB else LARGEST_SHARE_SMALL


def enough_voxels(total_voxels: int, num_cases: int, gpu_memory_gb: float) -> int:
    """Voxels of a window from which on even a batch of two (one, of a single case) covers too much of the data set."""
    return int(largest_share(gpu_memory_gb) * total_voxels / min(SMALLEST_BATCH, num_cases))


def update_seconds(time_budget_s: float = 0) -> float:
    """Seconds that an update may take on CPUs, so that a training of a time has enough of them; 0: of any time."""
    return min(UPDATE_SECONDS, time_budget_s / UPDATES_OF_A_TRAINING) if time_budget_s else UPDATE_SECONDS


MOST_VOXELS = 256**3
"""Voxels of a window beyond which memory goes to the batch: those of nnU-Net's first patch, from which its patches
shrink (default_experiment_planner.py). More context is not known to help: its preset XL, with up to 1.8 times the
voxels of L, has the mean Dice of L on six data sets, 87.6 (documentation/resenc_presets.md there)."""

SAME_NETWORK_SLACK = 1.15
"""A window predicted to need this many times the budget is not traced; padded grids make predictions inexact."""
OTHER_NETWORK_SLACK = 1.5
"""The same where the prediction comes from another topology; the first stage, which all share, dominates."""

SCORES_SHARE = 1 / 32
"""Share of the memory budget that the scores of one window take at most, in half precision, where prediction has them
all together: with very many classes they decide how much memory it takes (60 classes, 192^3 voxels:
documentation/reference/measurements.md)."""

MOST_NUMBERS = 2**31 - 1
"""Maximum number of values in a tensor of a training step: kernels that count with 32 bits refuse more, fail or are
slow (github.com/pytorch/pytorch/issues/22496)."""

Candidate: TypeAlias = tuple[AnyRepresentation, Shape]


class Limits(Record):
    """Limits on a training step of a configuration."""

    configuration: str
    geometry: VolumeGeometry
    num_channels: int
    num_outputs: int
    num_cases: int
    total_voxels: int
    """Voxels of all cases at the target spacing."""
    gpu_memory_gb: float
    cpu_gflops: float = 0
    """Speed of the CPUs that train, in 10^9 floating-point operations per second; 0: updates may cost anything."""
    time_budget_s: float = 0
    """Seconds that each training is given; 0: any time."""
    rules: ConfigurationRules = ConfigurationRules()
    """Settings that the recipe fixes."""
    published: bool = False
    """Whether strides and kernels are those of the papers, see `PlanningRules`."""
    asked_network: str | None = None
    """The network that the user asked for, instead of the recipe's or the planner's."""
    mixing: str | None = None
    """How the network mixes slices, a name in `networks.MIXINGS`; None: not at all."""

    @property
    def network(self) -> str | None:
        """A name in `network_rules.NETWORK_RULES`, or None for the planner's choice."""
        return self.asked_network or self.rules.network

    @property
    def largest_share(self) -> float:
        """Share of the data set that a batch may cover."""
        return largest_share(self.gpu_memory_gb)

    @property
    def update_seconds(self) -> float:
        """Seconds that an update may take on CPUs."""
        return update_seconds(self.time_budget_s)

    @property
    def most_flops(self) -> float:
        """Floating-point operations that an update may cost; a recipe's batch costs what it costs."""
        bounded = self.cpu_gflops and self.rules.batch_size is None
        return self.update_seconds * self.cpu_gflops * 1e9 if bounded else inf

    def covers_too_much(self, window: Shape) -> bool:
        """Whether with a small budget a single window has more voxels of the data set than a batch should."""
        return self.gpu_memory_gb < WIDE_FROM_GB and prod(window) > self.largest_share * self.total_voxels

    def smallest_batch(self, window: Shape) -> int:
        """The recipe's; else 2, or 1 if there is only one case, one window covers too much or is a large volume."""
        if self.rules.batch_size is not None:
            return self.rules.batch_size
        alone = self.covers_too_much(window) or prod(window) > MOST_VOXELS
        return 1 if alone else min(SMALLEST_BATCH, self.num_cases)

    def is_too_large(self, candidate: Candidate, window: Shape) -> bool:
        """Whether a candidate's window, rounded up, has more voxels than help; a recipe's may have any number."""
        representation, sizes = candidate
        is_needed = prod(sizes) <= representation.needed_voxels(self.geometry)
        return self.rules.batch_size is None and prod(window) > MOST_VOXELS and not is_needed

    @property
    def budget_bytes(self) -> int:
        """Memory that the traced step may take, in bytes."""
        return int(CARD_SHARE * self.gpu_memory_gb * GIGABYTE) - OVERHEAD_BYTES

    def has_too_many_scores(self, representation: AnyRepresentation, window: Shape, network: NetworkSpec) -> bool:
        """Whether the scores of a window take more of the memory than they should, where all exist together."""
        if representation.keeps_scores and makes_scores_in_parts(network, self.num_outputs):
            return False
        return 2 * self.num_outputs * prod(window) > SCORES_SHARE * self.gpu_memory_gb * GIGABYTE

    def largest_batch(self, window: Shape, flops_per_window: float = 0) -> int:
        """The most windows of this size and cost that a batch may have, whatever the memory.

        With twice as many updates of one window, networks learn as much as with two in a batch (stack, hippocampus:
        0.863 and 0.866, documentation/concepts/choices.md), so time decides against the smallest batch, too.
        """
        if self.rules.batch_size is not None:
            return self.rules.batch_size
        by_voxels = int(self.largest_share * self.total_voxels / prod(window))
        by_time = max(1.0, self.most_flops / max(1.0, flops_per_window))
        return int(min(max(self.smallest_batch(window), min(by_voxels, LARGEST_BATCH)), by_time))


def makes_scores_in_parts(network: NetworkSpec, num_outputs: int) -> bool:
    """Whether prediction with a network makes the scores of a window a few planes at a time."""
    if isinstance(network, VNetSpec):
        return network.named_score_layer(num_outputs) is not None
    return hasattr(network, "score_layer")


class Fit(Record):
    """A training step that was traced."""

    representation: AnyRepresentation
    window: Shape
    network: NetworkSpec
    batch_size: int
    memory: MemoryUse
    position: int = 0
    """Number of better candidates that were rejected."""
    num_too_large: int = 0
    """Number of these that have more voxels than help."""
    num_too_slow: int = 0
    """Number of these that would fit, but whose updates would take too long."""
    num_uncountable: int = 0
    """Number of these that have tensors with more values than kernels can count."""

    @property
    def total_bytes(self) -> int:
        """Memory with the part that tracing does not see."""
        return self.memory.total + OVERHEAD_BYTES

    @property
    def num_without_room(self) -> int:
        """Number of better candidates that do not fit into the memory."""
        return max(0, self.position - self.num_too_large - self.num_too_slow - self.num_uncountable)

    @property
    def flops_per_window(self) -> float:
        """Floating-point operations of an update, per window of the batch."""
        return self.memory.flops / self.batch_size

    @property
    def countable_batch(self) -> int:
        """The most such windows whose tensors kernels can count, or as many as were traced."""
        return max(self.batch_size, MOST_NUMBERS * self.batch_size // max(1, self.memory.largest_tensor))

    @property
    def is_countable(self) -> bool:
        """Whether kernels can count its tensors; the last candidate is taken even if not."""
        return self.memory.largest_tensor <= MOST_NUMBERS

    def fits(self, limits: Limits) -> bool:
        """Whether the step fits into the memory and into what kernels can count."""
        return self.is_countable and self.memory.total <= limits.budget_bytes


def check_memory(gpu_memory_gb: float) -> None:
    """Check that the memory is larger than what is kept free, before any work is done.

    Raises:
        InputError: If not.
    """
    if CARD_SHARE * gpu_memory_gb * GIGABYTE <= OVERHEAD_BYTES:
        raise InputError(
            f"{gpu_memory_gb:g} GB of GPU memory are not enough: {OVERHEAD_BYTES / GIGABYTE:g} GB are kept for CUDA "
            "itself; plan with a larger --gpu-memory-gb"
        )


def search(candidates: Iterable[Candidate], limits: Limits) -> Fit:
    """Try the candidates from the best on, take the first that fits, and enlarge its batch.

    Raises:
        InputError: If not even the cheapest candidate fits; names the memory that is enough.
    """
    activations: dict[NetworkSpec, float] = {}
    largest: dict[NetworkSpec, float] = {}
    flops: dict[NetworkSpec, float] = {}
    last_rate, num_too_large, num_too_slow, num_uncountable = (0.0, 0.0), 0, 0, 0
    for position, (fit, is_too_large) in enumerate(with_networks(candidates, limits)):
        representation, window, network = fit
        if is_too_large:
            num_too_large += 1
            continue
        voxels = prod(window) * representation.cost_factor
        rate = flops.get(network, last_rate[1])
        # Where time will allow one window only, that one is traced, and not two of them before.
        batch_size = min(limits.smallest_batch(window), limits.largest_batch(window, rate * voxels))
        cost = batch_size * voxels
        slack = SAME_NETWORK_SLACK if network in activations else OTHER_NETWORK_SLACK
        if activations.get(network, last_rate[0]) * cost > slack * limits.budget_bytes:
            continue
        numbers = largest.get(network, 0) * batch_size * prod(window)
        if numbers > SAME_NETWORK_SLACK * MOST_NUMBERS:
            num_uncountable += 1
            continue
        if limits.has_too_many_scores(*fit):
            continue
        if rate * voxels > slack * limits.most_flops:
            num_too_slow += 1
            continue
        step = _trace(fit, batch_size, limits, position)
        activations[network], flops[network] = last_rate = step.memory.activations / cost, step.memory.flops / cost
        largest[network] = step.memory.largest_tensor / (batch_size * prod(window))
        if step.fits(limits) and step.flops_per_window <= limits.most_flops:
            break
        num_too_slow += step.fits(limits)
        num_uncountable += not step.is_countable
    else:
        # There is at least one candidate, and the last is the cheapest.
        step = _trace((representation, window, network), batch_size, limits, position)
        num_too_slow -= step.fits(limits)  # it was counted, and is taken all the same
        num_uncountable -= not step.is_countable
    if step.memory.total <= limits.budget_bytes:
        counts = {"num_too_large": num_too_large, "num_too_slow": num_too_slow, "num_uncountable": num_uncountable}
        return _grow(step, limits).model_copy(update={name: max(0, number) for name, number in counts.items()})
    needed = step.total_bytes / GIGABYTE / CARD_SHARE
    raise InputError(
        f"configuration {limits.configuration}: {limits.gpu_memory_gb:g} GB of GPU memory are not enough; the smallest "
        f"window {'x'.join(map(str, window))} with a batch of {step.batch_size} needs {needed:.2f} GB; "
        f"plan with --gpu-memory-gb {needed + 0.05:.1f} or more, or leave this configuration out with -c"
    )


def with_networks(
    candidates: Iterable[Candidate], limits: Limits
) -> Iterator[tuple[tuple[AnyRepresentation, Shape, NetworkSpec], bool]]:
    """Candidates with their network, windows rounded up to multiples of its divisors, without duplicates.

    Returns:
        Each of them, and whether it has more voxels than help.
    """
    seen = set()
    settings, spacing_mm = limits.rules.settings, limits.geometry.spacing_mm
    for candidate, sizes in candidates:
        representation = candidate.with_settings(settings, sizes)
        axes = representation.network_axes
        topology = (
            published_topology(len(axes))
            if limits.published
            else choose_topology([sizes[axis] for axis in axes], [spacing_mm[axis] for axis in axes])
        )
        network = choose_network(
            limits.network,
            topology,
            representation,
            limits.gpu_memory_gb,
            has_regions=limits.geometry.has_regions,
        )
        if limits.mixing is not None:
            network = with_mixing(network, limits.mixing)
        window = round_up(sizes, axes, network.divisor)
        is_too_large = limits.is_too_large((representation, sizes), window)
        # Costs time and no accuracy, a smaller window the other way round.
        for each in (network, with_checkpointing(network)):
            if each is None:
                continue
            item = (representation.refit(window).with_settings(settings, window), window, each), is_too_large
            if item not in seen:
                seen.add(item)
                yield item


def without_mixing(fit: Fit, limits: Limits) -> MemoryUse:
    """What the step would take if the network did not mix slices."""
    network = fit.network.model_copy(update={"mixing": None})
    return _trace((fit.representation, fit.window, network), fit.batch_size, limits, fit.position).memory


def _trace(item: tuple[AnyRepresentation, Shape, NetworkSpec], batch_size: int, limits: Limits, position: int) -> Fit:
    representation, window, network = item
    memory = training_memory(
        network,
        representation,
        window,
        batch_size,
        num_channels=limits.num_channels,
        num_outputs=limits.num_outputs,
    )
    return Fit(
        representation=representation,
        window=window,
        network=network,
        batch_size=batch_size,
        memory=memory,
        position=position,
    )


def _grow(step: Fit, limits: Limits) -> Fit:
    """The largest batch that fits into the memory and into what kernels can count.

    Predicted in proportion to one trace and, where that allows a larger one, traced until none can be larger. A step's
    memory is the highest of many straight lines over the batch size, one for each of its moments. So beyond two sizes
    it lies above the line through them, which says what is too large, and between them below it, which says what fits.
    """
    largest = min(limits.largest_batch(step.window, step.flops_per_window), step.countable_batch)
    if largest < step.batch_size:
        return _trace((step.representation, step.window, step.network), largest, limits, step.position)
    best, too_large = step, largest + 1
    spare = limits.budget_bytes - step.memory.total
    size = min(too_large - 1, step.batch_size + spare * step.batch_size // step.memory.activations)
    while best.batch_size < size < too_large:
        traced = _trace((step.representation, step.window, step.network), size, limits, step.position)
        more, needed = size - best.batch_size, max(1, traced.memory.total - best.memory.total)
        if traced.memory.total <= limits.budget_bytes:
            best, spare = traced, limits.budget_bytes - traced.memory.total
            too_large = min(too_large, size + spare * more // needed + 1)
            size = too_large - 1
        else:
            too_large = size
            size = best.batch_size + max(1, spare * more // needed)
    return best
