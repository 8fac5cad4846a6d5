"""Choice of the models to export, and of the models to predict with, also from an archive."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

from seg25d.core.damage import damage_told
from seg25d.core.errors import InputError
from seg25d.core.records import Record, read_record
from seg25d.core.workspace import MODEL_SUFFIX, RunFolder, Workspace
from seg25d.planning.model_formats import ModelFormat, StoredWeights
from seg25d.planning.plan import PlansName
from seg25d.planning.portable_model import GRAPH_SUFFIX
from seg25d.runs.trained import ModelChoice, choose_folds, choose_run
from seg25d.selection.best import Best
from seg25d.selection.chosen_model import ChosenModel, choose_model
from seg25d.sharing.unpack import is_archive, opened_archive


class ExportOptions(Record):
    """Options of exporting models to an archive."""

    configurations: tuple[str, ...] | None = None
    """Configurations to export; None: those of `best.json`, or else the only trained configuration."""
    plans_name: PlansName | None = None
    """Only models of these plans; None: of any, if that leaves one choice."""
    recipe: str | None = None
    """Only models of this recipe; None: of any, if that leaves one choice."""
    folds: tuple[str, ...] | None = None
    """Folds to export; None: all that are trained."""
    format: ModelFormat = "safetensors"
    """Kind of the models in the archive: our own, which torch computes, or graphs for use without torch."""
    weights: StoredWeights | None = None
    """How graphs store their weights; None: as float32."""
    licence_file: Path | None = None
    """A text file with the licence of the models."""
    overwrite: bool = False


class ChosenModels(NamedTuple):
    """Chosen runs of a data set and their folds."""

    folds: Mapping[str, Sequence[str]]
    """Folds of each run."""
    best: bool
    """Whether they are the choice of `best.json`, which is then exported too."""


def models_to_export(workspace: Workspace, dataset_name: str, options: ExportOptions) -> ChosenModels:
    """Find the models to export: those that are named, else the best ones, else the only ones that exist.

    Raises:
        InputError: If nothing is trained under that name, there are no models of it, or the choice is ambiguous;
            lists the choices.
    """
    best = workspace.best(dataset_name)
    if best.exists() and (options.configurations, options.plans_name, options.recipe) == (None, None, None):
        if options.folds is not None:
            raise InputError(f"{best} determines the folds; leave -f out, or name configurations with -c")
        members = [(workspace.run(dataset_name, each.run), each.folds) for each in read_record(best, Best).members]
        chosen = {run.root.name: choose_folds(_refuse_imported(run), folds) for run, folds in members}
        return ChosenModels(chosen, best=True)
    folds = {}
    for configuration in options.configurations or (None,):
        if configuration is not None:
            _refuse_imported(workspace.run(dataset_name, configuration))
        run = choose_run(
            workspace,
            ModelChoice(
                dataset=dataset_name,
                configuration=configuration,
                plans_name=options.plans_name,
                recipe=options.recipe,
            ),
        )
        folds[run.root.name] = choose_folds(run, options.folds)
    return ChosenModels(folds, best=False)


def _refuse_imported(run: RunFolder) -> RunFolder:
    if run.imported.exists():
        raise InputError(
            f"{run.root} holds results of another program (named in {run.imported.name}), and no models of seg25d "
            "that could be exported; choose others with -c"
        )
    return run


@contextmanager
def model_to_predict(workspace: Workspace, choice: ModelChoice, place: Path | None = None) -> Iterator[ChosenModel]:
    """Find the model for prediction; a model in an archive is unpacked for the duration of the block.

    Args:
        workspace: The workspace.
        choice: The options that choose the model.
        place: See `opened_archive`.

    Raises:
        InputError: If nothing is trained under that name, or the choice is ambiguous (lists the choices); if an archive
            is invalid, or data set, plans or recipe are given together with it.
    """
    if choice.model is None or not is_archive(choice.model):
        yield choose_model(workspace, choice)
        return
    if (choice.dataset, choice.plans_name, choice.recipe) != (None, None, None):
        raise InputError("-m already names the models; leave -d, -p and --recipe out (-c chooses one of several)")
    with opened_archive(choice.model, place) as results:
        inside = ModelChoice(configuration=choice.configuration, folds=choice.folds, checkpoint=choice.checkpoint)
        suffix = GRAPH_SUFFIX if is_portable(choice.model) else MODEL_SUFFIX
        yield choose_model(workspace.model_copy(update={"results": results, "model_suffix": suffix}), inside)


def is_portable(path: Path | None) -> bool:
    """Whether a file is an archive of graphs, by the names in it, so that torch is not needed to predict with it.

    What is wrong with an archive is told when it is opened.
    """
    if path is None or not is_archive(path):
        return False
    with suppress(InputError, OSError), damage_told(InputError), ZipFile(path) as file:
        return any(name.endswith(GRAPH_SUFFIX) for name in file.namelist())
    return path.name.endswith(f"{GRAPH_SUFFIX}.zip")
