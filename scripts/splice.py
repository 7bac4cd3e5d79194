"""Optimize thousands of splices of the library's own patterns and compare each with its original under ORT_DISABLE_ALL.

    python scripts/splice.py [--count 2000] [--seed 0]

Exit code 1 when one differs; hypothesis then prints the smallest that does.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import hypothesis
import onnxruntime
from hypothesis import strategies as st

from onnxfuse.targets import NAMES
from tests.rewrite.splices import Splice, judge, splices


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="graphs that run; others are skipped")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    arguments = parser.parse_args()
    onnxruntime.set_default_logger_severity(4)
    count: Counter[str] = Counter()

    @hypothesis.seed(arguments.seed)
    @hypothesis.settings(
        max_examples=arguments.count, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(splice=splices(), target=st.sampled_from(NAMES))
    def compare(splice: Splice, target: str) -> None:
        outcome = judge(splice, target)
        count["skipped" if outcome is None else "compared"] += 1
        hypothesis.assume(outcome is not None)
        assert outcome is not None
        count["loader"] += outcome.loader
        assert not outcome.differs, f"for target {target}, {', '.join(outcome.differs)} differs"

    try:
        compare()
    except AssertionError as error:
        print(error, *getattr(error, "__notes__", ()), sep="\n")  # noqa: T201 - a program's result
        return 1
    print(  # noqa: T201
        f"{count['compared']} graphs compared from seed {arguments.seed}, {count['skipped']} skipped, none differs; in "
        f"{count['loader']} more ONNX Runtime's loader spoils both the original and the optimized graph"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
