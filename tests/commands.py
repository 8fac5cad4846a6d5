"""Commands as users give them, in the process of the tests."""

from seg25d.cli.main import main
from seg25d.core.workspace import Workspace

IN_THIS_PROCESS = ["--num-processes", "0", "--device", "cpu"]


def run(workspace: Workspace, *words: str, status: int = 0) -> None:
    """Run a command in a workspace on the CPU, and check how it ends."""
    assert main([*words, "--workspace", str(workspace.raw.parent), *IN_THIS_PROCESS]) == status
