"""Commands in processes that are forked from one that has imported the libraries, for tests that run many of them."""

import os
import runpy
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fer.sweeps.fork_server import ForkServer


class Commands:
    """Runs ``python -m`` command lines, each in a process of its own.

    Args:
        scratch: folder for the outputs.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self._server = ForkServer(environment, "forked")

    def run(self, module: str, arguments: Sequence[str], variables: Mapping[str, str]) -> tuple[int, str]:
        """Return the exit code and the output, errors included, of a module in the current folder.

        Args:
            module: its name.
            arguments: of its command line.
            variables: of the environment, to add.
        """
        file = self._scratch / "output"
        with open(file, "wb") as output:
            process = self._server.start([os.getcwd(), module, *arguments], variables, output)
        while (code := process.poll()) is None:
            time.sleep(0.02)
        return code, file.read_text(errors="replace")

    def close(self) -> None:
        """End the process that the others are forked from."""
        self._server.close()


def main() -> None:
    """Run the module that the command line names after the folder to run in."""
    folder, module, *arguments = sys.argv[1:]
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
