"""The console script. `--version`, `--help` and no argument at all are answered without importing the program.

Goal: these two cost at most twice a bare Python.
"""

import os.path
import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """What the arguments ask for was done; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words in (["--version"], ["-V"]):
        from agentkeel._version import __version__

        return _answer(f"agentkeel {__version__}\n")
    if words in ([], ["--help"], ["-h"], ["help"]):
        place = os.path.join(os.path.dirname(__file__), "help.txt")  # noqa: PTH118, PTH120 - pathlib costs 4 ms
        with open(place, encoding="utf-8") as page:  # noqa: PTH123
            return _answer(page.read())
    from agentkeel.cli.app import dispatch

    return dispatch(words)


def _answer(text: str) -> int:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has what it wanted. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
