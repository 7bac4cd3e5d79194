"""Optimize random splices of the library's own patterns and compare each with its original under ORT_DISABLE_ALL.

    python scripts/splice.py [--count 2000] [--seed 0]

Exit code 1 when one differs; its seed is printed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import onnxruntime

from tests.splices import judge


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="graphs that run; others are skipped")
    parser.add_argument("--seed", type=int, default=0, help="of the first graph")
    arguments = parser.parse_args()
    onnxruntime.set_default_logger_severity(4)
    compared = skipped = loader = wrong = 0
    for seed in itertools.count(arguments.seed):
        if compared == arguments.count:
            break
        outcome = judge(seed)
        if outcome is None:
            skipped += 1
            continue
        compared += 1
        loader += outcome.loader
        if outcome.differs:
            wrong += 1
            print(outcome, flush=True)  # noqa: T201 - a program's result
    print(  # noqa: T201
        f"{compared} graphs compared from seed {arguments.seed}, {skipped} skipped, {wrong} differ; in {loader} more ONNX "
        "Runtime's loader spoils both the original and the optimized graph"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
