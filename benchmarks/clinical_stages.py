"""Stages of seg25d and nnU-Net on a data set of clinical size: the commands of their users, and what these write."""

import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from clinical_ct import Scans

from seg25d.core.files import write_json
from seg25d.core.parallel import available_cores
from seg25d.data.image_io import read_labels, write_labels

DATASET, NUMBER = "Dataset801_Clinical", "801"
BENCHMARKS = Path(__file__).resolve().parent
PARTNERS = {"axial": "2d", "2d": "2d", "3d": "3d_fullres"}
"""nnU-Net's configurations beside ours."""
MODEL_GRID = 0.8
"""Voxels of the model's grid per voxel of the file along each axis, in `export`: 1 mm for 0.8 mm."""
BORDER_VOXELS = 2
"""By how many voxels along each axis the prediction that is scored is displaced."""
VERIFY_NNUNET = (
    "import sys; from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity as verify; "
    "verify(sys.argv[1], int(sys.argv[2]))"
)
STAGES = (
    "verify",
    "fingerprint",
    "plan",
    "preprocess",
    "repeat",
    "train",
    "predict",
    "mirrored",
    "probabilities",
    "export",
    "evaluate",
    "find_best",
)
"""In their order; `train`, `predict` and `mirrored` are one for each configuration."""


@dataclass(frozen=True)
class Stage:
    """What is measured as one."""

    kind: str
    """One of `STAGES`."""
    commands: Sequence[Sequence[str]]
    """In turn; the next only if the one before succeeds."""
    num_cases: float = math.nan
    """Cases that it goes through, if it goes through whole cases."""
    configuration: str = ""
    writes: Sequence[str] = ()
    """What it writes, as patterns in the program's folder; removed before, so that nothing is kept."""
    prepare: Callable[[], object] = lambda: None
    """What has to be there before."""
    details: Callable[[], dict[str, Any]] = dict
    """Figures that the commands themselves leave, which stand in place of measured ones of the same name."""

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.kind} {self.configuration}".strip()

    @property
    def command(self) -> list[str]:
        """All commands as one."""
        if len(self.commands) == 1:
            return list(self.commands[0])
        return ["sh", "-c", " && ".join(map(shlex.join, self.commands))]


@dataclass(frozen=True)
class Settings:
    """What is to be measured."""

    configurations: Sequence[str]
    """Of seg25d."""
    compared: Sequence[str]
    """The two that `find_best_configuration` compares."""
    updates: int = 3
    device: str = "cpu"
    nnunet: Path | None = None
    """Python of an environment with nnunetv2."""


@dataclass(frozen=True)
class Place:
    """Folders of a data set and of both programs."""

    root: Path
    scans: Scans
    num_cases: int
    settings: Settings
    num_test: int = 1
    """Held-out cases, which are predicted; with two, the next is read and the last written beside one."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def raw(self) -> Path:
        """The data set."""
        return self.root / "raw" / DATASET

    @property
    def displaced(self) -> Path:
        """The folder of the prediction that is scored."""
        return self.root / "displaced"

    @property
    def voxels(self) -> int:
        """Of a case."""
        return math.prod(self.scans.shape)

    def folder(self, program: str) -> Path:
        """What a program writes into; it finds the raw data there."""
        folder = self.root / program
        (folder / "raw").mkdir(parents=True, exist_ok=True)
        link = folder / "raw" / DATASET
        if not link.is_symlink():
            link.symlink_to(self.raw.resolve())
        return folder

    def variables(self, program: str) -> dict[str, str]:
        """The variables of a program's commands, without those of the other's."""
        folder = self.folder(program).resolve()
        names = ("raw", "preprocessed", "results")
        own = {f"nnUNet_{name}": str(folder / name) for name in names}
        own["nnUNet_def_n_proc"] = str(available_cores())
        if program == "seg25d":
            paths = [str(BENCHMARKS.parent), *filter(None, [self.environment.get("PYTHONPATH")])]
            own = {"SEG25D_WORKSPACE": str(folder), "PYTHONPATH": os.pathsep.join(paths)}
        others = {key: value for key, value in self.environment.items() if not key.startswith(("nnUNet_", "seg25d_"))}
        return {**others, **own}

    def make_displaced(self) -> None:
        """Make a prediction whose borders are wrong everywhere, as an untrained model's is nothing to score."""
        for path in (self.raw / "labelsTs").iterdir():
            target = self.displaced / path.name
            if not target.exists():
                labels, geometry = read_labels(path)
                write_labels(target, np.roll(labels, (BORDER_VOXELS,) * 3, (0, 1, 2)), geometry)


def stages_of(program: str, place: Place) -> list[Stage]:
    """The stages of `seg25d` or `nnunet`, in order."""
    return _stages_of_seg25d(place) if program == "seg25d" else _stages_of_nnunet(place)


def _stages_of_seg25d(place: Place) -> list[Stage]:
    settings, folder = place.settings, place.folder("seg25d")
    results, device = folder / "results" / DATASET, ("--device", settings.device)

    def ours(*words: str) -> list[str]:
        return [sys.executable, "-m", "seg25d", *words]

    def train(name: str) -> Stage:
        words = [sys.executable, str(BENCHMARKS / "updates_alone.py"), NUMBER, name, "0", *device]
        words += ["--iterations", str(settings.updates), "--set", "validation_windows=1"]
        log = results / name / "fold_0" / "log.jsonl"
        return Stage("train", [words], math.nan, name, [f"results/{DATASET}/{name}"], details=lambda: _our_updates(log))

    def predict(name: str, out: Path, *words: str) -> list[str]:
        chosen = ["-d", NUMBER, "-c", name, "-f", "0", *device, *words]
        return ours("predict", "-i", str(place.raw / "imagesTs"), "-o", str(out), *chosen)

    plan = ours("plan_and_preprocess", "-d", NUMBER)
    chosen = ["-c", *settings.configurations]
    prepared = f"preprocessed/{DATASET}"
    cases = place.num_cases
    chosen_folds = ["-c", *settings.compared, "-f", "0", *device]
    scored = [f"results/{DATASET}/{name}" for name in ("*/fold_0/probabilities", "best.json", "cross_validation")]
    return [
        Stage("verify", [[*plan, "--verify-only"]], cases),
        Stage("fingerprint", [[*plan, "--fingerprint-only"]], cases, writes=[prepared]),
        Stage("plan", [[*plan, *chosen, "--plan-only"]], cases, writes=[f"{prepared}/plans.json"]),
        Stage("preprocess", [[*plan, "--preprocess-only"]], cases, writes=[f"{prepared}/*/*.b2nd"]),
        Stage("repeat", [[*plan, *chosen]], cases),
        *map(train, settings.configurations),
        *_predictions(place, folder, settings.configurations, predict, "--disable-tta", "--save-probabilities"),
        _export(place, "seg25d", sys.executable),
        _evaluate(place, ours("evaluate"), []),
        Stage("find_best", [ours("find_best_configuration", NUMBER, *chosen_folds)], 1, writes=scored),
    ]


def _stages_of_nnunet(place: Place) -> list[Stage]:
    settings, folder = place.settings, place.folder("nnunet")
    assert settings.nnunet is not None, "the stages of nnU-Net need its Python"
    python, prepared, device = settings.nnunet, f"preprocessed/{DATASET}", ["-device", settings.device]
    plans = "nnUNetPlans"

    def theirs(command: str, *words: str) -> list[str]:
        return [str(python.parent / f"nnUNetv2_{command}"), *words]

    def train(name: str) -> Stage:
        words = [DATASET, PARTNERS[name], "0", "inf", plans, str(settings.updates), settings.device]
        run = f"results/{DATASET}/nnUNetTrainer__{plans}__{PARTNERS[name]}"
        return Stage(
            "train",
            [[str(python), str(BENCHMARKS / "nnunet_timed.py"), *words]],
            configuration=name,
            writes=[run],
            prepare=lambda: write_json(folder / prepared / "splits_final.json", _read(place.raw / "splits.json")),
            details=lambda: _their_updates(folder / run / "fold_0" / "timed.json"),
        )

    def predict(name: str, out: Path, *words: str) -> list[str]:
        chosen = ["-d", NUMBER, "-c", PARTNERS[name], "-f", "0", *device, *words]
        return theirs("predict", "-i", str(place.raw / "imagesTs"), "-o", str(out), *chosen)

    def validate(name: str) -> list[str]:
        return theirs("train", NUMBER, PARTNERS[name], "0", "--val", "--npz", *device)

    both = [name for name in settings.configurations if name in PARTNERS]
    compared = [name for name in settings.compared if name in PARTNERS]
    choose = theirs("find_best_configuration", NUMBER, "-c", *(PARTNERS[name] for name in compared), "-f", "0")
    files = ["-djfile", str(place.raw / "dataset.json"), "-pfile", str(folder / prepared / f"{plans}.json")]
    cases, cores = place.num_cases, str(available_cores())
    fingerprint = theirs("extract_fingerprint", "-d", NUMBER, "-np", cores, "--verify_dataset_integrity")
    preprocess = theirs("preprocess", "-d", NUMBER, "-np", cores)
    validated = ["*/fold_0/validation", "*/crossval_results_folds_*", "ensembles"]
    return [
        Stage("verify", [[str(python), "-c", VERIFY_NNUNET, str(place.raw), cores]], cases),
        Stage("fingerprint", [fingerprint], cases, writes=[prepared]),
        Stage("plan", [theirs("plan_experiment", "-d", NUMBER)], cases, writes=[f"{prepared}/{plans}.json"]),
        Stage("preprocess", [preprocess], cases, writes=[f"{prepared}/{plans}_*"]),
        *map(train, both),
        *_predictions(place, folder, both, predict, "--disable_tta", "--save_probabilities"),
        _export(place, "nnunet", str(python)),
        _evaluate(place, theirs("evaluate_folder"), files),
        Stage(
            "find_best",
            [*map(validate, compared), choose],
            1,
            writes=[f"results/{DATASET}/{name}" for name in validated],
        ),
    ]


def _predictions(
    place: Place,
    folder: Path,
    configurations: Sequence[str],
    command: Callable[..., list[str]],
    without_mirroring: str,
    with_probabilities: str,
) -> list[Stage]:
    """Prediction of the held-out cases; probabilities by the first configuration only."""

    def stage(kind: str, name: str, *words: str) -> Stage:
        out = folder / "predictions" / f"{kind}_{name}"
        return Stage(kind, [command(name, out, *words)], place.num_test, name, [f"predictions/{kind}_{name}"])

    return [
        *(stage("predict", name, without_mirroring) for name in configurations),
        *(stage("mirrored", name) for name in configurations),
        *(stage("probabilities", name, without_mirroring, with_probabilities) for name in configurations[:1]),
    ]


def _export(place: Place, program: str, python: str) -> Stage:
    """Scores to labels, by itself; extra memory, as the scores have to be there before."""
    out = place.root / f"{program}_export.json"
    sizes = [str(round(MODEL_GRID * size)) for size in place.scans.shape]
    words = [python, str(BENCHMARKS / "export_many_classes.py"), program, "--output", str(out)]
    words += ["--classes", str(place.scans.num_labels + 1), "--shape", *sizes]
    words += ["--file-shape", *map(str, place.scans.shape)]

    def details() -> dict[str, Any]:
        found = _read(out)
        memory = dict.fromkeys(("memory_gb", "memory_of_all_gb", "with_files_gb"), found["extra_mib"] / 1024)
        return {"wall_s": found["seconds"], "cpu_s": found["cpu_seconds"], **memory}

    return Stage("export", [words], 1, details=details)


def _evaluate(place: Place, command: Sequence[str], files: Sequence[str]) -> Stage:
    """Scores of the held-out cases, whose borders are wrong."""
    out = ["-o", str(place.root / "summary.json")]
    words = [*command, str(place.raw / "labelsTs"), str(place.displaced), *files, *out]
    return Stage("evaluate", [words], place.num_test, prepare=place.make_displaced)


def _our_updates(log: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return {"updates": lines[-1]["iteration"], "seconds_per_update": lines[-1]["seconds_per_iteration"]}


def _their_updates(path: Path) -> dict[str, Any]:
    timed = _read(path)
    return {"updates": timed["updates"], "seconds_per_update": timed["seconds"] / timed["updates"]}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
