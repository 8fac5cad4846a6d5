"""Names that command a terminal are shown as escapes, wherever they are printed."""

import json
import logging
from pathlib import Path

import pytest

from seg25d.cli.common import complain, configure_logging, say
from seg25d.cli.main import main

NAME = "\x1b[31mgone\u202e"
SHOWN = "\\u001b[31mgone\\u202e"


def test_errors_of_commands_and_of_their_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "-i", str(tmp_path / NAME), "-o", str(tmp_path / "out"), "-m", str(tmp_path / NAME)]) == 2
    assert main([NAME]) == 2
    with pytest.raises(SystemExit):
        main(["predict", "--device", NAME])
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert SHOWN in shown


def test_results_messages_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a table\twith {NAME}\n")
    complain(f"two\nlines {NAME}")
    configure_logging(quiet=False, debug=False)
    logging.getLogger("seg25d").warning("careful: %s", NAME)
    shown = capsys.readouterr()
    assert shown.out == f"a table\twith {SHOWN}\n\n"
    assert f"two\nlines {SHOWN}" in shown.err
    assert f"careful: {SHOWN}" in shown.err
    say(json.dumps({"name": f"{NAME}\x7f"}, ensure_ascii=False))
    assert json.loads(capsys.readouterr().out) == {"name": f"{NAME}\x7f"}
