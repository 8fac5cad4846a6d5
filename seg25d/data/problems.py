"""Problems of a data set, collected and reported together."""

from collections.abc import Sequence
from pathlib import Path

from seg25d.core.errors import DatasetError, ImageError
from seg25d.core.records import Record

MAX_LISTED = 5
"""Names in a message."""


class Problem(Record):
    """One thing that is wrong with a data set.

    Attributes:
        case: The case, or a file of the whole data set (`dataset.json`).
        problem: What was expected and what was found.
        cure: What to do.
    """

    case: str
    problem: str
    cure: str


def file_problem(name: str, problem: str) -> Problem:
    """A problem with a file of the whole data set."""
    return Problem(case=name, problem=problem, cure=f"correct {name}")


def first_names(names: Sequence[str]) -> str:
    """The first names, and how many there are besides."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{', '.join(names[:MAX_LISTED])}{more}"


def raise_problems(problems: Sequence[Problem], dataset_name: str) -> None:
    """Raise one error with a table of all problems; do nothing when there are none.

    Raises:
        DatasetError: If there is any problem.
    """
    if problems:
        noun = "problem" if len(problems) == 1 else "problems"
        raise DatasetError(f"{dataset_name} has {len(problems)} {noun}:\n{problem_table(problems)}")


def problem_table(problems: Sequence[Problem]) -> str:
    """A plain-text table, case | problem | cure, with one line per problem."""
    rows = [("case", "problem", "cure"), *((item.case, item.problem, item.cure) for item in problems)]
    rows = [(case, " ".join(problem.split()), " ".join(cure.split())) for case, problem, cure in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    widths[1] = min(widths[1], 70)
    return "\n".join(f"{row[0]:{widths[0]}} | {row[1]:{widths[1]}} | {row[2]}" for row in rows)


class FileError(ImageError):
    """An image file that cannot be used, with problem and cure as separate fields for a table.

    Args:
        path: The file.
        problem: What was expected and what was found.
        cure: What to do.
    """

    def __init__(self, path: Path, problem: str, cure: str) -> None:
        self.path, self.problem, self.cure = path, problem, cure
        super().__init__(path, problem, cure)  # all arguments, so that the error can be pickled

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {self.cure}"
