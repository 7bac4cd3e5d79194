"""Write the README's table of supported families: what each fuses into, from both exporters, and what becomes of padding.

    python scripts/family_table.py

A tiny random checkpoint of each family (``tests/families.py``) is exported, optimized with ``--require all``, compared with
transformers and quantized. A family that fails any of it ends the script. ``scripts/coverage.py`` writes the table of versions.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402

from onnxfuse import catalog  # noqa: E402
from onnxfuse.cli import tables  # noqa: E402
from onnxfuse.config import ExportConfig, OptimizeConfig, QuantizeConfig  # noqa: E402
from onnxfuse.pipeline.export import export  # noqa: E402
from onnxfuse.pipeline.optimize import Optimized, optimize  # noqa: E402
from onnxfuse.pipeline.quantize import quantize  # noqa: E402
from onnxfuse.runtime import open_runner  # noqa: E402
from onnxfuse.verify import parity  # noqa: E402
from onnxfuse.verify.expected import expect  # noqa: E402
from onnxfuse.verify.grid import grid  # noqa: E402
from tests.families import TINY, tiny  # noqa: E402

BEGIN, END = "<!-- families: written by scripts/family_table.py -->", "<!-- end of families -->"
EXPORTERS = ("dynamo", "torchscript")
REASONS = {
    "removed": "removed",
    "attention has no mask": "none",
}
"""What an optimized model says of padding, and the table's words for it."""


def measured(family: str, exporter: str, folder: Path) -> tuple[Optimized, float]:
    """A tiny checkpoint's optimized model, and its largest difference from transformers. Raises OnnxfuseError."""
    tiny(family).save_pretrained(folder / "checkpoint")
    exported = export(ExportConfig(str(folder / "checkpoint"), folder / exporter, exporter=exporter))
    optimized = optimize(OptimizeConfig(exported.path, folder / f"{exporter}.onnx", require=("all",)))
    quantize(QuantizeConfig(optimized.path, folder / f"{exporter}_int8.onnx"))
    expected = expect(exported.original, grid(exported.model.inputs))
    result = parity.compare(expected, open_runner(optimized.path), "reassociate").require(f"{family} differs from transformers")
    return optimized, result.error


def row(family: str, folder: Path) -> str:
    """A family's line of the table."""
    made = [measured(family, exporter, folder) for exporter in EXPORTERS]
    fused = list(dict.fromkeys(tables.fused_text(step.fused, step.expected) for step, _ in made))
    padding = list(dict.fromkeys(_padding(str(step.padding)) for step, _ in made))
    known = catalog.architecture(family)
    cells = [
        f"`{family}`",
        next(iter(known.checkpoints)),
        ", ".join(f"({name})" if name in known.needs else name for name in known.inputs),
        "; ".join(fused).replace("layer_norm", "norm"),
        "; ".join(padding),
        f"{max(error for _, error in made):.1e}",
    ]
    return f"| {' | '.join(cells)} |"


def _padding(said: str) -> str:
    return next(words for reason, words in REASONS.items() if said.endswith(reason))


def main() -> None:
    warnings.simplefilter("ignore")
    log = Console(stderr=True)
    lines = [
        "| family (`--model-type`) | such as | inputs | fused in two layers and a head | padding | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    for family in sorted(TINY):
        with tempfile.TemporaryDirectory() as folder:
            lines.append(row(family, Path(folder)))
        log.print(lines[-1], highlight=False, soft_wrap=True)
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    table = "\n".join(lines)
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
