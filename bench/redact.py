"""How fast secrets are found and replaced: `python bench/redact.py`.

Three ways over the same patterns, in one process, rounds interleaved, medians: each expression searched one by one
with `re` (= 1.0), our gated build on the standard library alone, and ours with google-re2. Goals at 2 kB and more:
40 MB/s stdlib, 100 MB/s with re2, clean or hit.
"""

import argparse
import random
import re
import statistics
import time
from collections.abc import Callable

from agentkeel.core.redact import DEFAULT, PLAIN, Redactor

SENTENCES = (
    "the task of this session is to run code and print self return def import value for item in list str none true",
    "path file test error with open name args key data token class async await message stream risk ask though high",
)
WORDS = [word for sentence in SENTENCES for word in sentence.split()]
JOINS = [" "] * 8 + ["_", ", ", ".\n", " = ", ": ", "-", "/", "()", '"']


def text(size: int, secret: bool, seed: int) -> str:
    draw = random.Random(seed)
    parts: list[str] = []
    length = 0
    while length < size:
        parts += (draw.choice(WORDS), draw.choice(JOINS))
        length += len(parts[-1]) + len(parts[-2])
    whole = "".join(parts)[:size]
    if secret:
        fake = " ghp_" + "aB3d" * 9 + " "
        middle = size // 2
        whole = whole[:middle] + fake + whole[middle + len(fake) :]
    return whole


def one_by_one() -> Callable[[str], str]:
    compiled = [re.compile(pattern.regex) for pattern in DEFAULT]

    def redact(given: str) -> str:
        for expression in compiled:
            given = expression.sub(PLAIN, given)
        return given

    return redact


def seconds(call: Callable[[str], object], texts: list[str]) -> float:
    begin = time.perf_counter()
    for each in texts:
        call(each)
    return time.perf_counter() - begin


def table(title: str, ways: dict[str, Callable[[str], object]], cases: dict[str, list[str]], rounds: int) -> None:
    print(f"\n{title}")
    print(f"{'case':<18}" + "".join(f"{way:>28}" for way in ways))
    for case, texts in cases.items():
        total = sum(len(each.encode()) for each in texts)
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, call in ways.items():
                taken[way].append(seconds(call, texts))
        medians = {way: statistics.median(each) for way, each in taken.items()}
        base = medians[next(iter(ways))]
        cells = (
            f"{base / median:>8.1f}x {total / median / 1e6:>8.1f} MB/s {median / len(texts) * 1e6:>6.1f}us"
            for median in medians.values()
        )
        print(f"{case:<18}" + "".join(f"{cell:>28}" for cell in cells))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    cases = {
        f"{size} B {'one secret' if secret else 'clean'}": [
            text(size, secret, seed) for seed in range(max(4, 200_000 // size))
        ]
        for size in (200, 2_000, 20_000)
        for secret in (False, True)
    }
    stdlib, fast = Redactor(accelerate=False), Redactor()
    table(
        "Redactor.text", {"re one by one": one_by_one(), "gated stdlib": stdlib.text, "re2": fast.text}, cases, rounds
    )
    as_bytes = {case: texts for case, texts in cases.items() if "clean" in case}
    table(
        "Redactor.clean, over UTF-8 bytes (the gate of the pipeline)",
        {
            "re one by one": one_by_one(),
            "gated stdlib": lambda each: stdlib.clean(each.encode()),
            "re2": lambda each: fast.clean(each.encode()),
        },
        as_bytes,
        rounds,
    )

    def streamed(redactor: Redactor) -> Callable[[str], object]:
        def run(given: str) -> None:
            stream = redactor.stream()
            for at in range(0, len(given), 20):
                stream.feed(given[at : at + 20])
            stream.flush()

        return run

    table(
        "StreamRedactor.feed, 20 characters at a time (time per whole text)",
        {"re one by one": one_by_one(), "gated stdlib": streamed(stdlib), "re2": streamed(fast)},
        {case: texts[:100] for case, texts in cases.items()},
        rounds,
    )


if __name__ == "__main__":
    main()
