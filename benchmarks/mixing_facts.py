"""Lines of the table of measured gains of `planning/mixing_rule.py`, from the tables of mixing.py in equal time.

    python benchmarks/mixing_facts.py benchmarks/results/mixing_*_10min.json

A line for each row with a mixing, and what it gains over the same configuration without it, over cases and seeds
(`over_seeds.py`). What is not worth a line: rows of one training, and tables in equal updates.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from machines import describe_machine, distinct
from over_seeds import difference

from seg25d.core.files import read_json
from seg25d.planning.mixing_rule import DataKind, MeasuredGain, mixing_asked_for


def gains_of(document: Mapping[str, Any], file_name: str) -> Iterator[MeasuredGain]:
    """The gains of a table.

    Args:
        document: Content of its JSON file.
        file_name: Of that file, for the source.
    """
    seconds = document["settings"].get("time_budget")
    rows = {row["configuration"]: row for row in document["rows"] if "configuration" in row}
    for name, row in rows.items():
        mixing = mixing_asked_for(name)
        plain = name.removesuffix(f"__{mixing}")
        if seconds is None or mixing is None or plain not in rows or rows[plain]["cases"] != row["cases"]:
            continue
        if len(distinct([*row["machines"], *rows[plain]["machines"]])) > 1:  # then the time was not equal
            continue
        found = difference(row["scores"]["dice"], rows[plain]["scores"]["dice"])
        if found is None or found.low is None or found.high is None:
            continue
        depth, height, width = row["spacing_mm"]
        machines = "; ".join(describe_machine(each) for each in row["machines"])
        yield MeasuredGain(
            kind=DataKind.of((depth, height, width), row["num_channels"]),
            configuration=plain,
            mixing=mixing,
            gain=round(found.mean, 4),
            low=round(found.low, 4),
            high=round(found.high, 4),
            num_seeds=min(len(row["seeds"]), len(rows[plain]["seeds"])),
            source=f"{document['dataset']}, {float(seconds):g} s on {machines}; {file_name}",
        )


def line_of(gain: MeasuredGain) -> str:
    """The line of the table in Python."""
    kind = f"DataKind(anisotropic={gain.kind.anisotropic}, multimodal={gain.kind.multimodal})"
    fields = [f"{name}={value!r}" for name, value in gain._asdict().items() if name != "kind"]
    return f"    MeasuredGain(kind={kind}, {', '.join(fields)}),"


def main() -> None:
    """Print the lines of all files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
    for path in parser.parse_args().files:
        for gain in gains_of(read_json(path), path.name):
            print(line_of(gain))


if __name__ == "__main__":
    main()
