import json

import pytest

from seg25d.core.records import write_record
from seg25d.core.workspace import FoldFolder
from seg25d.demo.kind import Outcome
from seg25d.demo.vessels import paper_table
from seg25d.evaluation.metrics import Counts, overlap_metrics
from seg25d.evaluation.summary import CaseSummary, summarize
from seg25d.inference.prediction_files import PredictionRecord


@pytest.fixture
def outcome(tmp_path) -> Outcome:
    """Two cases, two epochs, a prediction that was cut off in between."""
    fold = FoldFolder(root=tmp_path)
    epochs = [{"total_seconds": 30.0, "peak_memory_gb": 1.5}, {"total_seconds": 90.0, "peak_memory_gb": 1.25}]
    fold.log.write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    seconds = {"a": 1.0, "b": 2.0, "c": None}
    write_record(tmp_path / "prediction.json", PredictionRecord(model={}, seconds=seconds))
    counts = {"a": Counts(tp=4, fp=4, fn=4, tn=52), "b": Counts(tp=6, fp=2, fn=2, tn=54)}
    cases = [CaseSummary(case=case, metrics={"1": overlap_metrics(each)}) for case, each in counts.items()]
    return Outcome(fold, tmp_path, summarize(cases))


def test_table_has_the_paper_beside_ours_by_hand(outcome):
    header, ours, *papers = paper_table({"mip": outcome}).splitlines()
    # Mean accuracy (52/56 + 4/8)/2 and (54/56 + 6/8)/2, mean IU (52/60 + 4/12)/2 and (54/58 + 6/10)/2,
    # Dice 1/2 and 3/4.
    assert "78.6 ± 10.1" in ours
    assert "68.3 ± 11.7" in ours
    assert "62.5 ± 17.7" in ours
    assert "1.5 min" in ours
    assert "1.50 GB" in ours
    assert "1.50 s" in ours
    assert header.index("Dice") < header.index("training") < header.index("per case")
    assert [line.split("  ")[0] for line in papers] == ["paper, random 2.5D", "paper, 2D", "paper, 3D"]
    assert "85.6 ± 1.9" in papers[0]
