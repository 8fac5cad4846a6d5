from seg25d.data.labels import Labels
from seg25d.evaluation.metrics import Scores
from seg25d.evaluation.summary import Summary
from seg25d.evaluation.tables import format_percent, format_score, summary_table, text_table


def test_columns_line_up():
    assert text_table(["label", "dice"], [["a", "0.5"], ["longer", "-"]]) == "label   dice\na        0.5\nlonger     -"


def test_no_rows_give_the_header():
    assert text_table(["label", "dice"], []) == "label  dice"


def test_missing_scores_are_dashes():
    assert format_score(None) == "-"
    assert format_score(0.12345) == "0.123"


def test_summary_has_a_line_per_label_and_one_for_all():
    half, none = Scores(**dict.fromkeys(Scores.model_fields, 0.5)), Scores(**dict.fromkeys(Scores.model_fields))
    lines = summary_table(Summary(foreground_mean=half, mean={"1": half, "2": none}, per_case=())).splitlines()
    assert [line[:12].strip() for line in lines] == ["label", "1", "2", "all labels"]
    assert "0.500" in lines[1]
    assert "-" in lines[2]


def test_lines_have_the_names_of_labels_where_they_are_known():
    none = Scores(**dict.fromkeys(Scores.model_fields))
    labels = Labels(names={"background": 0, "liver": 1, "spleen": 2})
    summary = Summary(foreground_mean=none, mean={"1": none, "2": none, "7": none}, per_case=())
    names = [line[:12].strip() for line in summary_table(summary, labels).splitlines()]
    assert names == ["label", "liver", "spleen", "7", "all labels"]


def test_shares_in_percent_by_hand():
    # Deviations of -10 and 10 points: the square root of 200 / (2 - 1).
    assert format_percent([0.4, None, 0.6]) == "50.0 ± 14.1"
    assert format_percent([0.5]) == "50.0"
    assert format_percent([None]) == "-"
