"""What it costs to start: CPU of the child, and its memory. Run `python bench/startup.py`.

Every round starts all contenders in turn, so a busy machine slows them alike; figures are medians over 5 rounds of the
mean of 5 starts. CPU is user and system time of the child alone, as the kernel counts it. Goals:
`--version` and `--help` at most 2 x bare Python; `import agentkeel` at most 120 ms and 25 MB.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

ROUNDS, STARTS = 5, 5
SCRIPT = str(Path(sys.executable).parent / "agentkeel")
PEAK = "\nprint([l.split()[1] for l in open('/proc/self/status') if l[:6] == 'VmHWM:'][0])"

# Name -> the arguments of Python; the code that stands for them where memory is asked.
CONTENDERS: dict[str, tuple[list[str], str]] = {
    "bare Python": (["-c", "pass"], "pass"),
    "agentkeel --version": ([SCRIPT, "--version"], "import agentkeel.cli.entry as e; e.main(['--version'])"),
    "agentkeel --help": ([SCRIPT, "--help"], "import agentkeel.cli.entry as e; e.main(['--help'])"),
    "import agentkeel": (["-c", "import agentkeel"], "import agentkeel"),
    "agentkeel.open": (["-c", "import agentkeel; agentkeel.open"], "import agentkeel; agentkeel.open"),
    "agentkeel run --help": ([SCRIPT, "run", "--help"], "import agentkeel.cli.entry as e; e.main(['run', '--help'])"),
    "agentkeel run --shell true": (
        [SCRIPT, "run", "--store", "memory:", "--shell", "true"],
        "import agentkeel.cli.entry as e; e.main(['run', '--store', 'memory:', '--shell', 'true'])",
    ),
    "import asyncio": (["-c", "import asyncio"], "import asyncio"),
    "import cyclopts": (["-c", "import cyclopts"], "import cyclopts"),
}


def cpu(arguments: list[str]) -> float:
    """Milliseconds of CPU that one start takes."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, nowhere, number) for number in (0, 1)]
    child = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ, file_actions=actions)
    os.close(nowhere)
    _, status, usage = os.wait4(child, 0)
    assert status == 0, arguments
    return (usage.ru_utime + usage.ru_stime) * 1000


def peak(code: str) -> float:
    """Megabytes that a start has in memory at most."""
    done = subprocess.run([sys.executable, "-c", code + PEAK], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.splitlines()[-1]) / 1024


def main() -> None:
    """Print the table."""
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for number in range(ROUNDS + 1):
        for name, (arguments, _) in CONTENDERS.items():
            taken = statistics.mean(cpu(arguments) for _ in range(STARTS if number else 1))
            if number:  # The first round fills caches.
                times[name].append(taken)
    bare = statistics.median(times["bare Python"])
    print(f"{'start':<28} {'CPU ms':>8} {'of bare':>8} {'peak MB':>8}")
    for name, (_, code) in CONTENDERS.items():
        median = statistics.median(times[name])
        print(f"{name:<28} {median:>8.1f} {median / bare:>8.2f} {peak(code):>8.1f}")


if __name__ == "__main__":
    main()
