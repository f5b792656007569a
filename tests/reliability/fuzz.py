"""Fuzz the readers: ``PYTHONPATH=.:tests python tests/reliability/fuzz.py -n 200 --seed 0``.

Every outcome must be a result or an ``InputError``, within ``SECONDS`` and ``BYTES``; nothing may be written beside the
case's folder. It ends with 1 where that is not so, and keeps the files in ``-o``.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from mutation import mutated
from targets import TARGETS, Target

from liver_monai.errors import InputError, root_cause

SECONDS = 20
"""A reader that takes longer hangs."""
BYTES = 6 * 2**30
"""Address space beyond what the process has when it begins: what ``io.limits`` allows, and half as much again."""


def fuzz(name: str, *, n: int, seed: int, keep: Path) -> Counter[str]:
    """Outcomes of ``n`` broken files of a kind."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        whole.mkdir()
        files = [file.relative_to(whole) for file in TARGETS[name].write(whole)]
        TARGETS[name].read(whole)
        shutil.rmtree(whole / "out", ignore_errors=True)
        for index in range(n):
            rng = random.Random(f"{seed} {name} {index}")
            folder = Path(temporary) / "room" / "case"
            shutil.copytree(whole, folder)
            file = folder / rng.choice(files)
            file.write_bytes(mutated(file.read_bytes(), rng, name=file.name))
            outcome = run(TARGETS[name], folder)
            if [*folder.parent.iterdir()] != [folder]:
                outcome = "wrote outside"
            counts[outcome] += 1
            if outcome not in ("read", "refused"):
                sys.stderr.write(f"{name} {index}: {outcome}\n")
                shutil.copytree(folder, keep / f"{name} {index}", dirs_exist_ok=True)
            shutil.rmtree(folder.parent)
    return counts


def run(target: Target, folder: Path) -> str:
    """``read``, ``refused``, or what else happened."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        target.read(folder)
    except Exception as error:
        if isinstance(root_cause(error), InputError):
            return "refused"
        cause = root_cause(error)
        frames = traceback.extract_tb(cause.__traceback__ or error.__traceback__)
        last = [frame for frame in frames if "liver_monai" in frame.filename][-1:] or frames[-1:]
        return f"{type(cause).__name__}: {str(cause)[:150]!r} at {Path(last[0].filename).name}:{last[0].lineno}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=50, help="broken files a kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(TARGETS), action="append")
    parser.add_argument("-o", "--out", type=Path, default=Path("fuzz-failures"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    signal.signal(signal.SIGALRM, _hang)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + BYTES, held + BYTES))
    results = {}
    for name in options.only or TARGETS:
        started_s = time.monotonic()
        counts = fuzz(name, n=options.n, seed=options.seed, keep=options.out)
        failed = {what: count for what, count in counts.items() if what not in ("read", "refused")}
        seconds = round(time.monotonic() - started_s, 1)
        results[name] = {"read": counts["read"], "refused": counts["refused"], "failed": failed, "seconds": seconds}
        sys.stderr.write(f"{name}: {results[name]}\n")
    sys.stdout.write(json.dumps(results))
    sys.exit(1 if any(result["failed"] for result in results.values()) else 0)


def _hang(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


if __name__ == "__main__":
    main()
