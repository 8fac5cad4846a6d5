"""Whether a mixing between slices is to be the default: what the tables of mixing.py in equal time say, by one rule.

    python benchmarks/mixing_verdict.py benchmarks/results/mixing_*_10min.json

The tables may be of one fold or of several: data sets 5 and 27 are to be trained with `mixing.py --folds 0 1 2 3 4`, as
the five cases or seven patients of their first fold decide nothing. A mixing gains on a data set if it and the same
configuration without it were trained with three seeds or more, for the same time on one machine in windows of one size
(the planner may have cut one of the two plans more; `--any-window` compares them all the same), and the interval of the
difference of Dice, over cases and seeds (`over_seeds.py`), lies above `MARGIN` as a whole. The intervals of all mixings
of a configuration hold together in 95 % of all measurements (Bonferroni): the best of several is not called better by
luck. A mixing is to be the default of a configuration if it gains on each of three data sets or more; for one kind of
data (anisotropic voxels or not, one channel or several) if it gains on each data set of that kind. Of several the one
with the fewest weights is taken, unless another one gains over it by the same rule. Whatever is not known to gain
leaves the default as it is, without mixing.

The planner does not read this: as long as nothing was measured it has no rule to follow. A verdict for a mixing is to
be written into seg25d/planning/planner.py, with its table as the source.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from machines import describe_hardware
from over_seeds import CONFIDENCE, difference
from result_tables import Row

from seg25d.core.files import read_json
from seg25d.core.grids import ANISOTROPY
from seg25d.planning.configurations import split_name

LEAST_SEEDS = 3
"""Trainings of each of the two rows: as many as the tables have. One of each ranks nothing."""
LEAST_DATASETS = 3
"""Data sets behind a default for all of them: small isotropic, anisotropic and multi-modal volumes are unlike."""
MARGIN = 0.005
"""Dice that the lower end of the interval is to be above. Two seeds of one plan differed by 0.006 on the hippocampus
(documentation/reference/tables_of_the_papers.md): less is not worth another default. Our choice."""


class Kind(NamedTuple):
    """What decides which data sets are alike."""

    anisotropic: bool
    """Whether voxels are more than `ANISOTROPY` times longer along one axis than along another."""
    multimodal: bool
    """Whether images have several channels."""

    def __str__(self) -> str:
        """For people: `anisotropic voxels and one channel`."""
        voxels = "anisotropic" if self.anisotropic else "isotropic"
        return f"{voxels} voxels and {'several channels' if self.multimodal else 'one channel'}"


class Measured(NamedTuple):
    """A table of a data set in equal time."""

    dataset: str
    kind: Kind
    rows: Mapping[str, Row]
    """By their names: `si`, `si__shift`."""


class Verdict(NamedTuple):
    """The mixing that a configuration should have by default."""

    mixing: str | None
    """None: none."""
    reason: str


def measured_in(documents: Sequence[Mapping[str, Any]]) -> list[Measured]:
    """What tables say.

    Args:
        documents: Contents of their JSON files.

    Raises:
        SystemExit: If they are not of different data sets, each in the same time.
    """
    seconds = {document["settings"].get("time_budget") for document in documents}
    names = [document["dataset"] for document in documents]
    if len(seconds) != 1 or None in seconds or len(set(names)) < len(names):
        lengths = ", ".join(f"{each['dataset']} in {each['settings'].get('time_budget')} s" for each in documents)
        raise SystemExit(f"error: expected a table of each data set, all in one and the same time, got {lengths}")
    return [_measured(document) for document in documents]


def _measured(document: Mapping[str, Any]) -> Measured:
    rows = {row["name"]: row for row in document["rows"]}
    ours = [row for row in rows.values() if "spacing_mm" in row]
    if not ours:
        raise SystemExit(f"error: expected rows of seg25d in the table of {document['dataset']}, got {', '.join(rows)}")
    spacing_mm, num_channels = ours[0]["spacing_mm"], ours[0]["num_channels"]
    kind = Kind(max(spacing_mm) > ANISOTROPY * min(spacing_mm), num_channels > 1)
    return Measured(document["dataset"], kind, rows)


def obstacle(table: Measured, name: str, other: str, confidence: float, *, any_window: bool = False) -> str | None:
    """Why a row is not known to be ahead of another one on a data set; None if it is.

    Args:
        table: Of the data set.
        name: Of the row.
        other: Of the row that it should be ahead of.
        confidence: Of the interval.
        any_window: Whether rows whose windows differ are compared.
    """
    if missing := [each for each in (name, other) if each not in table.rows]:
        return f"no row {missing[0]}"
    row, plain = table.rows[name], table.rows[other]
    machines = {*map(describe_hardware, [*row["machines"], *plain["machines"]])}
    seeds = min(len(row["seeds"]), len(plain["seeds"]))
    windows = [" x ".join(map(str, each.get("window", ()))) or "unknown" for each in (row, plain)]
    unequal = {
        f"scored on other cases than {other}": row["cases"] != plain["cases"],
        f"{seeds} of {LEAST_SEEDS} seeds": seeds < LEAST_SEEDS,
        "trained on several machines, so that time was not equal": len(machines) > 1,
        f"windows are {windows[0]} and those of {other} {windows[1]}, so that mixing is not all that differs; plan one "
        "anew with the other's, or give --any-window": windows[0] != windows[1] and not any_window,
    }
    if any(unequal.values()):
        return next(reason for reason, holds in unequal.items() if holds)
    dice, of_plain = row["scores"]["dice"], plain["scores"]["dice"]
    found = difference(dice, of_plain, cases=row["cases"], confidence=confidence)
    if found is None or found.low is None or found.high is None:
        return "no interval, as there are too few cases or nothing varies"
    if found.low > MARGIN:
        return None
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f}) is not above {MARGIN:g}"


def decide(configuration: str, tables: Sequence[Measured], *, any_window: bool = False) -> Verdict:
    """The default mixing of a configuration on data sets like these.

    Args:
        configuration: Without mixing, as rows are named: `2d`, `si`.
        tables: One or more.
        any_window: Whether rows whose windows differ are compared.
    """
    mixed = {name: row for table in tables for name, row in table.rows.items() if _is_mixed(name, configuration)}
    by_weights = sorted(mixed, key=lambda name: (mixed[name]["cost"]["num_parameters"], name))
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(mixed))

    def why_not(name: str, other: str) -> str | None:
        reasons = ((table.dataset, obstacle(table, name, other, confidence, any_window=any_window)) for table in tables)
        return next((f"on {dataset} {reason}" for dataset, reason in reasons if reason is not None), None)

    reasons = {name: why_not(name, configuration) for name in by_weights}
    able = [name for name, reason in reasons.items() if reason is None]
    if not able:
        told = "; ".join(f"{split_name(name).mixing} {reason}" for name, reason in reasons.items())
        return Verdict(None, told or "no mixing was trained")
    best = able[0]
    for name in able[1:]:
        if why_not(name, best) is None:
            best = name
    others = ", ".join(str(split_name(name).mixing) for name in able if name != best)
    more = f", as do {others}, which are not known to be ahead of it" if others else ""
    datasets = ", ".join(table.dataset for table in tables)
    return Verdict(split_name(best).mixing, f"it gains more than {MARGIN:g} on {datasets}{more}")


def _is_mixed(name: str, configuration: str) -> bool:
    parts = split_name(name)
    return parts.mixing is not None and parts._replace(mixing=None).text == configuration


def lines_of(tables: Sequence[Measured], *, any_window: bool = False) -> list[str]:
    """The verdicts on all configurations, for all data sets together and for each kind of data."""
    scopes = [("all data sets", tables)]
    scopes += [
        (str(kind), [table for table in tables if table.kind == kind])
        for kind in dict.fromkeys(table.kind for table in tables)
    ]
    names = dict.fromkeys(split_name(name)._replace(mixing=None).text for table in tables for name in table.rows)
    configurations = [name for name in names if any(_is_mixed(each, name) for table in tables for each in table.rows)]
    lines = []
    for configuration in configurations:
        for scope, some in scopes:
            if scope == "all data sets" and len(some) < LEAST_DATASETS:
                verdict = Verdict(None, f"{len(some)} of {LEAST_DATASETS} data sets")
            else:
                verdict = decide(configuration, some, any_window=any_window)
            lines.append(f"{configuration}, {scope}: {verdict.mixing or 'no mixing'}: {verdict.reason}")
    return lines


def main() -> None:
    """Print the verdicts of all files together."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
    parser.add_argument("--any-window", action="store_true", help="compare rows whose windows differ in size, too")
    options = parser.parse_args()
    print("\n".join(lines_of(measured_in([read_json(path) for path in options.files]), any_window=options.any_window)))


if __name__ == "__main__":
    main()
