"""What the report says: gathered from a tiny trained workspace, and from made-up scores."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from seg25d import api
from seg25d.cli.main import main
from seg25d.core.errors import InputError
from seg25d.core.records import read_record, write_record
from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME
from seg25d.evaluation.metrics import Scores
from seg25d.evaluation.slice_context import ChangedSlices, SliceChange, SliceContext
from seg25d.evaluation.summary import CaseSummary, Summary
from seg25d.report import niivue
from seg25d.report.advice import Row, advise, comparison_rows, describe_models
from seg25d.report.results import Contestant, gather_results
from seg25d.report.shown_cases import choose_cases
from seg25d.selection.best import Best

CSS = Path(niivue.__file__).with_name("assets") / "report.css"


@pytest.fixture
def workspace(chosen_once, tmp_path) -> Workspace:
    shutil.copytree(chosen_once, tmp_path / "workspace")
    return Workspace.resolve(tmp_path / "workspace", {})


def test_results_hold_every_run_with_the_scores_of_its_folds(workspace):
    results = gather_results(workspace, DATASET_NAME)
    runs = {run.name: run for run in results.runs}
    assert set(runs) == {"si", "axial", "3d"}
    assert [run.is_complete for run in results.runs] == [True, True, False], "those that lack folds come last"
    assert [case.case for case in runs["si"].summary.per_case] == [f"phantom_{index:03d}" for index in range(3)]
    fold = json.loads((workspace.run(DATASET_NAME, "3d").fold(1).validation / "summary.json").read_text())
    assert runs["3d"].summary.foreground_mean.dice == pytest.approx(fold["foreground_mean"]["dice"])
    assert runs["si"].prediction("phantom_002").parent.parent.name == "fold_2"
    assert runs["si"].prediction("phantom_002").exists()
    assert runs["si"].logs[0][-1]["iteration"] == 2


def test_rows_compare_on_the_cases_that_both_have(workspace):
    results = gather_results(workspace, DATASET_NAME)
    rows = {row.name: row for row in comparison_rows(results)}
    best = read_record(workspace.best(DATASET_NAME), Best)
    first = next(iter(rows.values()))
    assert (first.name, first.gain) == (best.name, None)
    (chosen,) = (contestant for contestant in results.contestants if contestant.name == best.name)
    of_best = {case.case: case for case in chosen.summary.per_case}
    (only,) = next(run for run in results.runs if run.name == "3d").summary.per_case
    dice, other = (
        sum(metrics.dice for metrics in case.metrics.values()) / len(case.metrics)
        for case in (only, of_best[only.case])
    )
    assert rows["3d"].num_cases == 1
    assert rows["3d"].gain == pytest.approx(dice - other)


def test_advice_names_the_choice_and_its_command(workspace):
    results = gather_results(workspace, DATASET_NAME)
    advice = advise(results, comparison_rows(results))
    best = read_record(workspace.best(DATASET_NAME), Best)
    assert advice.choice == best.name
    assert advice.commands == best.commands
    assert any("3d" in sentence and "folds" in sentence for sentence in advice.sentences)


def test_before_the_best_is_found_the_best_run_is_advised(workspace):
    workspace.best(DATASET_NAME).unlink()
    results = gather_results(workspace, DATASET_NAME)
    advice = advise(results, comparison_rows(results))
    assert advice.choice == results.runs[0].name
    assert f"seg25d find_best_configuration {DATASET_NAME}" in advice.commands


def test_stars_are_the_front_of_the_chart(workspace):
    results = gather_results(workspace, DATASET_NAME)
    front = {row.name: row.on_pareto_front for row in read_record(workspace.best(DATASET_NAME), Best).candidates}
    stars = {row.name: row.on_front for row in comparison_rows(results)}
    assert stars == {name: front.get(name, False) for name in stars}
    assert any(stars.values())


def test_the_command_is_that_of_the_name_above_it(workspace):
    path = workspace.best(DATASET_NAME)
    content = json.loads(path.read_text())
    members = [{**content["members"][0], "run": run} for run in ("gone", "lost")]
    path.write_text(json.dumps({**content, "name": "gone + lost", "members": members}))
    results = gather_results(workspace, DATASET_NAME)
    advice = advise(results, comparison_rows(results))
    assert advice.choice == results.runs[0].name
    assert any(f"-c {advice.choice}" in command for command in advice.commands)
    assert any("gone + lost" in sentence for sentence in advice.sentences)


def test_what_is_half_there_is_read_as_far_as_it_goes(workspace, caplog):
    run = workspace.run(DATASET_NAME, "si")
    (run.fold(0).validation / "summary.json").unlink()
    run.fold(1).log.write_text('{"epoch": 1}\nnull\n')
    results = gather_results(workspace, DATASET_NAME)
    assert [found.is_complete for found in results.runs] == [True, False, False]
    (si,) = (found for found in results.runs if found.name == "si")
    assert [case.case for case in si.summary.per_case] == ["phantom_001", "phantom_002"]
    assert [len(si.logs[fold]) > 0 for fold in range(3)] == [True, False, True]
    assert "log.jsonl cannot be read" in caplog.text


def test_without_cases_in_common_there_is_no_gain():
    contestants = [
        Contestant(
            name,
            Summary(mean={}, foreground_mean=Scores(), per_case=(CaseSummary(case=case, metrics={}),)),
            None,
            False,
        )
        for name, case in (("one", "a"), ("other", "b"))
    ]
    rows = comparison_rows(SimpleNamespace(contestants=contestants, best=None, runs=()))
    assert [(row.name, row.gain, row.p_value) for row in rows] == [("one", None, None), ("other", None, None)]


def rows_of(seen: dict[str, tuple[int, int]]) -> list[Row]:
    """Rows of so many cases, and of how many of them their models were trained on."""
    return [
        Row(name, "all 2", cases, Scores(dice=0.5), None, None, None, None, None, None, num_seen, False)
        for name, (cases, num_seen) in seen.items()
    ]


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        ({"si": (3, 0), "3d": (1, 0)}, "of models that were not trained on the case"),
        ({"si": (3, 3), "3d": (1, 1)}, "of models that were trained on these very cases, so that they say little"),
        ({"si": (3, 0), "3d": (2, 1)}, "but for 3d (1 of 2), which were trained on some of theirs"),
    ],
)
def test_the_page_says_whether_models_were_trained_on_their_cases(seen, sentence):
    assert sentence in describe_models(rows_of(seen))


def edit_splits(workspace, train_on_validation: bool, names=("si", "axial", "3d")) -> None:
    for name in names:
        path = workspace.run(DATASET_NAME, name).splits
        splits = json.loads(path.read_text())
        for split in splits if train_on_validation else splits[:1]:
            split["train"] = sorted({*split["train"], *split["val"]})
        path.write_text(json.dumps(splits))


def test_scores_on_training_cases_are_not_called_unseen(workspace):
    results = gather_results(workspace, DATASET_NAME)
    assert "3 cases that its models were not trained on." in advise(results, comparison_rows(results)).sentences[0]
    edit_splits(workspace, train_on_validation=True)
    results = gather_results(workspace, DATASET_NAME)
    rows = comparison_rows(results)
    assert [row.num_seen for row in rows] == [row.num_cases for row in rows]
    (first, *_) = advise(results, rows).sentences
    assert "3 cases; its models were trained on these very cases" in first
    assert "not trained" not in first


def test_scores_of_which_some_are_on_training_cases_say_how_many(workspace):
    edit_splits(workspace, train_on_validation=False)
    results = gather_results(workspace, DATASET_NAME)
    rows = comparison_rows(results)
    assert {row.name: row.num_seen for row in rows} == {row.name: int(row.name != "3d") for row in rows}
    assert "trained on 1 of these very cases" in advise(results, rows).sentences[0]


def test_runs_that_lack_folds_are_said_to_have_other_cases_only_where_they_have(workspace):
    def told() -> str:
        results = gather_results(workspace, DATASET_NAME)
        (sentence,) = (each for each in advise(results, comparison_rows(results)).sentences if "Not all folds" in each)
        return sentence

    assert told().startswith("Not all folds of 3d are trained and scored. Means are not over the same cases (3d 1, ")
    for name in ("si", "axial"):
        for fold in (0, 2):
            shutil.rmtree(workspace.run(DATASET_NAME, name).fold(fold).root)
    workspace.best(DATASET_NAME).unlink()
    sentence = told()
    assert "their means are over the same cases" in sentence
    assert all(name in sentence for name in ("si", "axial", "3d"))


def test_the_reason_of_the_choice_is_told(workspace):
    results = gather_results(workspace, DATASET_NAME)
    assert any("fewer than 6 cases" in each for each in advise(results, comparison_rows(results)).sentences)


def test_the_worst_the_middle_and_the_best_case_are_shown(workspace):
    (run, *_) = gather_results(workspace, DATASET_NAME).runs
    assert list(choose_cases(run).values()) == ["worst", "median", "best"], "there are three"


def test_a_page_without_training_shows_the_plans(workspace):
    shutil.rmtree(workspace.results)
    path = api.report(workspace, "900", workspace.raw.parent / "page.html", num_processes=0)
    text = path.read_text(encoding="utf-8")
    assert "Nothing to compare yet" in text
    assert "halved" in text, "a reason of the planner"
    assert "niivue-code" not in text


def test_names_cannot_become_markup(workspace):
    for path in (
        workspace.preprocessed_dataset(DATASET_NAME).dataset,
        workspace.raw_dataset(DATASET_NAME) / "dataset.json",
    ):
        content = json.loads(path.read_text())
        content["labels"] = {
            f"<script>alert({value})</script>" if value else name: value for name, value in content["labels"].items()
        }
        path.write_text(json.dumps(content))
    text = api.report(workspace, "900", num_processes=0).read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text


def test_what_slices_owe_to_their_neighbours_is_shown_where_it_was_measured(workspace):
    assert "Whether neighbouring slices matter" not in api.report(workspace, "900", num_processes=0).read_text("utf-8")
    changed = ChangedSlices(change=SliceChange(kind="shuffled"), dice=(0.25,))
    found = SliceContext(axis=0, slice_mm=2.5, seed=0, cases=("phantom_000",), dice=(0.75,), changes=(changed,))
    write_record(workspace.run(DATASET_NAME, "si").fold(0).slice_context, found)
    text = api.report(workspace, "900", num_processes=0).read_text("utf-8")
    section = text.partition('<section id="context"')[2].partition("</section>")[0]
    head, row = re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)
    assert "slices shuffled" in head
    assert re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) == ["si, fold 0", "2.50", "1", "0.750", "0.500"]
    assert 'href="#context"' in text


def test_every_class_has_box_plots(page_file):
    text = page_file.read_text(encoding="utf-8")
    assert text.count("Box plots of the Dice of ") == 1 + 4, "of every case, and of the phantom's four classes"


def test_the_page_is_one_small_file_that_asks_nobody(page_file):
    text = page_file.read_text(encoding="utf-8")
    assert page_file.stat().st_size < 15e6
    assert page_file.name == "report.html"
    assert not re.search(r'(?:src|href)="(?!data:|#)', text.partition("</main>")[0])
    assert "BSD 2-Clause" in text or "Redistribution and use" in text, "the viewer's licence"


def test_a_data_set_that_is_not_planned_says_what_to_do(three_folds, capsys):
    assert main(["report", "900", "--workspace", str(three_folds)]) == 2
    assert "seg25d plan_and_preprocess -d Dataset900" in capsys.readouterr().err


@pytest.mark.slow
def test_without_the_viewer_the_report_is_written_and_says_what_brings_it(workspace, monkeypatch, caplog):
    monkeypatch.setattr(niivue, "PACKAGE", "no-such-package")
    path = api.report(workspace, "900", workspace.raw.parent / "page.html", num_processes=0)
    text = path.read_text(encoding="utf-8")
    assert "Worst and best cases" in text
    assert not re.search("niivue|viewer", text.partition("</style>")[2], flags=re.IGNORECASE)
    (line,) = [record.getMessage() for record in caplog.records if "viewer" in record.getMessage()]
    assert "pip install 'seg25d[report]'" in line


def test_another_version_of_the_viewer_says_what_to_do(monkeypatch):
    monkeypatch.setattr(niivue, "_CODE", "no/such/file.js")
    with pytest.raises(InputError, match=r"lacks no/such/file\.js or its licence; run `pip install -U ipyniivue`"):
        niivue.find_niivue()


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(scheme):
    """Text has the contrast that WCAG 2.2 asks for (1.4.3: 4.5 to 1)."""
    blocks = re.findall(r":root \{(.*?)\}", CSS.read_text(encoding="utf-8"), flags=re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", blocks[scheme]))

    def luminance(name: str) -> float:
        parts = [int(colours[name][at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for text in ("ink", "soft", "accent"):
        for ground in ("paper", "panel", "chosen"):
            lighter, darker = sorted((luminance(text), luminance(ground)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, f"{text} on {ground}"
