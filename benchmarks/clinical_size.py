"""Every stage on data of clinical size, of seg25d and nnU-Net: wall and processor time, and memory of all processes.

    python benchmarks/clinical_size.py --nnunet ENVIRONMENT/bin/python --slices 120 500 --labels 3 60 \
        -o benchmarks/results/clinical_size.json
    python benchmarks/clinical_size.py -o benchmarks/results/clinical_size.json --table

The data are made up (clinical_ct.py); each stage is the command that users give (clinical_stages.py), measured with all
its processes (measured.py). Trainings end after `--updates` updates, without the prediction of the validation cases
and, in seg25d, without the updates that are timed before a first training (updates_alone.py). `export` is the
conversion of the scores of one case, on a grid of 1 mm, to labels of 0.8 mm (export_many_classes.py); its memory is
what is added to the scores. `evaluate` scores the truth, displaced by two voxels. `find_best` compares two
configurations on one validation case, whose probabilities are predicted first. With `--test-cases 2` predictions hold
what they hold of a cohort: while a case is computed, the next may be read and the last one written.

Every figure is kept in the file of `-o` as soon as it is there, with its machine: the same command does what is
missing, and what failed. Figures of two machines are not divided by each other. Delete the file to measure anew. What
takes more than `--memory-limit-gb` or `--time-limit` is ended, and counts as measured. Stages need what those before
them left in `--folder`.
"""

import argparse
import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clinical_ct import Scans
from clinical_stages import BENCHMARKS, STAGES, Place, Settings, Stage, stages_of
from measured import Limits, measure
from result_tables import Row, markdown_table

from seg25d.cli.argument_types import duration
from seg25d.core.files import write_json
from seg25d.core.parallel import available_cores, available_memory_bytes
from seg25d.core.processor import this_processor
from seg25d.core.versions import library_versions

GIGABYTE = 1 << 30
SHARE_OF_MEMORY = 0.8
"""Of the free memory, which a stage may take by default."""
PROGRAMS = {"seg25d": "seg25d", "nnunet": "nnU-Net"}
CONFIGURATIONS = ("axial", "coronal", "sagittal", "si", "stack", "mip", "3d")
"""All but `mv`, whose models are `axial`, `coronal` and `sagittal`."""


class Figures:
    """The file of all figures: by data set, program and stage. Those of earlier versions have one machine for all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {"figures": {}}
        if path.exists():
            self.content = json.loads(path.read_text(encoding="utf-8"))
        if machine := self.content.pop("machine", None):
            for row in _rows(self.content["figures"]):
                row.setdefault("machine", machine)

    def of(self, data: str, program: str) -> dict[str, Row]:
        """Figures of the stages that were measured."""
        found: dict[str, Row] = self.content["figures"].setdefault(data, {}).setdefault(program, {})
        return found

    def add(self, data: str, program: str, stage: str, row: Row) -> None:
        """Keep a figure."""
        self.of(data, program)[stage] = {**row, "machine": this_machine()}
        write_json(self.path, self.content)


def this_machine() -> dict[str, Any]:
    """What a figure depends on, beside the program."""
    processor = this_processor()
    known = {"cpu": processor.name, "instruction_sets": list(processor.instruction_sets), "cores": available_cores()}
    free = round(available_memory_bytes() / GIGABYTE, 1)
    return {**known, "versions": library_versions(), "free_memory_gb": free}


def _rows(figures: Mapping[str, Mapping[str, Mapping[str, Row]]]) -> Iterator[Row]:
    yield from (row for programs in figures.values() for stages in programs.values() for row in stages.values())


def name_of(place: Place) -> str:
    """The name of a data set in the file."""
    scans = place.scans
    size = f"{scans.slices} x {scans.size} x {scans.size}"
    tested = f", {place.num_test} to predict" if place.num_test > 1 else ""
    return f"{size}, {scans.thickness_mm:g} mm, {scans.num_labels} labels, {place.num_cases} cases{tested}"


def make_data(place: Place, figures: Figures) -> None:
    """Make the data set, unless it is there."""
    if (place.raw / "dataset.json").exists():
        return
    scans = place.scans
    words = [sys.executable, str(BENCHMARKS / "clinical_ct.py"), str(place.raw)]
    words += ["--slices", str(scans.slices), "--size", str(scans.size), "--labels", str(scans.num_labels)]
    words += ["--thickness-mm", str(scans.thickness_mm), "--cases", str(place.num_cases)]
    words += ["--test-cases", str(place.num_test)]
    print(f"{name_of(place)}: making the data", flush=True)
    row = measure(words, place.variables("seg25d"), place.root / "logs" / "generate.log")
    if row["status"]:
        raise SystemExit(f"error: the data could not be made; see {place.root / 'logs' / 'generate.log'}")
    voxels = (place.num_cases + place.num_test) * place.voxels
    figures.add(name_of(place), "data", "generate", {**row, "voxels": voxels})


def run_stage(place: Place, program: str, stage: Stage, limits: Limits) -> Row:
    """Measure a stage from its beginning."""
    folder = place.folder(program)
    for pattern in stage.writes:
        for path in list(folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    stage.prepare()
    log = place.root / "logs" / f"{program} {stage.name}.log"
    row = measure(stage.command, place.variables(program), log, limits=limits, folder=place.root)
    voxels = None if math.isnan(stage.num_cases) else round(stage.num_cases * place.voxels)
    row |= {"voxels": voxels, "case_voxels": place.voxels}
    row |= {"labels": place.scans.num_labels, "limit_gb": limits.memory_gb}
    if row["status"] and not row["over_limit"]:
        print(f"  failed with status {row['status']}; its output is in {log}", flush=True)
    return row if row["status"] else {**row, **stage.details()}


def run_stages(place: Place, options: argparse.Namespace, figures: Figures) -> int:
    """Measure the wanted stages that are missing; return how many failed."""
    failed = 0
    for program in PROGRAMS if options.nnunet else ("seg25d",):
        there = figures.of(name_of(place), program)
        for stage in stages_of(program, place):
            done = there.get(stage.name)
            if stage.kind not in options.stages or (done and (done["over_limit"] or not done["status"])):
                continue
            print(f"{name_of(place)}: {program} {stage.name}", flush=True)
            free = SHARE_OF_MEMORY * available_memory_bytes() / GIGABYTE
            limits = Limits(options.memory_limit_gb or round(free, 1), options.time_limit or math.inf)
            row = run_stage(place, program, stage, limits)
            failed += bool(row["status"] and not row["over_limit"])
            figures.add(name_of(place), program, stage.name, row)
    return failed


def tables(content: Mapping[str, Any]) -> str:
    """All tables in Markdown: each data set, and figures per voxel of all."""
    parts = [_table_of(data, programs) for data, programs in content["figures"].items()]
    parts += [_table_per_voxel(content["figures"], program) for program in PROGRAMS]
    return "\n\n".join(filter(None, parts))


def _table_of(data: str, programs: Mapping[str, Mapping[str, Row]]) -> str:
    """Both programs side by side on a data set."""
    header = ["", *(f"{label}: {what}" for label in PROGRAMS.values() for what in ("wall s", "CPU s", "GB"))]
    header += ["CPU, ratio", "GB, ratio"]
    rows = []
    apart = ""
    for stage in _stages(programs):
        ours, theirs = (programs.get(program, {}).get(stage) for program in PROGRAMS)
        cells = [cell for row in (ours, theirs) for cell in _cells(row)]
        rows.append([stage, *cells, _ratio(ours, theirs, "cpu_s"), _ratio(ours, theirs, "with_files_gb")])
        if ours and theirs and not _same_machine(ours, theirs):
            apart = "\n\nFigures of different machines have no ratio."
    return f"**{data}**\n\n{markdown_table(header, rows)}{apart}" if rows else ""


def _same_machine(ours: Row, theirs: Row) -> bool:
    """Whether two figures are of the same machine, as far as their rows tell; those of earlier versions tell less."""
    first, second = (row.get("machine", {}) for row in (ours, theirs))
    known = {"cpu", "instruction_sets", "cores"} & first.keys() & second.keys()
    return all(first[key] == second[key] for key in known)


def _table_per_voxel(figures: Mapping[str, Mapping[str, Mapping[str, Row]]], program: str) -> str:
    """Processor seconds per million voxels, the same per class, and bytes per voxel, of all data sets."""
    there = {data: programs[program] for data, programs in figures.items() if programs.get(program)}
    header = [PROGRAMS[program], *there]
    rows = []
    for stage in _stages(there):
        cells = [_per_voxel(stages.get(stage)) for stages in there.values()]
        if set(cells) != {"-"}:
            rows.append([stage, *cells])
    title = "CPU seconds per million voxels, the same per class, and peak memory in bytes per voxel of a case"
    return f"**{title}**\n\n{markdown_table(header, rows)}" if rows else ""


def _stages(figures: Mapping[str, Mapping[str, Row]]) -> Iterator[str]:
    """All measured stages, in their order."""
    names = {stage for stages in figures.values() for stage in stages if stage.split()[0] in STAGES}
    configurations = [*CONFIGURATIONS, *sorted({name.partition(" ")[2] for name in names} - {"", *CONFIGURATIONS})]
    order = [f"{stage} {name}".strip() for stage in STAGES for name in ("", *configurations)]
    yield from (name for name in order if name in names)


def _cells(row: Row | None) -> list[str]:
    """Wall and processor seconds, and memory."""
    if row is None:
        return ["-"] * 3
    if row["over_limit"] == "memory":
        return ["-", "-", f"> {row['limit_gb']:.0f}"]
    if row["over_limit"] == "time":
        return [f"> {row['wall_s']:.0f}", f"> {row['cpu_s']:.0f}", f"{row['with_files_gb']:.2f}"]
    if row["status"]:
        return ["failed", "-", "-"]
    return [f"{row['wall_s']:.1f}", f"{row['cpu_s']:.1f}", f"{row['with_files_gb']:.2f}"]


def _ratio(ours: Row | None, theirs: Row | None, key: str) -> str:
    if ours is None or theirs is None or ours["status"] or theirs["status"] or not theirs[key]:
        return "-"
    if not _same_machine(ours, theirs):
        return "-"
    return f"{ours[key] / theirs[key]:.2f}"


def _per_voxel(row: Row | None) -> str:
    if row is None or row["status"] or not row["voxels"]:
        return "-"
    seconds = row["cpu_s"] / row["voxels"] * 1e6
    memory = row["with_files_gb"] * GIGABYTE / row["case_voxels"]
    return f"{seconds:.3g} s, {seconds / row['labels']:.2g} s, {memory:.3g} B"


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="FILE.json of all figures")
    parser.add_argument("--table", action="store_true", help="print the tables of the file, and measure nothing")
    parser.add_argument("--nnunet", type=Path, help="Python of an environment with nnunetv2; else seg25d alone")
    parser.add_argument("--slices", type=int, nargs="+", default=[120, 500])
    parser.add_argument("--labels", type=int, nargs="+", default=[3, 60])
    parser.add_argument("--thickness-mm", type=float, nargs="+", default=[0.8], help="of slices (default: 0.8)")
    parser.add_argument("--size", type=int, default=512, help="voxels along both axes of a plane (default: 512)")
    parser.add_argument("--cases", type=int, default=4, help="the last one for validation (default: 4)")
    parser.add_argument("--test-cases", type=int, default=1, help="that are predicted and scored (default: 1)")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="default: all")
    parser.add_argument("--configurations", nargs="+", default=CONFIGURATIONS, help="default: all but mv")
    parser.add_argument("--compared", nargs=2, default=("axial", "3d"), help="for find_best (default: axial 3d)")
    parser.add_argument("--updates", type=int, default=3, help="of each training (default: 3)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-limit-gb", type=float, help="of a stage (default: 80 %% of what is free)")
    parser.add_argument("--time-limit", type=duration, metavar="TIME", help="of a stage, such as 30min")
    parser.add_argument("--folder", type=Path, default=Path("build/clinical_size"), help="for data and results")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the tables; 1 if a stage failed."""
    options = parse(words)
    figures, failed = Figures(options.output), 0
    if not options.table:
        if options.nnunet is None:
            print("no --nnunet: seg25d alone is measured", flush=True)
        settings = Settings(
            options.configurations, options.compared, options.updates, options.device, _python(options.nnunet)
        )
        for thickness in options.thickness_mm:
            for slices in options.slices:
                for labels in options.labels:
                    scans = Scans(slices, options.size, thickness, num_labels=labels)
                    tested = f"_{options.test_cases}" if options.test_cases > 1 else ""
                    name = f"{slices}x{options.size}_{thickness:g}mm_{labels}labels_{options.cases}{tested}"
                    root = (options.folder / name).resolve()
                    place = Place(root, scans, options.cases, settings, num_test=options.test_cases)
                    make_data(place, figures)
                    failed += run_stages(place, options, figures)
    print(tables(figures.content))
    return min(failed, 1)


def _python(path: Path | None) -> Path | None:
    """The Python of an environment: a link in it must not be followed, as it leads out of the environment."""
    if path is not None and not (path.parent / "nnUNetv2_predict").exists():
        raise SystemExit(f"error: --nnunet: expected the Python of an environment with nnunetv2, got {path}")
    return path.absolute() if path is not None else None


if __name__ == "__main__":
    sys.exit(main())
