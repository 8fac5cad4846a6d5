"""A campaign of faults: the product is killed, starved and fed with what is damaged or hostile, again and again.

After each fault the same command again has to give the content of an undisturbed run, bit for bit, with no file too
many; a bad file or model is refused with one sentence. Each attempt follows from the seed and its number.

    python benchmarks/fault_campaign.py --hours 1 --seed 24
    python benchmarks/fault_campaign.py --attempts 200 --kinds kill
    python benchmarks/fault_campaign.py --seed 24 --only kill 17     # one attempt alone, its folder is kept
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from faults import environment, files, models
from faults.attempts import Kind, Result, random_of
from faults.kills import KILL
from faults.pairs import PAIR

SEED = 24
KINDS: tuple[Kind, ...] = (KILL, PAIR, *environment.KINDS, *files.KINDS, *models.KINDS)


def try_one(kind: Kind, seed: int, number: int, prepared: Path, folder: Path) -> Result:
    """Try one fault in an empty folder; what the attempt itself raises is a failure, too."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        return kind.attempt(random_of(seed, kind, number), prepared, folder)
    except Exception as error:
        return Result(False, "the attempt itself failed", f"{type(error).__name__}: {error}")


def table(results: dict[str, list[Result]]) -> str:
    """A row per kind and outcome: how often it came, and whether it is as promised."""
    lines = [f"{'kind':24} {'tried':>6} {'failed':>6}  outcomes"]
    for name, each in results.items():
        counts = Counter(result.outcome for result in each)
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        lines.append(f"{name:24} {len(each):6} {sum(not result.as_promised for result in each):6}  {outcomes}")
    return "\n".join(lines)


def campaign(
    kinds: Sequence[Kind], seed: int, hours: float | None, attempts: int | None, folder: Path
) -> dict[str, list[Result]]:
    """Try the kinds in turn, until the time is over or each has had its number of attempts.

    Args:
        kinds: What to try.
        seed: Of all random numbers.
        hours: How long; None: no limit.
        attempts: Of each kind; None: no limit.
        folder: For what is prepared (kept from earlier campaigns) and for failed attempts, each with what it printed.
    """
    results: dict[str, list[Result]] = {kind.name: [] for kind in kinds}
    prepared = folder / "prepared"
    prepared.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        kind.prepare(prepared)
    ends = time.monotonic() + 3600 * hours if hours else float("inf")
    number = 0
    while time.monotonic() < ends and (attempts is None or number < attempts):
        for kind in kinds:
            working = folder / "failed" / f"{kind.name} {number}".replace(" ", "_")
            result = try_one(kind, seed, number, prepared, working)
            results[kind.name].append(result)
            if result.as_promised:
                shutil.rmtree(working)
            else:
                (working / "what_happened.txt").write_text(f"{result.outcome}\n{result.detail}\n", encoding="utf-8")
                print(f"{kind.name} {number}: {result.outcome}\n  {result.detail[-600:]}", flush=True)
            if time.monotonic() > ends:
                break
        number += 1
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign and print the table of counts; 1 if one attempt did not end as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [kind.name for kind in KINDS]
    parser.add_argument("--hours", type=float, help="how long (default: until --attempts are done)")
    parser.add_argument("--attempts", type=int, help="of each kind (default: until --hours are over)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--kinds", nargs="+", choices=names, default=names)
    parser.add_argument("--only", nargs=2, metavar=("KIND", "NUMBER"), help="one attempt alone")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "seg25d_fault_campaign")
    parser.add_argument("-o", type=Path, help="JSON file for the counts")
    options = parser.parse_args(arguments)
    chosen = [kind for kind in KINDS if kind.name in options.kinds]
    if options.only:
        kind = next(kind for kind in KINDS if kind.name == options.only[0])
        kind.prepare(options.folder / "prepared")
        working = options.folder / "alone"
        result = try_one(kind, options.seed, int(options.only[1]), options.folder / "prepared", working)
        print(f"{kind.name}: {result.outcome}\n{result.detail}\nits folder: {working}")
        return int(not result.as_promised)
    if options.hours is None and options.attempts is None:
        parser.error("expected --hours or --attempts")
    results = campaign(chosen, options.seed, options.hours, options.attempts, options.folder)
    print(table(results))
    if options.o:
        counts = {name: Counter(f"{r.as_promised}: {r.outcome}" for r in each) for name, each in results.items()}
        options.o.write_text(json.dumps({"seed": options.seed, "counts": counts}, indent=2) + "\n", encoding="utf-8")
    return int(any(not result.as_promised for each in results.values() for result in each))


if __name__ == "__main__":
    sys.exit(main())
