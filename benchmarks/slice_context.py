"""Whether a trained model uses the slices beside the one that it segments: what shuffling and blanking them costs.

    python benchmarks/slice_context.py 4 si -f 0 --workspace WORKSPACE

The slices of every window that the network sees are shuffled, and its scores brought back into order; what a window is
filled up with beyond the ends of a volume stays there. Then each slice is segmented while its neighbours at a distance
of 1, 2, 3 slices, at all larger distances, or all of them are blank, as plans without mixing fill windows up. The table
has the mean Dice that is lost over validation cases of the fold; a model that does not look at neighbours loses
nothing. Shuffling leaves a window what it has, so that its loss is that of order alone; blank slices also change the
mean and deviation by which an instance norm divides a super image or a volume, so that a loss by many of them need not
be one of context.

Only preprocessed arrays and the model are read, no images (SimpleITK is not needed). Blank neighbours take as many
passes of the network as a window has slices, for each distance: with `--distances 0` slices are only shuffled, which
takes as long as a prediction. `--cases` says how many cases are predicted; all of them where a figure is to be quoted.
The result is written into the folder of the fold, `slice_context.json`, after each change, and `seg25d report` shows
it. The same command goes on from there, also with other distances; nothing is measured twice unless the model is newer,
and other cases or another seed want the file removed. WORKSPACE may be the folder of a training of a table,
`benchmarks/TABLE/LENGTH_RECIPE/ROW/seed_N_DIGEST` in its workspace: a loss of one training says little, so take all
seeds.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

import torch
from result_tables import markdown_table
from torch import Tensor, nn

from seg25d.cli.common import configure_logging
from seg25d.core.device import Execution, choose_execution
from seg25d.core.errors import InputError
from seg25d.core.grids import repeated_planes, slicing_axis
from seg25d.core.names import is_number
from seg25d.core.progress import track
from seg25d.core.records import write_record
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import read_splits
from seg25d.evaluation.metrics import confusion, overlap_metrics
from seg25d.evaluation.slice_context import ChangedSlices, SliceChange, SliceContext, read_slice_context
from seg25d.inference.predictor import Predictor, PredictorOptions
from seg25d.planning.model_file import load_header
from seg25d.planning.plan import ConfigurationPlan
from seg25d.preprocessing.store import Store
from seg25d.runs.trained import ModelChoice, choose_folds, choose_run


class ShuffledSlices(nn.Module):
    """A model whose windows have their slices in random order, and whose scores are brought back.

    Slices that a window is filled up with stay outside of the volume: else a short one would lose more by slices that
    are moved apart than by their order. They are known by what they show: one value per channel, or with `repeated`
    what the slice before them shows. Where a volume ends in such slices they stay at its end, too.

    Args:
        model: From volumes (B, C, D, H, W) to scores (B, K, D, H, W).
        axis: Along which slices are stacked.
        seed: Of the orders, which differ from window to window.
        repeated: Whether windows are filled up with the end slices of volumes: then with those of the new order.
    """

    def __init__(self, model: nn.Module, axis: int, seed: int, *, repeated: bool = False) -> None:
        super().__init__()
        self.model = model
        self.dim = 2 + axis
        self.generator = torch.Generator().manual_seed(seed)
        self.repeated = repeated

    def forward(self, volume: Tensor) -> Tensor:
        """Scores of volumes."""
        insides = [self._inside(window.movedim(self.dim - 1, 0)) for window in volume]
        orders = [self._order(volume.shape[self.dim], inside) for inside in insides]
        shuffled = [
            window.index_select(self.dim - 1, order.to(volume.device))
            for window, order in zip(volume, orders, strict=True)
        ]
        scores: Tensor = self.model(torch.stack(shuffled)).clone()
        for own, order, inside in zip(scores, orders, insides, strict=True):
            slices = own.movedim(self.dim - 1, 0)
            slices[order[inside].to(volume.device)] = slices[inside].clone()
        return scores

    def _inside(self, slices: Tensor) -> slice:
        """The slices (D, C, h, w) that are the volume's; none where all are alike."""
        like = slices[:, :, :1, :1]
        if self.repeated:
            same = (slices[1:] == slices[:-1]).flatten(1).all(1).tolist()
            first, last = (_number_of(each) for each in (same, same[::-1]))
        else:
            blank = (slices == like).flatten(1).all(1).tolist()
            first, last = (_number_of(each) for each in (blank, blank[::-1]))
        return slice(first, max(first, len(slices) - last))

    def _order(self, depth: int, inside: slice) -> Tensor:
        """For each place of a window the slice that comes there."""
        order = torch.arange(depth)
        if inside.stop > inside.start:
            order[inside] = inside.start + torch.randperm(inside.stop - inside.start, generator=self.generator)
            if self.repeated:
                order = order[repeated_planes(depth, inside.start, inside.stop)]
        return order


def _number_of(known: Sequence[bool]) -> int:
    """How many are true before the first that is not."""
    return next((number for number, each in enumerate(known) if not each), len(known))


class BlankNeighbours(nn.Module):
    """A model that sees each slice with some of its neighbours blank: a pass for each slice of a window.

    Args:
        model: From volumes (B, C, D, H, W) to scores (B, K, D, H, W).
        axis: Along which slices are stacked.
        change: Which neighbours.
        lowest: Whether they get the lowest value of each channel instead of 0, as windows of stacks are filled up.
    """

    def __init__(self, model: nn.Module, axis: int, change: SliceChange, *, lowest: bool) -> None:
        super().__init__()
        self.model = model
        self.dim = 2 + axis
        self.nearest = change.nearest
        self.farthest = math.inf if change.farthest is None else change.farthest
        self.lowest = lowest

    def forward(self, volume: Tensor) -> Tensor:
        """Scores of volumes."""
        scores: Tensor = self.model(volume).clone()
        blank = volume.amin((2, 3, 4), keepdim=True) if self.lowest else volume.new_zeros(())
        places = torch.arange(volume.shape[self.dim], device=volume.device)
        along = [1] * volume.dim()
        along[self.dim] = -1
        for index in range(len(places)):
            distances = (places - index).abs()
            hidden = (distances >= self.nearest) & (distances <= self.farthest)
            if hidden.any():
                changed = self.model(torch.where(hidden.reshape(along), blank, volume))
                scores.select(self.dim, index).copy_(changed.select(self.dim, index))
        return scores


def slice_axis(plan: ConfigurationPlan) -> int:
    """The axis that a model's slices are stacked along; of volumes, that of `2d`."""
    representation = plan.representation
    named: int | None = getattr(representation, "axis", None)
    own = (representation.stacking_axis, representation.free_axis, named)
    return next((axis for axis in own if axis is not None), slicing_axis(plan.spacing_mm))


def changes_of(distances: int) -> list[SliceChange]:
    """What is done to slices: shuffled, blank at each distance, at all larger ones, and at all.

    Args:
        distances: Of neighbours that are blank by themselves, from 1 on; 0: slices are only shuffled.
    """
    if distances == 0:
        return [SliceChange(kind="shuffled")]
    each = [SliceChange(kind="blanked", nearest=distance, farthest=distance) for distance in range(1, distances + 1)]
    beyond = SliceChange(kind="blanked", nearest=distances + 1)
    return [SliceChange(kind="shuffled"), *each, beyond, SliceChange(kind="blanked")]


def changed(model: nn.Module, change: SliceChange, plan: ConfigurationPlan, seed: int) -> nn.Module:
    """The model, seeing changed slices."""
    axis = slice_axis(plan)
    if change.kind == "shuffled":
        return ShuffledSlices(model, axis, seed, repeated=plan.repeated_axis is not None)
    return BlankNeighbours(model, axis, change, lowest=plan.representation.padded_with_lowest)


def dice_of(predictor: Predictor, store: Store, case: str) -> float | None:
    """The Dice of a case on the grid of its file, a mean over its classes; None if it has none."""
    indices = predictor.predict_preprocessed(store.open_image(case), store.record(case).grid)
    counts = confusion(store.read_reference(case), indices, predictor.labels.foreground)
    known = [dice for each in counts.values() if (dice := overlap_metrics(each).dice) is not None]
    return fmean(known) if known else None


def measure_context(
    predictor: Predictor,
    store: Store,
    cases: Sequence[str],
    changes: Sequence[SliceChange],
    seed: int,
    known: SliceContext | None = None,
    keep: Callable[[SliceContext], object] = lambda _: None,
) -> SliceContext:
    """Predict cases with their slices as they are and with every change.

    Args:
        predictor: Of one model.
        store: Preprocessed arrays.
        cases: Names of cases.
        changes: Of the slices.
        seed: Of the shuffling.
        known: What was measured of this model before, with the same cases and seed: it is not measured again.
        keep: Called with what there is after each change.
    """
    (model,), header = predictor.models, predictor.header

    def dice(change: SliceChange | None) -> tuple[float | None, ...]:
        own = model if change is None else changed(model, change, header.plan, seed)
        changed_predictor = Predictor([own], header, predictor.execution, predictor.options)
        title = "slices as they are" if change is None else change.title
        return tuple(dice_of(changed_predictor, store, case) for case in track(cases, len(cases), title))

    axis = slice_axis(header.plan)
    found = known
    if found is None:
        slice_mm = header.plan.spacing_mm[axis]
        found = SliceContext(axis=axis, slice_mm=slice_mm, seed=seed, cases=tuple(cases), dice=dice(None), changes=())
        keep(found)
    for change in changes:
        if change not in [each.change for each in found.changes]:
            measured = ChangedSlices(change=change, dice=dice(change))
            found = found.model_copy(update={"changes": (*found.changes, measured)})
            keep(found)
    return found


def load_one(path: Path, execution: Execution) -> Predictor:
    """Load a model that by itself makes scores of windows; it does not mirror.

    Raises:
        InputError: If it fuses views, or needs a coarse model.
    """
    header = load_header(path)
    if header.plan.representation.fuses_views or header.fine is not None:
        raise InputError(
            f"{header.configuration}: expected a model of one network that sees windows of a volume, got one that "
            f"needs others; measure these, such as {'axial' if header.fine is None else 'its coarse model'}"
        )
    return Predictor.load([path], execution, PredictorOptions(mirroring=False))


def some(cases: Sequence[str], number: int) -> list[str]:
    """So many of the cases, evenly spread over their sorted names; all if there are no more."""
    ordered, count = sorted(cases), min(number, len(cases))
    return [ordered[index * len(ordered) // count] for index in range(count)]


def run(options: argparse.Namespace) -> SliceContext:
    """Measure what the options name, and write the result into the folder of the fold.

    Raises:
        InputError: If there is no such model, it has no validation cases, or an earlier result cannot be read.
    """
    workspace = Workspace.resolve(options.workspace)
    name = workspace.dataset_name(options.dataset)
    folder = choose_run(workspace, ModelChoice(dataset=name, configuration=options.configuration))
    (fold,) = choose_folds(folder, [options.fold])
    if not is_number(fold):
        raise InputError(f"expected a numbered fold, whose validation cases its model has not seen, got {fold!r}")
    place = folder.fold(fold)
    predictor = load_one(place.model_final, choose_execution(options.device))
    store = Store(workspace.preprocessed_dataset(name).store(predictor.header.plan.store))
    cases = some(read_splits(folder.splits)[int(fold)].val, options.cases)
    known = read_slice_context(place.slice_context, place.model_final)
    if known is not None and (known.seed, list(known.cases)) != (options.seed, cases):
        raise InputError(
            f"{place.slice_context} has {len(known.cases)} cases with seed {known.seed}, expected the same "
            f"{len(cases)} with seed {options.seed}; remove it to measure anew, or give its --cases and --seed"
        )
    keep = partial(write_record, place.slice_context)
    return measure_context(predictor, store, cases, changes_of(options.distances), options.seed, known, keep)


def table_of(found: SliceContext) -> str:
    """The result in Markdown."""

    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = [["slices as they are", text(found.mean_dice), ""]]
    for each in found.changes:
        known = [value for value in each.dice if value is not None]
        pairs = zip(found.dice, each.dice, strict=True)
        lost = [before - after for before, after in pairs if before is not None and after is not None]
        spread = f" ± {stdev(lost):.3f}" if len(lost) > 1 else ""
        rows.append([each.change.title, text(fmean(known) if known else None), f"{text(found.loss(each))}{spread}"])
    return markdown_table([f"{len(found.cases)} cases, one training", "Dice", "loss ± deviation over cases"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one model and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("dataset", help="1, 001 or Dataset001_Name")
    parser.add_argument("configuration", help="such as si, or the name of a run")
    parser.add_argument("-f", "--fold", default="0")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--cases", type=int, default=10, help="validation cases, evenly chosen (default: 10)")
    parser.add_argument(
        "--distances", type=int, default=3, help="neighbours that are blank by themselves (default: 3; 0: only shuffle)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device")
    options = parser.parse_args(arguments)
    if options.cases < 1 or options.distances < 0:
        parser.error(f"expected --cases from 1 and --distances from 0 on, got {options.cases} and {options.distances}")
    configure_logging(quiet=False, debug=False)
    try:
        found = run(options)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    print(table_of(found))


if __name__ == "__main__":
    main()
