"""What processes do in a test of records that they share; apart, as it loads without torch."""

from pathlib import Path

from seg25d.inference.prediction_files import PredictionRecord, add_to_record, begin_record

NUM_CASES = 12


def add_cases(path: Path, part: int) -> None:
    """Begin the record and add cases, as a part of a prediction does that knows two cases of earlier calls."""
    record = PredictionRecord(model={"name": "a"}, seconds={"old_0": 0.0, "old_1": 0.0})
    begin_record(record, path)
    for number in range(NUM_CASES):
        record = add_to_record(record, path, f"case_{part}_{number}", float(part), {"1": 0.5})
    add_to_record(record, path, f"old_{part % 2}", 1.0)
