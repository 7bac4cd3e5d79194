"""One process of ``scripts/fuzz.py``: atheris on one part, until its time is over or an input ends the process.

python scripts/fuzz_child.py PART FINDINGS [libFuzzer's options] [CORPUS ...]
python scripts/fuzz_child.py --replay build/fuzz/findings/PART/FILE
"""

from __future__ import annotations

import logging
import random
import re
import shutil
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SEEDS = 0.3
"""How often a mutation starts at random bytes of libFuzzer's instead of a part's own."""


def main() -> int:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    if sys.argv[1] == "--replay":
        return _replay(Path(sys.argv[2]))
    import atheris

    with atheris.instrument_imports(include=["onnxfuse"]):
        import onnxruntime

        from onnxfuse import catalog
        from tests.fuzz import parts

        catalog.fusions()  # imported when first asked for
        catalog.families()
    onnxruntime.set_default_logger_severity(4)
    name, findings = sys.argv[1], Path(sys.argv[2])
    part, corpus = parts.PARTS[name], Path(next(word for word in sys.argv[3:] if not word.startswith("-")))
    for number, seed in enumerate(part.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    folder = Path(tempfile.mkdtemp(prefix="onnxfuse-fuzz-"))

    def one(content: bytes) -> None:
        if (error := parts.find(name, content, _emptied(folder))) is not None:
            _keep(findings, content, error)

    def mutated(content: bytes, longest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if part.mutate is None or chance.random() < SEEDS:
            return atheris.Mutate(content, longest)
        return part.mutate(content, chance)[:longest]

    own = {"custom_mutator": mutated} if part.mutate else {}
    atheris.Setup([sys.argv[0], *sys.argv[3:]], one, **own)
    atheris.Fuzz()
    return 0


def _replay(path: Path) -> int:
    from tests.fuzz import parts

    with tempfile.TemporaryDirectory() as folder:
        error = parts.find(path.parent.name, path.read_bytes(), Path(folder))
    print("nothing is found" if error is None else "".join(traceback.format_exception(error)))  # noqa: T201
    return 0 if error is None else 1


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _keep(findings: Path, content: bytes, error: Exception) -> None:
    """Keep an input under the place that raised, unless a shorter one is there."""
    path = findings / _place(error)
    if not path.exists() or len(content) < path.stat().st_size:
        path.write_bytes(content)
        path.with_name(f"{path.name}.log").write_text("".join(traceback.format_exception(error)))


def _place(error: Exception) -> str:
    """The error's type, and the innermost line of ours that it went through; for one that is ours, its first words too."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if f"{ROOT}/onnxfuse" in frame.filename]
    last = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    words = re.sub(r"[^a-z]+", "-", str(error).lower())[:30] if type(error).__module__.startswith("onnxfuse") else ""
    return f"{type(error).__name__}-{Path(last.filename).stem}-{last.name}-{last.lineno}{words and '-' + words}"


if __name__ == "__main__":
    sys.exit(main())
