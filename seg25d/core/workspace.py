"""Locations of all files of a project: raw data, preprocessed arrays, results."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from seg25d.core.errors import InputError
from seg25d.core.names import check_case_name, is_number
from seg25d.core.records import Record

DATASET_NAME = re.compile(r"Dataset(\d{3})_(.+)")
VARIABLES = (
    "SEG25D_WORKSPACE",
    *(f"{program}_{kind}" for program in ("seg25d", "nnUNet") for kind in ("raw", "preprocessed", "results")),
)
"""The variables that say where a workspace is."""
MODEL_SUFFIX = ".safetensors"
"""Ending of models that torch computes."""


class FoldFolder(Record):
    """The files of one trained fold."""

    root: Path
    model_suffix: str = MODEL_SUFFIX
    """Ending of the files of models."""

    @property
    def name(self) -> str:
        """For messages: run and fold, such as `si fold_0`."""
        return f"{self.root.parent.name} {self.root.name}"

    @property
    def config(self) -> Path:
        """The settings of the run."""
        return self.root / "config.json"

    @property
    def log(self) -> Path:
        """A line per epoch."""
        return self.root / "log.jsonl"

    @property
    def progress(self) -> Path:
        """Curves of losses, Dice and learning rate."""
        return self.root / "progress.png"

    @property
    def tensorboard(self) -> Path:
        """The log as curves for TensorBoard, if they are asked for."""
        return self.root / "tensorboard"

    @property
    def wandb(self) -> Path:
        """The log as curves for Weights & Biases, if they are asked for."""
        return self.root / "wandb"

    @property
    def logger_runs(self) -> Path:
        """Under which names loggers know the run."""
        return self.root / "loggers.json"

    @property
    def checkpoint(self) -> Path:
        """The state from which the run goes on."""
        return self.root / "checkpoint_last.pt"

    def reconstruction(self, percent: int) -> Path:
        """A picture of a restored window, when so much of the pretraining was done."""
        return self.root / f"reconstruction_{percent:03d}.png"

    @property
    def transfer(self) -> Path:
        """Names of the weights that the run took from a pretrained model."""
        return self.root / "transfer.json"

    @property
    def model_best(self) -> Path:
        """The model with the best validation windows."""
        return self.root / f"model_best{self.model_suffix}"

    @property
    def model_final(self) -> Path:
        """The model at the end."""
        return self.root / f"model_final{self.model_suffix}"

    @property
    def validation(self) -> Path:
        """Predictions of the validation cases and their scores."""
        return self.root / "validation"

    @property
    def validation_best(self) -> Path:
        """The same of the model with the best validation windows, where that was asked for."""
        return self.root / "validation_best"

    @property
    def validation_quick(self) -> Path:
        """The same of the final model without mirroring, where that was enough so far."""
        return self.root / "validation_quick"

    @property
    def slice_context(self) -> Path:
        """What its Dice owes to neighbouring slices, where that was measured."""
        return self.root / "slice_context.json"

    @property
    def probabilities(self) -> Path:
        """Probabilities of the validation cases for ensembles, `CASE.b2nd`: (K, D, H, W) on the file's grid."""
        return self.root / "probabilities"

    @property
    def split(self) -> Path:
        """The cases that models outside of the folds are trained on."""
        return self.root / "split.json"

    @property
    def coarse(self) -> Path:
        """A copy of the coarse model, whose result a fine model begins with."""
        return self.root / f"coarse{self.model_suffix}"

    @property
    def views(self) -> Path:
        """Copies of the models that a fusion fuses, `CONFIG.safetensors`."""
        return self.root / "views"

    @property
    def fusion_data(self) -> Path:
        """Training data of a fusion network: images and predictions of the views, around the object."""
        return self.root / "fusion_data"

    @property
    def fusion_cases(self) -> Path:
        """Models that predicted the training data of a fusion network."""
        return self.root / "fusion_cases.json"


class JointFolder(FoldFolder):
    """The same folder while views and fusion are trained together: the files of all their weights."""

    @property
    def model_best(self) -> Path:
        """All weights with the best validation windows."""
        return self.root / "joint_best.safetensors"

    @property
    def model_final(self) -> Path:
        """All weights at the end; what prediction reads is made of it."""
        return self.root / "joint_final.safetensors"


class RunFolder(Record):
    """The files of one configuration of one data set under `results`."""

    root: Path
    model_suffix: str = MODEL_SUFFIX
    """Ending of the files of models."""

    @property
    def plans(self) -> Path:
        """The plans that it was trained with."""
        return self.root / "plans.json"

    @property
    def dataset(self) -> Path:
        """The data set's description."""
        return self.root / "dataset.json"

    @property
    def fingerprint(self) -> Path:
        """The data set's fingerprint."""
        return self.root / "fingerprint.json"

    @property
    def crossval(self) -> Path:
        """Scores of all folds together."""
        return self.root / "crossval" / "summary.json"

    @property
    def predicted_dice(self) -> Path:
        """How the Dice of a prediction is predicted, by the validation cases of the folds that are trained."""
        return self.root / "crossval" / "predicted_dice.json"

    @property
    def splits(self) -> Path:
        """The folds that it was trained with."""
        return self.root / "splits.json"

    @property
    def imported(self) -> Path:
        """Says where results of another program, of which there are no models, come from."""
        return self.root / "imported.json"

    def fold(self, fold: int | str) -> FoldFolder:
        """The folder of a fold: a number, or `all`."""
        return FoldFolder(root=self.root / f"fold_{fold}", model_suffix=self.model_suffix)

    def model_set(self, name: str) -> FoldFolder:
        """The folder of models by the name of their set: `fold_0`, or `pair_0_1` of those that saw neither fold."""
        return FoldFolder(root=self.root / name)

    def trained_folds(self) -> list[str]:
        """The folds with a final model, in order."""
        names = sorted(path.name.removeprefix("fold_") for path in self.root.glob("fold_*"))
        return [name for name in names if self.fold(name).model_final.exists()]


class PreprocessedFolder(Record):
    """The files of one data set under `preprocessed`."""

    root: Path

    @property
    def dataset(self) -> Path:
        """The data set's description."""
        return self.root / "dataset.json"

    @property
    def fingerprint(self) -> Path:
        """The data set's fingerprint."""
        return self.root / "fingerprint.json"

    @property
    def fingerprint_cases(self) -> Path:
        """Measurements of each case, for continuing after an interruption."""
        return self.root / "fingerprint_cases"

    @property
    def splits(self) -> Path:
        """Training and validation cases of the folds."""
        return self.root / "splits.json"

    def recipe_splits(self, recipe: str) -> Path:
        """The folds of a recipe; the default one has `splits`."""
        return self.root / f"{_with_recipe('splits', recipe)}.json"

    def plans(self, plans_name: str = "plans", recipe: str = "default") -> Path:
        """The file of the plans with this name, made for a recipe."""
        return self.root / f"{_with_recipe(plans_name, recipe)}.json"

    def store(self, name: str) -> Path:
        """The folder of the arrays with one target spacing and normalisation."""
        return self.root / name


def _with_recipe(name: str, recipe: str) -> str:
    return name if recipe == "default" else f"{name}__{recipe}"


def _not_counted(folder: Path | None, environment: Mapping[str, str]) -> str:
    """A sentence on the variables of nnU-Net that are set and do not count; empty if there are none."""
    root = "--workspace" if folder else "SEG25D_WORKSPACE" if environment.get("SEG25D_WORKSPACE") else None
    root = root or ("seg25d_raw" if environment.get("seg25d_raw") else None)
    counts = {
        f"nnUNet_{kind}": f"seg25d_{kind}" if environment.get(f"seg25d_{kind}") else root
        for kind in ("raw", "preprocessed", "results")
        if environment.get(f"nnUNet_{kind}")
    }
    told = [f"{name} ({environment[name]}) does not count, {own} does" for name, own in counts.items() if own]
    return "; ".join(told)


class Workspace(Record):
    """The three folders that hold everything."""

    raw: Path
    preprocessed: Path
    results: Path
    nnunet_preprocessed: Path | None = None
    """nnU-Net's folder, where it keeps the folds of its data sets; known if the raw data are nnU-Net's."""
    not_counted: str = ""
    """Which of nnU-Net's variables are set and do not count, and because of what; for messages."""
    model_suffix: str = MODEL_SUFFIX
    """Ending of the files of models, which is another one in archives of graphs."""

    @classmethod
    def resolve(cls, folder: Path | None = None, environment: Mapping[str, str] = os.environ) -> "Workspace":
        """Find the workspace from the command line and the environment.

        `folder` or the variable `SEG25D_WORKSPACE` (default `./seg25d_workspace`) holds `raw`, `preprocessed` and
        `results`; `seg25d_raw`, `seg25d_preprocessed` and `seg25d_results` override one each. When none of them names
        the place of the raw data, `nnUNet_raw`, `nnUNet_preprocessed` and `nnUNet_results` stand for those of the three
        that are not set; `nnUNet_preprocessed` may have folds of these data in any case.
        """
        chosen = folder or (Path(value) if (value := environment.get("SEG25D_WORKSPACE")) else None)
        root = chosen or Path("seg25d_workspace")

        has_own_raw = chosen is not None or environment.get("seg25d_raw")

        def place(kind: str) -> Path:
            nnunet = None if has_own_raw else environment.get(f"nnUNet_{kind}")
            return Path(environment.get(f"seg25d_{kind}") or nnunet or root / kind)

        nnunet = environment.get("nnUNet_preprocessed") if environment.get("nnUNet_raw") and not has_own_raw else None
        return cls(
            raw=place("raw"),
            preprocessed=place("preprocessed"),
            results=place("results"),
            nnunet_preprocessed=Path(nnunet) if nnunet and Path(nnunet) != place("preprocessed") else None,
            not_counted=_not_counted(folder, environment),
        )

    def environment(self) -> dict[str, str]:
        """The variables that say where it is, with whole paths, to a command elsewhere that has none of `VARIABLES`."""
        raw = "seg25d_raw" if self.nnunet_preprocessed is None else "nnUNet_raw"
        places = {raw: self.raw, "seg25d_preprocessed": self.preprocessed, "seg25d_results": self.results}
        if self.nnunet_preprocessed is not None:
            places["nnUNet_preprocessed"] = self.nnunet_preprocessed
        return {name: str(path.absolute()) for name, path in places.items()}

    def dataset_name(self, identifier: str) -> str:
        """The full name of a data set that is called `001`, `1` or `Dataset001_Name`.

        Raises:
            InputError: If no data set or more than one has this name; lists those that there are.
        """
        try:
            check_case_name(identifier)
        except ValueError as error:
            raise InputError(f"{error}; rename the folder of the data set") from None
        known = self.dataset_names()
        number = DATASET_NAME.fullmatch(identifier)
        if identifier in known:
            return identifier
        if number is None and is_number(identifier):
            matches = [name for name in known if int(name[7:10]) == int(identifier)]
        else:
            matches = []
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise InputError(f"data set {identifier} is ambiguous: {', '.join(matches)}; give the full name")
        raise InputError(
            f"data set {identifier} not found in {self.raw}, {self.preprocessed} or {self.results}; "
            f"known: {', '.join(known) or 'none'}. Names are DatasetNNN_Name; --workspace says where to look"
            + (f". {self.not_counted}" if self.not_counted else "")
        )

    def dataset_names(self) -> list[str]:
        """Every data set that is raw, preprocessed or has results, sorted."""
        folders = (self.raw, self.preprocessed, self.results)
        names = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()}
        return sorted(name for name in names if DATASET_NAME.fullmatch(name))

    def raw_dataset(self, name: str) -> Path:
        """The folder of a raw data set."""
        return self.raw / name

    def preprocessed_dataset(self, name: str) -> PreprocessedFolder:
        """The preprocessed folder of a data set."""
        return PreprocessedFolder(root=self.preprocessed / name)

    def splits_folders(self, name: str) -> list[Path]:
        """The folders, beside the raw data set, in which nnU-Net's folds of a data set may be."""
        return [folder / name for folder in (self.preprocessed, self.nnunet_preprocessed) if folder is not None]

    def run(self, name: str, run_name: str) -> RunFolder:
        """The results of one run (a configuration, `CONFIG__NETWORK` or `CONFIG__RECIPE`) of a data set."""
        return RunFolder(root=self.results / name / run_name, model_suffix=self.model_suffix)

    def candidate_scores(self, dataset_name: str) -> Path:
        """The folder of the scores of runs and ensembles in cross-validation."""
        return self.results / dataset_name / "cross_validation"

    def best(self, name: str) -> Path:
        """The file of the configuration or ensemble that was chosen for a data set."""
        return self.results / name / "best.json"

    def report(self, name: str) -> Path:
        """The page that shows all of a data set's results."""
        return self.results / name / "report.html"
