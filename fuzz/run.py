"""Run the fuzz targets, one after another, each in a process of its own with its share of the time.

    uv run --group fuzz python fuzz/run.py --seconds 240
    uv run --group fuzz python fuzz/run.py --seconds 3600 --target dht_node
    uv run --group fuzz python fuzz/run.py --runs 10000000 --target stun

Prints executions and coverage per target and ends with `N passed, N failed`. What crashed is kept outside the tree, in
a folder that is named; `--target NAME --input FILE` runs such a file again. libFuzzer (in atheris) does the work: it
sees which branches of our Python an input reaches, and goes on from inputs that reach new ones.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from targets.base import Target  # nothing of ours may be imported before `_load` does it

FUZZ = Path(__file__).resolve().parent
CORPUS = FUZZ / "corpus"

# Chosen by us.
MIN_SECONDS = 1
GRACE_S = 60.0  # beyond its share, before a target counts as hanging
INPUT_TIMEOUT_S = 10  # of one input, on the wall clock; `targets.base` judges by processor time, far earlier
MEMORY_MB = 1_024
INSTRUMENTED = ["p2pnode", "aioice", "qh3"]  # whose branches guide the search


def main() -> int:
    """Return 0 when every target passed."""
    options = _options()
    deadline = time.monotonic() + options.seconds
    try:
        targets = _load()
    except ModuleNotFoundError as exc:
        if exc.name != "atheris":
            raise
        print(
            "atheris is missing: uv run --group fuzz python fuzz/run.py (atheris 3.1.0: Python 3.12 to 3.14)",
            file=sys.stderr,
        )
        return 2
    if options.target and options.target not in targets:
        print(f"There is no target {options.target}; there are: {', '.join(targets)}", file=sys.stderr)
        return 2
    if options.input:
        from targets.base import check

        check(targets[options.target], options.input.read_bytes())
        return 0
    chosen = [targets[options.target]] if options.target else list(targets.values())
    return _run_all(chosen, options, deadline)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz every parser of network bytes.")
    parser.add_argument("--seconds", type=float, default=240.0, help="for all targets together")
    parser.add_argument("--runs", type=int, default=0, help="stop a target after so many inputs, if time allows")
    parser.add_argument("--target", default="", help="only this one")
    parser.add_argument("--input", type=Path, help="run one file through --target")
    parser.add_argument("--keep", type=Path, help="keep what was found here, and begin from it the next time")
    options = parser.parse_args()
    if options.input and not options.target:
        parser.error("--input needs --target")
    return options


def _load() -> dict[str, Target]:
    """Import everything, instrumented: some seconds, which the processes of all targets share, being forks of us."""
    import atheris

    logging.disable(logging.CRITICAL)
    said = io.StringIO()  # a line per module
    with contextlib.redirect_stderr(said), atheris.instrument_imports(include=INSTRUMENTED):
        from targets import TARGETS
        from targets.base import check

        for target in TARGETS.values():
            for seed in sorted((CORPUS / target.name).iterdir()):
                check(target, seed.read_bytes())  # what is imported at first use is imported now
    return TARGETS


def _run_all(targets: list[Target], options: argparse.Namespace, deadline: float) -> int:
    folder = options.keep or Path(tempfile.mkdtemp(prefix="p2pnode-fuzz-"))
    failed = []
    print(f"{'target':16} {'executions':>11} {'per second':>11} {'coverage':>9} {'seconds':>8}")
    for number, target in enumerate(targets):
        share = (deadline - time.monotonic()) / (len(targets) - number)
        # libFuzzer counts whole seconds and stops in the one after the last
        if not _run_one(target, folder, max(MIN_SECONDS, int(share) - 1), options.runs):
            failed.append(target.name)
    if failed:
        print(f"Failed: {', '.join(failed)}; the inputs are in {folder}")
    elif options.keep is None:
        shutil.rmtree(folder)
    print(f"{len(targets) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def _run_one(target: Target, folder: Path, seconds: int, runs: int) -> bool:
    """Fuzz one target in a process of its own; print its line, and the end of its output when it failed."""
    found, crashes, log = folder / "corpus" / target.name, folder / "crashes", folder / f"{target.name}.log"
    found.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(exist_ok=True)
    arguments = [
        str(found), str(CORPUS / target.name), f"-max_total_time={seconds}", f"-max_len={target.max_bytes}",
        f"-timeout={INPUT_TIMEOUT_S}", f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={crashes / target.name}-",
        "-print_final_stats=1", "-len_control=0", *([f"-runs={runs}"] if runs else []),
    ]  # fmt: skip
    started = time.monotonic()
    process = multiprocessing.get_context("fork").Process(target=_be_child, args=(target, arguments, log))
    process.start()
    process.join(seconds + GRACE_S)
    if hangs := process.is_alive():
        process.kill()
        process.join()
    took = time.monotonic() - started
    output = log.read_text(errors="replace")
    executions = _last(r"stat::number_of_executed_units: (\d+)", output)
    coverage = _last(r"cov: (\d+)", output)
    print(f"{target.name:16} {executions:11} {executions / took:11.0f} {coverage:9} {took:8.1f}", flush=True)
    if process.exitcode == 0 and executions:
        return True
    print("\n".join(output.splitlines()[-60:]), f"{target.name} hangs" if hangs else "", sep="\n", flush=True)
    return False


def _last(pattern: str, output: str) -> int:
    found = re.findall(pattern, output)
    return int(found[-1]) if found else 0


def _be_child(target: Target, arguments: list[str], log: Path) -> None:
    import atheris
    from targets.base import check

    with log.open("wb") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    atheris.Setup([sys.argv[0], *arguments], lambda data: check(target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
