"""The fuzz targets over their corpus and over seeded mutations of it: what fuzzing holds to, in the ordinary tests.

Needs no atheris. A new way to break a parser is looked for by `fuzz/run.py`; this keeps the old ones from coming back.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
sys.path.insert(0, str(FUZZ))

from make_corpus import all_seeds, file_name  # noqa: E402 - the folder is no package of ours
from targets import TARGETS  # noqa: E402
from targets.base import Target, TooSlowError, check  # noqa: E402

from p2pnode.core.errors import BadPacket  # noqa: E402

MUTATIONS = 300


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((FUZZ / "corpus" / name).iterdir())]


def mutated(rng: random.Random, inputs: list[bytes], max_bytes: int) -> bytes:
    """One input after one to four changes: bits, bytes, cuts, repeats, another input's middle, interesting numbers."""
    data = bytearray(rng.choice(inputs))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
        elif kind == 2:
            del data[at : at + rng.randint(1, 16)]
        elif kind == 3:
            data[at:at] = data[at : at + rng.randint(1, 64)] * rng.randint(1, 4)
        elif kind == 4:
            other = rng.choice(inputs)
            start = rng.randrange(len(other) + 1)
            data[at : at + rng.randint(0, 32)] = other[start : start + rng.randint(0, 64)]
        else:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice((0, 1, 0x7F, 0x80, (1 << 8 * width) - 1, 1 << (8 * width - 1))) % (1 << 8 * width)
            data[at : at + width] = number.to_bytes(width, "big")
    return bytes(data[:max_bytes])


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_and_mutations_hold(name: str) -> None:
    """Each stored input, and seeded mutations of them: a message that reads and writes the same, or the documented
    error, in bounded processor time; nothing else."""
    target, inputs = TARGETS[name], corpus(name)
    stored = [check(target, data) for data in inputs]
    assert any(stored), "no input of the corpus is a valid message"
    rng = random.Random(name)
    accepted = 0
    for number in range(MUTATIONS):
        data = mutated(rng, inputs, target.max_bytes)
        try:
            accepted += check(target, data)
        except BaseException:
            print(f"mutation {number}: {data.hex()}")
            raise
    print(f"{name}: {len(inputs)} inputs, {MUTATIONS} mutations, {accepted} of them accepted")


def test_corpus_holds_what_the_vectors_give() -> None:
    """Every vector's seed is stored, so a wire format that changed is fuzzed in its new form; no target lacks seeds."""
    seeds = all_seeds()
    assert set(seeds) == set(TARGETS) == {path.name for path in (FUZZ / "corpus").iterdir()}
    missing = [
        f"{name}/{file_name(data)}"
        for name, inputs in seeds.items()
        for data in inputs
        if not (FUZZ / "corpus" / name / file_name(data)).is_file()
    ]
    assert not missing, "run fuzz/make_corpus.py"


def test_harness_notices_errors_broken_round_trips_and_slowness() -> None:
    """The guard itself: only `read` may raise, only its documented error, and not for long."""

    def refuse(_data: bytes, *_: object) -> None:
        raise BadPacket("no")

    def spin(_data: bytes) -> None:
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass

    def index_error(data: bytes) -> int:
        return data[5]

    assert check(Target("fine", bytes), b"x")
    assert not check(Target("refuses", refuse), b"x")
    with pytest.raises(IndexError):
        check(Target("raises", index_error), b"x")
    with pytest.raises(AssertionError, match="cannot be written"):
        check(Target("no round trip", bytes, refuse), b"x")
    with pytest.raises(TooSlowError):
        check(Target("slow", spin, cpu_s=0.005), b"x")
