"""A campaign of faults: the product is killed, starved and fed with what is damaged or hostile, again and again.

After each fault the same command again has to give the content of an undisturbed run, bit for bit, with no file too
many; a bad file or model is refused with one sentence. Each attempt follows from the seed and its number.

    python benchmarks/fault_campaign.py --hours 1 --seed 24
    python benchmarks/fault_campaign.py --attempts 200 --kinds kill
    python benchmarks/fault_campaign.py --hours 1 -o counts.json --first 12    # go on with attempt 12 of each kind
    python benchmarks/fault_campaign.py --seed 24 --only kill 17               # one attempt alone, its folder is kept
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from faults import environment, files, models
from faults.attempts import Kind, Result, random_of
from faults.kills import KILL
from faults.pairs import PAIR

Counts = dict[str, Counter[str]]
"""How often each outcome came, by kind; outcomes begin with `True: ` where they are as promised."""
SEED = 24
FAILED = "False: "
KINDS: tuple[Kind, ...] = (KILL, PAIR, *environment.KINDS, *files.KINDS, *models.KINDS)


def try_one(kind: Kind, seed: int, number: int, prepared: Path, folder: Path) -> Result:
    """Try one fault in an empty folder; what the attempt itself raises is a failure, too."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        return kind.attempt(random_of(seed, kind, number), prepared, folder)
    except Exception as error:
        return Result(False, "the attempt itself failed", f"{type(error).__name__}: {error}")


def table(counts: Counts) -> str:
    """A row per kind: how often it was tried and failed, and how often each outcome came."""
    lines = [f"{'kind':24} {'tried':>6} {'failed':>6}  outcomes"]
    for name, each in counts.items():
        outcomes = ", ".join(f"{count} {_words(outcome)}" for outcome, count in each.most_common())
        lines.append(f"{name:24} {each.total():6} {num_failed(each):6}  {outcomes}")
    return "\n".join(lines)


def _words(outcome: str) -> str:
    return f"{outcome.removeprefix(FAILED)} (failed)" if outcome.startswith(FAILED) else outcome.partition(": ")[2]


def num_failed(outcomes: Counter[str]) -> int:
    """How many attempts did not end as promised."""
    return sum(count for outcome, count in outcomes.items() if outcome.startswith(FAILED))


def campaign(
    kinds: Sequence[Kind], seed: int, numbers: Iterable[int], folder: Path, hours: float | None = None
) -> Iterator[tuple[int, Kind, Result]]:
    """Try the kinds in turn, round after round, until the time is over or all attempts are done.

    Args:
        kinds: What to try.
        seed: Of all random numbers.
        numbers: The attempts of each kind.
        folder: For what is prepared (kept from earlier campaigns) and for failed attempts, each with what it printed.
        hours: How long; None: no limit.

    Yields:
        What became of each attempt, with its number and kind.
    """
    prepared = folder / "prepared"
    prepared.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        kind.prepare(prepared)
    ends = time.monotonic() + 3600 * hours if hours else float("inf")
    for number, kind in ((number, kind) for number in numbers for kind in kinds):
        if time.monotonic() > ends:
            return
        working = folder / "failed" / f"{kind.name} {number}".replace(" ", "_")
        try:
            result = try_one(kind, seed, number, prepared, working)
        except KeyboardInterrupt:
            shutil.rmtree(working, ignore_errors=True)
            raise
        if result.as_promised:
            shutil.rmtree(working)
        else:
            (working / "what_happened.txt").write_text(f"{result.outcome}\n{result.detail}\n", encoding="utf-8")
            print(f"{kind.name} {number}: {result.outcome}\n  {result.detail[-600:]}", flush=True)
        yield number, kind, result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign and print the table of counts; 1 if one attempt did not end as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [kind.name for kind in KINDS]
    parser.add_argument("--hours", type=float, help="how long (default: until --attempts are done)")
    parser.add_argument("--attempts", type=int, help="of each kind (default: until --hours are over)")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="go on with this attempt of each kind")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--kinds", nargs="+", choices=names, default=names)
    parser.add_argument("--only", nargs=2, metavar=("KIND", "NUMBER"), help="one attempt alone")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "seg25d_fault_campaign")
    parser.add_argument("-o", type=Path, help="JSON file for the counts of whole rounds; with --first, added to those")
    options = parser.parse_args(arguments)
    if options.only:
        return _try_alone(options)
    if options.hours is None and options.attempts is None:
        parser.error("expected --hours or --attempts")
    chosen = [kind for kind in KINDS if kind.name in options.kinds]
    counts = _earlier_counts(options) if options.first and options.o and options.o.exists() else {}
    counts = {kind.name: Counter(counts.get(kind.name, {})) for kind in chosen}
    numbers = range(options.first, sys.maxsize if options.attempts is None else options.first + options.attempts)
    begun = options.first
    try:
        for number, kind, result in campaign(chosen, options.seed, numbers, options.folder, options.hours):
            counts[kind.name][f"{result.as_promised}: {result.outcome}"] += 1
            if kind is chosen[-1]:
                begun = number + 1
                if options.o:
                    options.o.write_text(json.dumps({"seed": options.seed, "counts": counts}, indent=2) + "\n", "utf-8")
    except KeyboardInterrupt:
        print("interrupted")
    print(f"{table(counts)}\nto go on: --first {begun}")
    return int(any(map(num_failed, counts.values())))


def _try_alone(options: argparse.Namespace) -> int:
    """One attempt, whose folder is kept."""
    kind = next(kind for kind in KINDS if kind.name == options.only[0])
    kind.prepare(options.folder / "prepared")
    working = options.folder / "alone"
    result = try_one(kind, options.seed, int(options.only[1]), options.folder / "prepared", working)
    print(f"{kind.name}: {result.outcome}\n{result.detail}\nits folder: {working}")
    return int(not result.as_promised)


def _earlier_counts(options: argparse.Namespace) -> Counts:
    """The counts of earlier rounds, which this campaign goes on from."""
    earlier = json.loads(options.o.read_text(encoding="utf-8"))
    if earlier["seed"] != options.seed:
        raise SystemExit(f"{options.o} has counts of seed {earlier['seed']}, not {options.seed}; name another file")
    return {name: Counter(each) for name, each in earlier["counts"].items()}


if __name__ == "__main__":
    sys.exit(main())
