"""``python -m onnxfuse`` and the command ``onnxfuse`` are the command line."""

from __future__ import annotations

import sys
from typing import NoReturn

from onnxfuse.errors import INTERRUPTED, TERMINATED
from onnxfuse.io import signals


def run() -> NoReturn:
    """The command line; Ctrl-C and SIGTERM end it in one line while it is still being imported, too."""
    signals.end_on_sigterm()
    try:
        from onnxfuse.cli.app import main

        main()
    except KeyboardInterrupt:
        ended, code = ("terminated", TERMINATED) if signals.was_terminated() else ("interrupted", INTERRUPTED)
        sys.stderr.write(f"onnxfuse: {ended}; no file is half-written; nothing was saved\n")
        raise SystemExit(code) from None


if __name__ == "__main__":
    run()
