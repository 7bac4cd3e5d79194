"""The command line: its verbs, and how it ends.

Exit codes: 0 done, 2 usage, 3 unsafe or broken model, 4 export, 5 parity, 6 requirement not met, 7 missing extra, 8 reading or
writing, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
"""

from __future__ import annotations

import sys
import traceback
from typing import Any, NoReturn

import typer

from onnxfuse.cli import console, judge, make, study
from onnxfuse.errors import INTERRUPTED, TERMINATED, OnnxfuseError, StorageError, UsageError, one_line
from onnxfuse.io import atomic, signals

VERBS = (
    make.export,
    make.optimize,
    study.explain,
    make.quantize,
    judge.check,
    judge.benchmark,
    study.tune,
    study.ablate,
    judge.evaluate,
    study.view,
    make.package,
    make.run,
)
"""In the order of --help."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="From a Hugging Face encoder to the fastest ONNX model for this machine.",
)
for _verb in VERBS:
    app.command()(_verb)


RENAMED = {"--clip-safe": "--reduce-range", "--no-clip-safe": "--no-reduce-range", "--form": "--format"}
"""What options of earlier versions are called now."""


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    if not sys.argv[1:]:
        sys.argv.append("--help")
    signals.end_on_sigterm()
    atomic.WRITTEN.clear()
    try:
        _require_texts(sys.argv[1:])
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        code = _fail(_interrupted(), INTERRUPTED, debug=debug)
    except OnnxfuseError as error:
        code = _fail(str(error), error.exit_code, debug=debug)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _fail(f"{where}{error.strerror or one_line(error)}", StorageError.exit_code, debug=debug)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own usage errors have it
            raise
        code = _fail(_usage(error), UsageError.exit_code, debug=debug)
    sys.stdout.flush()
    raise SystemExit(TERMINATED if code == INTERRUPTED and signals.was_terminated() else code or 0)


def _require_texts(arguments: list[str]) -> None:
    """Refuse empty texts: as a path, one would be the current folder. Raises UsageError."""
    before = None
    for argument in arguments:
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            after = argument.rstrip("=") or (before if before and before.startswith("-") else None)
            raise UsageError(
                f"an argument is an empty text{f', after {after}' if after else ''}; give it a value, or leave it out"
            )
        before = argument


def _interrupted() -> str:
    """What to say after Ctrl-C or SIGTERM: what has been saved, and that the rest left nothing."""
    saved = ", ".join(str(path) for path in dict.fromkeys(atomic.WRITTEN))
    what = f"saved before that: {saved}" if saved else "nothing was saved"
    return f"{'terminated' if signals.was_terminated() else 'interrupted'}; no file is half-written; {what}"


def _usage(error: Any) -> str:
    """What click's usage error says, and the next step: an option's new name, or where all of them stand."""
    old, verb = str(getattr(error, "option_name", "")), error.ctx
    there = {name for each in verb.command.params for name in (*each.opts, *each.secondary_opts)} if verb else set()
    if RENAMED.get(old) in there:
        return f"{old} is called {RENAMED[old]} now"
    said, name = error.format_message().rstrip("."), f"onnxfuse {verb.info_name}" if verb and verb.parent else "onnxfuse"
    return f"{said}{' See' if said.endswith('?') else '; see'}: {name} --help"


def _fail(message: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    console.err.print(f"onnxfuse: {' '.join(message.split())}", markup=False, highlight=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    main()
