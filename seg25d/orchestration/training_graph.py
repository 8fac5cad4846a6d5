"""The tasks of a data set: arrays, trainings with all that they need first, cross-validation, choice and report."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from seg25d.core.errors import RecordError
from seg25d.core.lengths import plain_seconds
from seg25d.core.workspace import FoldFolder, RunFolder, Workspace
from seg25d.data.splits import Split
from seg25d.inference.sliding_window import window_starts
from seg25d.orchestration.task import Task
from seg25d.orchestration.wanted_runs import WantedRun
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.pretext import PretextTask
from seg25d.preprocessing.store import Store
from seg25d.representations.fused_views import FusedViews
from seg25d.runs.names import find_configuration
from seg25d.training.durations import expected_seconds
from seg25d.training.going_on import accepted_seconds, given_seconds, seconds_so_far
from seg25d.views.model_sets import fusion_cases
from seg25d.workflows.options import TrainingOptions
from seg25d.workflows.settings import resolve_settings

STEP_SIZE = 0.5
"""Step between windows in prediction, as a share of the window, as `predict` has it."""
PREPROCESS, CHOOSE, REPORT = "preprocess", "choose", "report"
PROCESS_BYTES = 1 << 30
"""Memory of a training beside that of its plan: torch, the loaders of batches, cases in the cache take 0.16 to 0.43 GB
(proportional set size of all processes, hippocampus and cardiac MR, two cores); the rest is for the probabilities of
validation cases."""
SETTINGS = {
    "fine": ("fusion.fine", "true"),
    "joint": ("fusion.joint", "true"),
    "holdout": ("fusion.data", "holdout"),
    "no_image": ("fusion.image", "false"),
}
"""The setting of a fusion of views that each variant of a run stands for."""


@dataclass(frozen=True)
class TrainingGraph:
    """Makes the tasks of a planned data set."""

    workspace: Workspace
    plans: Plans
    splits: tuple[Split, ...]
    folds: tuple[int | str, ...]
    options: TrainingOptions
    """Length and seed of every training."""
    device: str | None = None
    num_processes: int | None = None
    configurations: tuple[str, ...] = ()
    """Planned ones whose arrays are needed; none: all."""
    pretext: PretextTask | None = None
    """What the networks of configurations are pretrained by; None: they are not."""
    seconds_per_update: Mapping[str, float] | None = None
    """As timed, by configuration; None: no times are told."""

    @property
    def processes(self) -> tuple[str, ...]:
        """Words of every command for the number of processes."""
        return () if self.num_processes is None else ("--num-processes", str(self.num_processes))

    @property
    def common(self) -> tuple[str, ...]:
        """Words of every command that computes: where, and with how many processes."""
        return (() if self.device is None else ("--device", self.device)) + self.processes

    @property
    def dataset_name(self) -> str:
        """The data set."""
        return self.plans.dataset_name

    def run_name(self, wanted: WantedRun) -> str:
        """The folder of a run."""
        return self.plans.run_name("__".join((wanted.configuration, *wanted.variants)))

    def run_folder(self, wanted: WantedRun) -> RunFolder:
        """The results of a run."""
        return self.workspace.run(self.dataset_name, self.run_name(wanted))

    def preprocessing(self) -> Task:
        """Makes the arrays of the configurations."""
        named = ("-c", *self.configurations) if self.configurations else ()
        words = ("plan_and_preprocess", "-d", self.dataset_name, *named, "--preprocess-only", *self.processes)
        return Task(name=PREPROCESS, words=words, uses_gpu=False, always=True)

    def trainings(self, wanted: WantedRun, budget_s: float | None = None) -> list[Task]:
        """The trainings of all folds of a run, and those that they need.

        Args:
            wanted: The run.
            budget_s: Time of each training, instead of the usual length.
        """
        tasks: dict[str, Task] = {}
        for fold in self.folds:
            for task in self.fold(wanted, fold, budget_s, keep=True):
                tasks.setdefault(task.name, task)
        return list(tasks.values())

    def fold(
        self,
        wanted: WantedRun,
        fold: int | str,
        budget_s: float | None = None,
        *,
        keep: bool = False,
        quick: bool = False,
    ) -> Iterator[Task]:
        """The training of a fold, after those that it needs.

        Args:
            wanted: The run.
            fold: Number of the fold, or `all`.
            budget_s: Time of each training, instead of the usual length.
            keep: Whether the probabilities of its validation cases are kept for the choice.
            quick: Whether scores without mirroring are enough.
        """
        *others, last = self._chain(wanted, fold, budget_s)
        yield from others
        words, outputs = last.words, last.outputs
        if keep and fold != "all":
            words = (*words, "--keep-probabilities")
        if quick:
            folder = self.run_folder(wanted).fold(fold)
            words, outputs = (*words, "--quick-scores"), (folder.model_final, folder.validation_quick / "summary.json")
        yield last.model_copy(update={"words": words, "outputs": outputs})

    def _chain(self, wanted: WantedRun, fold: int | str, budget_s: float | None) -> Iterator[Task]:
        representation = self._plan(wanted.configuration).representation
        if representation.fuses_views:
            yield from self._fused_fold(wanted, fold, budget_s)
            return
        needs = [PREPROCESS]
        words: list[str] = []
        if "fine" in wanted.variants:
            coarse = list(self.fold(WantedRun(wanted.configuration), fold, budget_s))
            yield from coarse
            needs, words = [coarse[-1].name], ["--set", "fine=true"]
        elif self.pretext is not None:
            pretraining = self._pretraining(wanted, self.pretext, budget_s)
            yield pretraining
            needs, words = [pretraining.name], ["--pretrained", str(pretraining.outputs[0])]
        yield self._training(wanted, fold, words, needs, budget_s)

    def cross_validation(self, wanted: WantedRun, trainings: Sequence[Task], budget_s: float | None = None) -> Task:
        """Makes sure that all folds of a run are there, and puts their scores together; `trainings` are its own."""
        own = [task.name for task in trainings]
        summaries = tuple(self.run_folder(wanted).fold(fold).validation / "summary.json" for fold in self.folds)
        words = [*self._settings(wanted), *self._length(budget_s), *self.common]
        return Task(
            name=self.last_of(wanted),
            words=("train", self.dataset_name, wanted.configuration, *map(str, self.folds), *words),
            needs=tuple(own),
            outputs=(*summaries, self.run_folder(wanted).crossval) if self.is_whole else summaries,
            memory_bytes=PROCESS_BYTES,
        )

    def choice(self, runs: Sequence[WantedRun]) -> list[Task]:
        """Choice of the best among runs by the folds that were trained, and the page that shows all results.

        Without folds that have validation cases there is the page alone.
        """
        names = [self.run_name(each) for each in runs]
        folds = () if self.is_whole else ("-f", *(str(fold) for fold in self.folds if fold != "all"))
        words = ("find_best_configuration", self.dataset_name, "-c", *names, *folds, *self.common)
        choose = Task(name=CHOOSE, words=words, always=True, memory_bytes=PROCESS_BYTES)
        if not self.has_validation:
            return [self._report()]
        return [choose, self._report(CHOOSE)]

    def _report(self, *needs: str) -> Task:
        words = ("report", self.dataset_name, *self.processes)
        return Task(name=REPORT, words=words, needs=needs, uses_gpu=False, always=True)

    def last_of(self, wanted: WantedRun) -> str:
        """The name of the task with which a run is complete."""
        return f"{self.run_name(wanted)}_crossval"

    @property
    def has_validation(self) -> bool:
        """Whether there are folds with validation cases to compare runs on."""
        return any(fold != "all" for fold in self.folds)

    @property
    def is_whole(self) -> bool:
        """Whether all numbered folds are trained."""
        return {*self.folds, "all"} >= {*range(len(self.splits)), "all"}

    def num_models(self, wanted: WantedRun, fold: int | str) -> int:
        """Models that a fold of a run takes."""
        return sum(1 for task in self.fold(wanted, fold))

    def builds_on_others(self, wanted: WantedRun) -> bool:
        """Whether trainings of a run begin with other models: when those go on, they have to start over."""
        return bool(wanted.variants) or self._plan(wanted.configuration).representation.fuses_views

    def accepted_seconds(self, wanted: WantedRun, folds: Sequence[int | str], seconds: float) -> float:
        """The time that folds of a run can all be given, if it is to be `seconds`: they do not become shorter.

        A fold that took longer than it was given, on a machine that became slow, accepts the time that it was given, or
        more than it took.
        """
        own = [self.run_folder(wanted).fold(fold) for fold in folds]
        length = max(accepted_seconds(fold, seconds) for fold in own)
        while slow := [seconds_so_far(fold) for fold in own if accepted_seconds(fold, length) < length]:
            length = math.floor(max(slow)) + 1.0
        return length

    def scoring_seconds(self, wanted: WantedRun, fold: int) -> float:
        """About how long predicting the validation cases of a fold takes; 0 where updates are not timed."""
        update = (self.seconds_per_update or {}).get(wanted.configuration)
        plan = self._plan(wanted.configuration)
        store = Store(self.workspace.preprocessed_dataset(self.dataset_name).store(plan.store))
        if update is None:
            return 0.0
        windows = 0
        for case in self.splits[fold].val:
            with suppress(RecordError):  # not preprocessed
                shape = store.record(case).grid.shape
                starts = zip(shape, plan.window, strict=True)
                windows += math.prod(len(window_starts(size, extent, STEP_SIZE)) for size, extent in starts)
        batches = windows * float(self.mirrored_passes(wanted)) / plan.batch_size
        return batches * update * plan.scoring_share

    def mirrored_passes(self, wanted: WantedRun) -> int:
        """How often a window is predicted for scores, once for every way to mirror it; quick scores do so once."""
        return 1 << len(self._plan(wanted.configuration).mirror_axes)

    def usual_seconds(self, wanted: WantedRun) -> float | None:
        """How long a fold takes at the usual length, the models that it needs aside."""
        return self._seconds(wanted.configuration, None)

    def _pretraining(self, wanted: WantedRun, task: PretextTask, budget_s: float | None) -> Task:
        run = self.run_name(wanted)
        out = self.workspace.results / self.dataset_name / "pretraining" / f"{run}__{task}"
        if budget_s is not None:  # trainings have begun with its weights, which have to stay as they are
            budget_s = given_seconds(FoldFolder(root=out)) or budget_s
        words = ("pretrain", self.dataset_name, wanted.configuration, "--task", task, *self._length(budget_s))
        return Task(
            name=f"{run}_{task}",
            words=(*words, *self.common),
            needs=(PREPROCESS,),
            outputs=(FoldFolder(root=out).model_final.absolute(),),
            progress=out,
            expected_seconds=self._seconds(wanted.configuration, budget_s),
            memory_bytes=self._memory_bytes(wanted.configuration),
        )

    def _fused_fold(self, wanted: WantedRun, fold: int | str, budget_s: float | None) -> Iterator[Task]:
        """Models of views that are ordinary folds, those that only the fusion needs, and the fusion of them."""
        if "joint" in wanted.variants:
            others = tuple(each for each in wanted.variants if each != "joint")
            apart = list(self._fused_fold(WantedRun(wanted.configuration, others), fold, budget_s))
            yield from apart
            yield self._training(wanted, fold, (), [apart[-1].name], budget_s)
            return
        holdout = "holdout" in wanted.variants
        representation = FusedViews.of(self._plan(wanted.configuration).representation)
        fine = ("fine",) if "fine" in wanted.variants else ()
        needs: list[str] = []
        own: dict[str, str] = {}
        for models in fusion_cases(self.splits, fold, "holdout" if holdout else "cross").sets:
            for view in representation.views:
                run = WantedRun(find_configuration(self.plans, view)[0], fine)
                if models.fold is not None:
                    tasks = list(self.fold(run, models.fold, budget_s))
                    own.setdefault(view, tasks[-1].name)
                else:
                    tasks = self._parts((wanted, fold), run, models.name, own.get(view), budget_s)
                yield from tasks
                needs.append(tasks[-1].name)
        yield self._training(wanted, fold, (), needs, budget_s)

    def _parts(
        self,
        fusion: tuple[WantedRun, int | str],
        run: WantedRun,
        models: str,
        own: str | None,
        budget_s: float | None,
    ) -> list[Task]:
        """The models of a view that only a fusion needs: the coarse one where it is fine, then its own.

        They have the settings of the view's own fold, whose training `own` they come behind, if there is one.
        """
        tasks: list[Task] = []
        wanted, fold = fusion
        for each in dict.fromkeys((WantedRun(run.configuration), run)):
            root = self.workspace.results / self.dataset_name / self.run_name(each) / models
            words = ("--part", f"{self.run_name(each)}/{models}", *self._settings(wanted))
            needs = (tasks[-1].name,) if tasks else (own or PREPROCESS,)
            tasks.append(
                Task(
                    name=f"{self.run_name(each)}_{models}",
                    words=(*self._train(wanted, fold), *words, *self._length(budget_s), *self.common),
                    needs=needs,
                    outputs=(FoldFolder(root=root).model_final,),
                    progress=root,
                    expected_seconds=self._seconds(each.configuration, budget_s),
                    memory_bytes=self._memory_bytes(each.configuration),
                )
            )
        return tasks

    def _training(
        self, wanted: WantedRun, fold: int | str, words: Sequence[str], needs: Sequence[str], budget_s: float | None
    ) -> Task:
        folder = self.run_folder(wanted).fold(fold)
        own = words or self._settings(wanted)
        if budget_s is not None:  # what others need may have had more
            budget_s = accepted_seconds(folder, budget_s)
        return Task(
            name=f"{self.run_name(wanted)}_fold_{fold}",
            words=(*self._train(wanted, fold), *own, *self._length(budget_s), *self.common),
            needs=tuple(dict.fromkeys(needs)),
            outputs=(folder.model_final, folder.validation / "summary.json"),
            progress=folder.root,
            expected_seconds=self._seconds(wanted.configuration, budget_s),
            memory_bytes=self._memory_bytes(wanted.configuration),
        )

    def _train(self, wanted: WantedRun, fold: int | str) -> tuple[str, ...]:
        return "train", self.dataset_name, wanted.configuration, str(fold)

    def _plan(self, configuration: str) -> ConfigurationPlan:
        return self.plans.configurations[configuration]

    def _settings(self, wanted: WantedRun) -> list[str]:
        """Words for the variants of a run."""
        if not self._plan(wanted.configuration).representation.fuses_views:
            return ["--set", "fine=true"] if wanted.variants else []
        return [word for each in wanted.variants for word in ("--set", "=".join(SETTINGS[each]))]

    def _length(self, budget_s: float | None) -> list[str]:
        """Words for the length and the seed of a training."""
        options = self.options
        words = [] if options.seed is None else ["--seed", str(options.seed)]
        if budget_s is not None:
            return [*words, "--time-budget", f"{plain_seconds(budget_s)}s"]
        words += [] if options.epochs is None else ["--epochs", str(options.epochs)]
        words += [] if options.iterations is None else ["--iterations", str(options.iterations)]
        return words

    def _seconds(self, configuration: str, budget_s: float | None) -> float | None:
        if budget_s is not None:
            return budget_s
        update = (self.seconds_per_update or {}).get(configuration)
        if update is None:
            return None
        plan = self._plan(configuration)
        config = resolve_settings(self.options, {}, fuses_views=plan.representation.fuses_views).config
        return expected_seconds(config, plan, len(self.splits[0].val), update)

    def _memory_bytes(self, configuration: str) -> int:
        return PROCESS_BYTES + round(self._plan(configuration).estimated_memory_gb * 1e9)
