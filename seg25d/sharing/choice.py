"""Which models are meant: those that an archive is to hold, and where those are that are to predict."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from seg25d.core.errors import InputError
from seg25d.core.records import Record, read_record
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.planning.plan import PlansName
from seg25d.runs.trained import ModelChoice, choose_folds, choose_run
from seg25d.selection.best import Best
from seg25d.selection.chosen_model import ChosenModel, choose_model
from seg25d.sharing.unpack import is_archive, opened_archive


class ExportOptions(Record):
    """What to put into an archive of models."""

    configurations: tuple[str, ...] | None = None
    """None: what `best.json` chose, or else the only trained configuration."""
    plans_name: PlansName | None = None
    """Only models of these plans; None: of any, where that leaves one choice."""
    recipe: str | None = None
    """Only models of this recipe; None: of any, where that leaves one choice."""
    folds: tuple[str, ...] | None = None
    """None: all that are trained."""
    licence_file: Path | None = None
    """A text file that says what others may do with the models."""
    overwrite: bool = False


class ChosenModels(NamedTuple):
    """Runs of a data set and their folds."""

    folds: Mapping[str, Sequence[str]]
    """Per run."""
    best: bool
    """Whether they are what `best.json` chose, which goes with them then."""


def models_to_export(workspace: Workspace, dataset_name: str, options: ExportOptions) -> ChosenModels:
    """The models that are to be exported: those that are named, the best ones, or the only ones that there are.

    Raises:
        InputError: If nothing is trained under that name, there are no models of it, or the choice is not clear;
            lists the choices.
    """
    best = workspace.best(dataset_name)
    if best.exists() and (options.configurations, options.plans_name, options.recipe) == (None, None, None):
        if options.folds is not None:
            raise InputError(f"{best} says which folds are used; leave -f out, or name configurations with -c")
        members = [(workspace.run(dataset_name, each.run), each.folds) for each in read_record(best, Best).members]
        return ChosenModels({run.root.name: choose_folds(_ours(run), folds) for run, folds in members}, best=True)
    folds = {}
    for configuration in options.configurations or (None,):
        if configuration is not None:
            _ours(workspace.run(dataset_name, configuration))
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


def _ours(run: RunFolder) -> RunFolder:
    if run.imported.exists():
        raise InputError(
            f"{run.root} holds results of another program ({run.imported.name} says of which), and no models of seg25d "
            "that could be exported; choose others with -c"
        )
    return run


@contextmanager
def model_to_predict(workspace: Workspace, choice: ModelChoice, place: Path | None = None) -> Iterator[ChosenModel]:
    """The model that is to predict; one in an archive is unpacked while the block lasts.

    Args:
        workspace: Where everything is.
        choice: Which model is meant.
        place: See `opened_archive`.

    Raises:
        InputError: If nothing is trained under that name, or the choice is not clear (lists the choices); if an archive
            is not sound, or a data set, plans or a recipe are named besides.
    """
    if choice.model is None or not is_archive(choice.model):
        yield choose_model(workspace, choice)
        return
    if (choice.dataset, choice.plans_name, choice.recipe) != (None, None, None):
        raise InputError("-m names the models already; leave -d, -p and --recipe out (-c chooses one of several)")
    with opened_archive(choice.model, place) as results:
        inside = ModelChoice(configuration=choice.configuration, folds=choice.folds)
        yield choose_model(workspace.model_copy(update={"results": results}), inside)
