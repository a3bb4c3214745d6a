"""How fast lines of a child reach us: asyncio's readline, our reader, and blocking reads with a split.

Run `python bench/reader.py`. Each round runs all contenders in turn, so a busy machine slows them alike; the figures
are medians over the rounds. Goal: ours >= 0.8 of blocking read and split.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from agentkeel.adapters.providers._wire.lines import LongLine, Splitter
from agentkeel.adapters.providers._wire.process import Process

MIB = 1 << 20
ROUNDS = 5

Reading = tuple[int, float]  # Lines read, and seconds from the child's start to the end of its output.
Contender = Callable[[Path], Awaitable[Reading]]


async def blocking(source: Path) -> Reading:
    """The bar: one thread that does nothing else, and joins the pieces of a long line once."""
    count = 0
    pieces: list[bytes] = []
    with subprocess.Popen(["cat", str(source)], stdout=subprocess.PIPE, bufsize=0) as child:
        start = time.perf_counter()
        assert child.stdout is not None
        while chunk := child.stdout.read(MIB):
            lines = chunk.split(b"\n")
            if len(lines) > 1:
                lines[0] = b"".join([*pieces, lines[0]])
                pieces.clear()
            pieces.append(lines.pop())
            count += len(lines)
        seconds = time.perf_counter() - start
    return count, seconds


async def asyncio_readline(source: Path) -> Reading:
    """What most programs do, with the limit raised so that it does not break."""
    child = await asyncio.create_subprocess_exec("cat", str(source), stdout=subprocess.PIPE, limit=128 * MIB)
    start = time.perf_counter()
    assert child.stdout is not None
    count = 0
    while await child.stdout.readline():
        count += 1
    seconds = time.perf_counter() - start
    await child.wait()
    return count, seconds


async def ours(source: Path) -> Reading:
    """The whole of `Process`, with all its promises; lines above 1 MiB go through a file."""
    count = 0
    async with Process.start(["cat", str(source)], cwd=source.parent, env=dict(os.environ)) as process:
        start = time.perf_counter()
        while lines := await process.next_lines():
            count += len(lines)
            for line in lines if isinstance(lines[0], LongLine) else ():
                if isinstance(line, LongLine):
                    line.close()
        seconds = time.perf_counter() - start
    return count, seconds


CONTENDERS: dict[str, Contender] = {
    "asyncio readline": asyncio_readline,
    "ours": ours,
    "blocking": blocking,
}


def splitting(chunk: bytes, split: Callable[[bytes], object]) -> float:
    """Best of 20: seconds for one chunk."""
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        split(chunk)
        best = min(best, time.perf_counter() - start)
    return best


def measure(contender: Contender, source: Path, expected: int) -> float:
    """Seconds that one contender takes for all lines of `source`."""
    count, seconds = asyncio.run(contender(source))  # type: ignore[arg-type]
    assert count == expected, (contender, count, expected)
    return seconds


def main(size: int) -> None:
    """Print the tables."""
    print(f"{'line':>10} {'contender':<18} {'MB/s':>8} {'of blocking':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for length in (100, 196, 4_096, 400_000, 8 * MIB):
            source = Path(folder) / "lines"
            count = max(1, size // (length + 1))
            source.write_bytes((b"x" * length + b"\n") * count)
            times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
            for _ in range(ROUNDS):
                for name, contender in CONTENDERS.items():
                    times[name].append(measure(contender, source, count))
            bar = statistics.median(times["blocking"])
            for name, taken in times.items():
                median = statistics.median(taken)
                speed = count * (length + 1) / median / 1e6
                print(f"{length:>10} {name:<18} {speed:>8.0f} {bar / median:>12.2f}")
    print(f"\n{'1 MiB of lines of':>18} {'splitter, of bytes.split':>26}")
    for length in (20, 100, 196, 4_096):
        chunk = (b"x" * length + b"\n") * (MIB // (length + 1))
        splitter = Splitter()
        ratios = [
            splitting(chunk, lambda data: data.split(b"\n")) / splitting(chunk, splitter.feed) for _ in range(ROUNDS)
        ]
        print(f"{length:>18} {statistics.median(ratios):>26.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 64 * MIB)
