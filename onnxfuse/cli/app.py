"""The command line: its verbs, and how it ends.

Exit codes: 0 done, 2 usage, 3 unsafe or broken model, 4 export, 5 parity, 6 requirement not met, 7 missing extra, 8 reading or
writing, 9 bad rows, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
"""

from __future__ import annotations

import sys
import traceback
from typing import Any, NoReturn

import typer

from onnxfuse.cli import chain, ci, console, health, judge, make, options, scale, share, study
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
    study.profile,
    judge.evaluate,
    study.view,
    study.diff,
    study.report,
    scale.map,
    make.package,
    share.push,
    chain.run,
    health.doctor,
)
"""In the order of --help."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb in VERBS:
    app.command(epilog=options.epilog(_verb))(_verb)


@app.callback()
def everywhere(version: options.Version = False, quiet: options.Quiet = False, debug: options.Debug = False) -> None:
    """From a Hugging Face encoder to the fastest ONNX model for this machine."""


RENAMED = {"--clip-safe": "--reduce-range", "--no-clip-safe": "--no-reduce-range", "--form": "--format"}
"""What options of earlier versions are called now."""


EVERYWHERE = ("--debug", "--quiet", "-q")
"""Options that stand anywhere on the line."""


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    given = {argument for argument in sys.argv[1:] if argument in EVERYWHERE}
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument not in EVERYWHERE]
    debug = "--debug" in given
    console.begin(quiet=bool(given & {"--quiet", "-q"}))
    signals.end_on_sigterm()
    atomic.WRITTEN.clear()
    try:
        _require_texts(sys.argv[1:])
        code = app(standalone_mode=False, prog_name="onnxfuse")
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        code = _fail("Interrupted", _interrupted(), INTERRUPTED, debug=debug)
    except OnnxfuseError as error:
        code = _fail(type(error).__name__, str(error), error.exit_code, debug=debug)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _fail("StorageError", f"{where}{error.strerror or one_line(error)}", StorageError.exit_code, debug=debug)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own usage errors have it
            if "--json" in sys.argv:
                console.show_error(type(error).__name__, one_line(error), 1)
            raise
        code = UsageError.exit_code
        if sys.argv[1:]:
            _fail("UsageError", _usage(error), code, debug=debug)
        else:  # a command is missing, and its text is the help
            sys.stderr.write(f"{error.format_message()}\n")
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


def _fail(kind: str, message: str, code: int, *, debug: bool) -> int:
    """Say what went wrong: a line on stderr and, where --json stands on the line, JSON on stdout. Returns the exit code."""
    if debug:
        traceback.print_exc()
    line = " ".join(message.split())
    console.err.print(f"onnxfuse: {line}", markup=False, highlight=False, soft_wrap=True)
    ci.annotate(line)
    if "--json" in sys.argv:
        console.show_error(kind, line, code)
    return code


if __name__ == "__main__":
    main()
