"""A long campaign can be interrupted, and goes on: counts are those of whole rounds."""

import json
import random
from pathlib import Path

import pytest
from faults.attempts import Kind, Result

pytest.importorskip("resource", reason="only POSIX systems have it")
fault_campaign = pytest.importorskip("fault_campaign")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was tried of two kinds, `a`, of which every third attempt fails, and `b`."""
    tried: list[str] = []

    def kind(name: str) -> Kind:
        def attempt(rng: random.Random, _: Path, folder: Path) -> Result:
            number = len([each for each in tried if each == name])
            tried.append(name)
            (folder / "file").touch()
            if tried.count("b") == 3 and name == "b":
                raise KeyboardInterrupt
            return Result(name == "b" or number % 3 > 0, "odd" if number % 2 else "even")

        return Kind(name, lambda _: None, attempt)

    monkeypatch.setattr(fault_campaign, "KINDS", (kind("a"), kind("b")))
    return tried


def test_an_interrupted_campaign_has_a_table_and_goes_on_where_its_counts_end(
    tried: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = tmp_path / "counts.json"
    words = ["--folder", str(tmp_path / "folder"), "-o", str(counts), "--attempts", "5"]
    assert fault_campaign.main(words) == 1
    told = capsys.readouterr().out
    assert tried == ["a", "b"] * 3
    assert "interrupted\n" in told
    assert "a 3 1 1 even (failed), 1 odd, 1 even" in [" ".join(line.split()) for line in told.splitlines()]
    assert told.endswith("to go on: --first 2\n")
    whole = {"a": {"False: even": 1, "True: odd": 1}, "b": {"True: even": 1, "True: odd": 1}}
    assert json.loads(counts.read_text()) == {"seed": 24, "counts": whole}
    assert sorted(path.name for path in (tmp_path / "folder" / "failed").iterdir()) == ["a_0"]
    fault_campaign.main([*words, "--first", "2"])
    assert json.loads(counts.read_text())["counts"]["b"] == {"True: even": 3, "True: odd": 4}
    assert capsys.readouterr().out.endswith("to go on: --first 7\n")
    fault_campaign.main(["--folder", str(tmp_path / "folder"), "--hours", "1e-9"])
    assert capsys.readouterr().out.endswith("to go on: --first 0\n")


def test_counts_of_another_seed_are_not_added_to(tried: list[str], tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    counts.write_text('{"seed": 1, "counts": {}}')
    with pytest.raises(SystemExit, match="has counts of seed 1, not 2; name another file"):
        fault_campaign.main(["--seed", "2", "--first", "3", "--attempts", "1", "-o", str(counts)])
    assert tried == []
