"""Contents of a workspace: data sets, plans, runs and their scores. Reads small files only; neither torch nor images.

Files that cannot be read are named in the result, and all else is told.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, field_validator

from seg25d.core.errors import InputError, RecordError
from seg25d.core.files import read_json
from seg25d.core.lengths import share_done
from seg25d.core.records import Record, parse_record
from seg25d.core.versions import library_versions
from seg25d.core.workspace import FoldFolder, RunFolder, Workspace
from seg25d.data.dataset import DatasetDescription, read_description, read_splits, scan_dataset
from seg25d.evaluation.tables import format_score, text_table
from seg25d.runs.imported import ImportedRun, read_imported
from seg25d.runs.progress import read_log

Value = TypeVar("Value")


class _Part(Record):
    """Part of a larger record, whose other keys are ignored."""

    model_config = ConfigDict(extra="ignore")


class ConfigurationInformation(_Part):
    """A planned configuration."""

    representation: str
    network: str
    spacing_mm: tuple[float, float, float]
    window: tuple[int, int, int]
    batch_size: int
    estimated_memory_gb: float
    num_parameters: int

    @field_validator("representation", "network", mode="before")
    @classmethod
    def _name(cls, value: Any) -> Any:
        """Take the name out of the part's settings."""
        return value.get("name") if isinstance(value, dict) else value


class PlansInformation(_Part):
    """A file of plans."""

    plans_name: str = "plans"
    recipe: str = "default"
    gpu_memory_gb: float
    configurations: dict[str, ConfigurationInformation]


class FoldInformation(Record):
    """A fold that is trained, was begun, or was imported."""

    fold: str
    """A number, or `all`."""
    state: Literal["trained", "unfinished", "imported"]
    epoch: int | None = None
    """The last one that is over, of a fold that is trained here."""
    progress: float | None = None
    """Share of an unfinished run that was over after that epoch; null if it is not known."""
    dice: float | None = None
    """Mean over labels and validation cases; null before they are scored, and while it is trained for longer."""


class _Dice(_Part):
    dice: float | None


class _Means(_Part):
    """The part of a `summary.json` that is shown."""

    foreground_mean: _Dice


class RunInformation(Record):
    """A folder under the results of a data set."""

    name: str
    folds: tuple[FoldInformation, ...]
    dice: float | None = None
    """Mean Dice of the whole cross-validation; null before all folds are trained, and while one is for longer."""
    imported: ImportedRun | None = None


class BestInformation(_Part):
    """Choice of `find_best_configuration`."""

    name: str
    """A run, or runs with ` + ` between them."""
    dice: float | None
    """In cross-validation."""


class TrainingTime(Record):
    """How long a configuration trains on this machine where nothing of it is trained yet, as timed updates say."""

    seconds_per_update: float
    """Of its own network; a fusion of views has others as well."""
    updates_per_fold: int
    """In all models."""
    num_models: int
    """Models that the first fold takes: one, or those of the views and the one that fuses them."""
    seconds_per_fold: float
    seconds_all_folds: float
    fold: str = "0"
    """The fold that `seconds_per_fold` is of: `all` where there are too few folds for the first one."""
    updates_in_15min: int
    """Of its own network."""


class DatasetInformation(Record):
    """A data set; what is not known is null."""

    name: str
    raw: bool
    preprocessed: bool
    results: bool
    num_cases: int | None
    channels: tuple[str, ...] | None
    labels: dict[str, int | tuple[int, ...]] | None
    plans: dict[str, PlansInformation]
    """By the name of the file."""
    runs: tuple[RunInformation, ...]
    best: BestInformation | None
    trainings: dict[str, dict[str, TrainingTime]] = Field(default_factory=dict)
    """By the name of the file of plans and the configuration; only where one data set is asked for."""


class Information(Record):
    """Content of `seg25d info --json`."""

    schema_version: Literal[1] = 1
    folders: dict[str, str]
    """`raw`, `preprocessed` and `results`."""
    datasets: tuple[DatasetInformation, ...]
    problems: tuple[str, ...]
    """A sentence per file that cannot be read."""
    versions: dict[str, str] = Field(default_factory=library_versions)
    device: str | None = None
    """Device that would be used."""


def gather_information(workspace: Workspace, identifier: str | None = None) -> Information:
    """Look what there is.

    Args:
        workspace: Where to look.
        identifier: A data set; None: all of them.

    Returns:
        All but the device, see `describe_device`.

    Raises:
        InputError: If there is no such data set.
    """
    names = workspace.dataset_names() if identifier is None else [workspace.dataset_name(identifier)]
    reader = _Reader()
    datasets = tuple(_dataset(workspace, name, reader) for name in names)
    folders = {key: str(path) for key, path in workspace if isinstance(path, Path)}
    return Information(folders=folders, datasets=datasets, problems=tuple(dict.fromkeys(reader.problems)))


def describe_device() -> str:
    """Name the device that is used by default. Loads torch."""
    try:
        from seg25d.core.device import choose_execution, device_name  # noqa: PLC0415 - takes seconds

        return device_name(choose_execution(None).device)
    except (ImportError, OSError, RuntimeError, InputError) as error:
        return f"unknown ({str(error).splitlines()[0]})"


class _Reader:
    """Reads what can be read, and remembers what cannot."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def read(self, path: Path, read: Callable[[Path], Value]) -> Value | None:
        """Read a file with a function; None if it is missing or damaged."""
        if not path.exists():
            return None
        try:
            return read(path)
        except (InputError, OSError) as error:
            self.problems.append(str(error))
            return None

    def read_plans(self, path: Path) -> PlansInformation | None:
        """The plans in a file, without configurations that cannot be told; None if it holds something else."""
        value = read_json(path)
        if not isinstance(value, dict) or not isinstance(value.get("configurations"), dict):
            return None
        plans = parse_record({**value, "configurations": {}}, PlansInformation, str(path))
        configurations = {}
        for name, each in value["configurations"].items():
            try:
                place = f"{path}: configurations.{name}"
                configurations[name] = parse_record(each, ConfigurationInformation, place)
            except RecordError as error:
                self.problems.append(str(error))
        return plans.model_copy(update={"configurations": configurations})


def _dataset(workspace: Workspace, name: str, reader: _Reader) -> DatasetInformation:
    raw, folder = workspace.raw_dataset(name), workspace.preprocessed_dataset(name)
    results = workspace.results / name
    description = reader.read(raw / "dataset.json", read_description)
    description = description or reader.read(folder.dataset, read_description)
    return DatasetInformation(
        name=name,
        raw=raw.is_dir(),
        preprocessed=folder.root.is_dir(),
        results=results.is_dir(),
        num_cases=_count_cases(raw, folder.splits, description, reader),
        channels=description.channel_names if description else None,
        labels=description.labels.names if description else None,
        plans=_plans(folder.root, reader),
        runs=_runs(results, reader),
        best=reader.read(workspace.best(name), lambda path: parse_record(read_json(path), BestInformation, str(path))),
    )


def _count_cases(raw: Path, splits: Path, description: DatasetDescription | None, reader: _Reader) -> int | None:
    """Training cases: of the raw data, or else of the folds."""
    if raw.is_dir() and not (raw / "dataset.json").exists():
        reader.problems.append(f"{raw} has no dataset.json: it is no data set yet")
    elif raw.is_dir() and description is not None:
        dataset, problems = scan_dataset(raw)
        if problems:
            reader.problems.append(
                f"{raw} has {len(problems)} problem(s); `seg25d plan_and_preprocess --verify-only` lists them"
            )
        return len(dataset.cases) if dataset else None
    folds = reader.read(splits, read_splits)
    return len({case for fold in folds for case in fold.train + fold.val}) if folds else None


def _plans(folder: Path, reader: _Reader) -> dict[str, PlansInformation]:
    """All plans in a preprocessed data set, by the names of their files."""
    found = {path.name: reader.read(path, reader.read_plans) for path in sorted(folder.glob("[!.]*.json"))}
    return {name: plans for name, plans in found.items() if plans}


def _runs(results: Path, reader: _Reader) -> tuple[RunInformation, ...]:
    folders = sorted(path for path in results.iterdir() if path.is_dir()) if results.is_dir() else []
    runs = (_run(RunFolder(root=path), reader) for path in folders)
    return tuple(run for run in runs if run.folds)


def _run(run: RunFolder, reader: _Reader) -> RunInformation:
    imported = reader.read(run.imported, lambda _: read_imported(run))
    if imported:
        folds = [FoldInformation(fold=str(fold), state="imported") for fold in imported.folds]
    else:
        names = sorted(path.name.removeprefix("fold_") for path in run.root.glob("fold_*"))
        folds = [fold for name in names if (fold := _fold(name, run.fold(name), reader))]
    dice = _dice(run.crossval, reader)
    if any(fold.state == "unfinished" for fold in folds if fold.fold != "all"):
        dice = None
    return RunInformation(name=run.root.name, folds=tuple(folds), dice=dice, imported=imported)


def _fold(name: str, folder: FoldFolder, reader: _Reader) -> FoldInformation | None:
    """Describe a fold that has begun."""
    has_model = folder.model_final.exists()
    if not has_model and not folder.checkpoint.exists():
        return None
    log = reader.read(folder.log, read_log) or []
    last = log[-1].get("epoch") if log else None
    epoch = last if isinstance(last, int) else None
    progress = share_done(reader.read(folder.config, read_json), log)
    if has_model and (progress is None or progress == 1):
        dice = _dice(folder.validation / "summary.json", reader)
        return FoldInformation(fold=name, state="trained", epoch=epoch, dice=dice)
    return FoldInformation(fold=name, state="unfinished", epoch=epoch, progress=progress)


def _dice(summary: Path, reader: _Reader) -> float | None:
    read = reader.read(summary, lambda path: parse_record(read_json(path), _Means, str(path)))
    return read.foreground_mean.dice if read else None


def to_text(information: Information) -> str:
    """All but the device, for people."""
    parts = [_dataset_text(dataset) for dataset in information.datasets] or ["no data sets"]
    if information.problems:
        parts.append("cannot be used:\n" + "\n".join(f"  {problem}" for problem in information.problems))
    width = 2 + max(len(key) for key in (*information.folders, "versions"))
    rows = [f"{key + ':':{width}}{path}" for key, path in information.folders.items()]
    rows.append(
        f"{'versions:':{width}}" + ", ".join(f"{name} {number}" for name, number in information.versions.items())
    )
    return "\n\n".join([*parts, "\n".join(rows)])


def _dataset_text(dataset: DatasetInformation) -> str:
    present = [key for key in ("raw", "preprocessed", "results") if getattr(dataset, key)]
    cases = "unknown number of cases" if dataset.num_cases is None else f"{dataset.num_cases} cases"
    blocks = [f"{dataset.name}: {cases}; {', '.join(present)}"]
    if dataset.channels:
        blocks.append(_indented(f"channels: {', '.join(dataset.channels)}"))
    if dataset.labels:
        labels = ((name, value if isinstance(value, int) else list(value)) for name, value in dataset.labels.items())
        blocks.append(_indented("labels: " + ", ".join(f"{name} {value}" for name, value in labels)))
    blocks += [_indented(_plans_text(file, plans)) for file, plans in dataset.plans.items()]
    blocks += [_indented(_runs_text(dataset.runs))] if dataset.runs else []
    blocks += [_indented(f"best: {dataset.best.name}, Dice {format_score(dataset.best.dice)}")] if dataset.best else []
    return "\n".join(blocks)


def _plans_text(file: str, plans: PlansInformation) -> str:
    header = ["configuration", "representation", "network", "spacing mm", "window", "batch", "GB", "parameters"]
    rows = [
        [
            *(name, plan.representation, plan.network, " x ".join(f"{size:.3g}" for size in plan.spacing_mm)),
            *("x".join(map(str, plan.window)), str(plan.batch_size), f"{plan.estimated_memory_gb:.2f}"),
            f"{plan.num_parameters / 1e6:.2f} M",
        ]
        for name, plan in plans.configurations.items()
    ]
    title = f"{file}: recipe {plans.recipe}, for {plans.gpu_memory_gb:g} GB"
    return f"{title}\n{_indented(text_table(header, rows))}"


def _runs_text(runs: Sequence[RunInformation]) -> str:
    rows = []
    for run in runs:
        rows += [
            [
                *(run.name, fold.fold, fold.state, "-" if fold.epoch is None else str(fold.epoch)),
                *("-" if fold.progress is None else f"{fold.progress:.0%}", format_score(fold.dice)),
            ]
            for fold in run.folds
        ]
        rows += [[run.name, "cv", "trained", "-", "-", format_score(run.dice)]] if run.dice is not None else []
    return text_table(["run", "fold", "state", "epoch", "progress", "Dice"], rows)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
