"""Write docs/coverage.md's table: what fuses in every exporter's graphs, and whether it still computes what it came from does.

    python scripts/coverage.py                       measure here, and with transformers 4.57 and TensorFlow if their environments
                                                     are there
    python scripts/coverage.py --rows FILE           measure in this environment alone, and write the rows as JSON

Models are two layers deep and narrow; counts grow with the layers. The families are those that every framework has;
``scripts/family_table.py`` measures all of them. Exit code 1 when a cell falls under its expected count.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import onnx  # noqa: E402

from onnxfuse import catalog  # noqa: E402
from onnxfuse.cli import tables  # noqa: E402
from onnxfuse.config import OptimizeConfig  # noqa: E402
from onnxfuse.errors import OnnxfuseError  # noqa: E402
from onnxfuse.exporters import (  # noqa: E402
    Checkpoint,
    checkpoint_runner,
    export,
    open_checkpoint,
)
from onnxfuse.exporters.tasks import classification  # noqa: E402
from onnxfuse.pipeline.optimize import optimize  # noqa: E402
from onnxfuse.runtime import open_runner  # noqa: E402
from onnxfuse.verify import parity, verdict  # noqa: E402
from onnxfuse.verify.expected import expect  # noqa: E402
from tests.conftest import small_model  # noqa: E402

FAMILIES = {name: family.tasks[classification(family)] for name, family in catalog.families().items() if family.keras_hub}
"""Families that KerasHub has too, and so TensorFlow, with the class of transformers that each is measured as."""

OPSETS = (14, 17, 18, 20, 23)
OTHERS = (ROOT / ".venv-4.57" / "bin" / "python", ROOT / ".venv-tf" / "bin" / "python")
"""The environments with transformers 4.57 and with TensorFlow, made by ``make test-full``."""

BEGIN, END = "<!-- coverage: written by scripts/coverage.py -->", "<!-- end of coverage -->"


@dataclass(frozen=True)
class Row:
    """One cell: who wrote the graph, how, and what came out. ``refused``: why the exporter wrote none."""

    family: str
    writer: str
    attention: str
    opset: str
    source: str
    fused: str = ""
    complete: bool = True
    error: float = 0.0
    refused: str = ""


def measure(folder: Path) -> list[Row]:
    """Every cell of this environment."""
    import transformers

    rows: list[Row] = []
    for family, head in FAMILIES.items():
        saved = folder / family
        small_model(family, head, layers=2).save_pretrained(saved)
        for attention in ("eager", "sdpa"):
            checkpoint = open_checkpoint(saved, attention=attention)
            for writer in ("dynamo", "torchscript"):
                for opset in OPSETS:

                    def write(path: Path, c=checkpoint, w=writer, o=opset) -> None:
                        export(c, path, exporter=w, opset=o)

                    row = Row(family, writer, attention, str(opset), f"transformers {transformers.__version__}")
                    rows.append(_cell(row, checkpoint, write, folder))
        if int(transformers.__version__.split(".")[0]) >= 5:
            rows += _peers(family, open_checkpoint(saved), f"transformers {transformers.__version__}", folder)
    return rows


def measure_tensorflow(folder: Path) -> list[Row]:
    """Every cell of TensorFlow's environment: our way through tf2onnx, and tf2onnx as it comes but for Erfc, which it has not."""
    import keras_hub
    import transformers

    from tests.tensorflow.conftest import keras_model, tf_model

    rows: list[Row] = []
    sources = {f"transformers {transformers.__version__}": tf_model, f"KerasHub {keras_hub.__version__}": keras_model}
    for family in FAMILIES:
        for source, build in sources.items():
            checkpoint = open_checkpoint(build(family))
            for opset in OPSETS:

                def write(path: Path, c=checkpoint, o=opset) -> None:
                    export(c, path, opset=o)

                rows.append(_cell(Row(family, "tf2onnx", "eager", str(opset), source), checkpoint, write, folder))
            if build is tf_model:  # KerasHub's Einsums it takes apart past recognition
                row = Row(family, "tf2onnx alone", "eager", "18", source)
                rows.append(_cell(row, checkpoint, lambda path, c=checkpoint: _tf2onnx(c, path), folder))
    return rows


def _tf2onnx(checkpoint: Checkpoint, path: Path) -> None:
    import tf2onnx

    from onnxfuse.exporters.tf2onnx import erfc
    from onnxfuse.io.quiet import silent

    with silent():
        proto, _ = tf2onnx.convert.from_function(
            checkpoint.module, checkpoint.module.input_signature, opset=18, custom_op_handlers={"Erfc": (erfc, [])}
        )
    for value, name in zip(proto.graph.output, checkpoint.outputs, strict=True):
        proto.graph.node.add(op_type="Identity", input=[value.name], output=[name])
        value.name = name
    onnx.save(proto, path)


def _peers(family: str, checkpoint: Checkpoint, version: str, folder: Path) -> list[Row]:
    """Graphs that transformers' own exporter and ONNX Runtime's optimizer write."""
    rows = []
    for fusions in (None, "cpu"):
        row = Row(family, "transformers' OnnxExporter" + (", ORT fusions" if fusions else ""), "sdpa", "20", version)
        rows.append(_cell(row, checkpoint, lambda path, f=fusions: _transformers_export(checkpoint, path, f), folder))
    for writer in ("dynamo", "torchscript"):
        row = Row(family, f"ORT's optimizer on {writer}", "sdpa", "default", version)
        rows.append(_cell(row, checkpoint, lambda path, w=writer: _ort_optimizer(checkpoint, path, w), folder))
    return rows


def _transformers_export(checkpoint: Checkpoint, path: Path, fusions: str | None) -> None:
    import onnx_ir
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    from onnxfuse.exporters.torch import sample

    model = open_checkpoint(checkpoint.name).module.model
    feeds = dict(zip(checkpoint.inputs, sample(checkpoint), strict=True))
    onnx_ir.save(OnnxExporter().export(model, feeds, config=OnnxConfig(dynamic=True, ort_fusions=fusions)).program, path)


def _ort_optimizer(checkpoint: Checkpoint, path: Path, writer: str) -> None:
    from onnxruntime.transformers.optimizer import optimize_model

    plain = path.with_name("plain.onnx")
    export(checkpoint, plain, exporter=writer)
    optimize_model(str(plain), model_type=checkpoint.family.ort_optimizer, num_heads=4, hidden_size=128).save_model_to_file(
        str(path)
    )


def _cell(row: Row, checkpoint: Checkpoint, write: Callable[[Path], None], folder: Path) -> Row:
    """Write the graph, optimize it, and compare it with the checkpoint."""
    home = folder / "cell"
    home.mkdir(exist_ok=True)
    checkpoint.save_beside(home)
    path = home / "model.onnx"
    try:
        write(path)
    except OnnxfuseError as error:
        return Row(**asdict(row) | {"refused": str(error).replace(checkpoint.name, "the model")})
    step = optimize(OptimizeConfig(path, home / "model_optimized.onnx"))
    counts, expected = step.fused, step.expected
    cases = verdict.grid_of(path, checkpoint.config)
    expected_outputs = expect(checkpoint_runner(checkpoint), cases)
    agrees = parity.compare(expected_outputs, open_runner(step.path), "reassociate")
    complete = counts["unfused"] == 0 and agrees.passed and all(counts[name] >= wanted for name, wanted in expected.items())
    return Row(**asdict(row) | {"fused": tables.fused_text(counts, expected), "complete": complete, "error": agrees.error})


def table(rows: list[Row]) -> str:
    """Markdown: one line for each writer and version, families and opsets folded where they agree."""
    lines = [
        f"| graph from | attention | model from | opsets | {' | '.join(FAMILIES)} | largest difference |",
        f"|---|---|---|---|{'---|' * len(FAMILIES)}---|",
    ]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.writer, row.attention, row.source), []).append(row)
    for (writer, attention, version), members in groups.items():
        done = [row for row in members if not row.refused]
        cells = [_families(done, family) for family in FAMILIES]
        opsets = ", ".join(dict.fromkeys(row.opset for row in done))
        error = f"{max(row.error for row in done):.1e}"
        lines.append(f"| {' | '.join([writer, attention, version, opsets, *cells, error])} |")
    refused = sorted({f"opset {row.opset}: {row.refused}" for row in rows if row.refused})
    written = [row for row in rows if not row.refused]
    summary = f"{sum(row.complete for row in written)} of {len(written)} graphs fuse completely. What the exporters do not write:"
    return "\n".join([summary, "", *(f"- {line}" for line in refused), "", *lines])


def _families(rows: list[Row], family: str) -> str:
    mine = [row for row in rows if row.family == family]
    odd = [f"opset {row.opset}: {row.fused}, difference {row.error:.0e}" for row in mine if not row.complete]
    return "; ".join(odd) if odd else mine[0].fused.replace("layer_norm", "norm")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_tensorflow(Path(folder)) if importlib.util.find_spec("tensorflow") else measure(Path(folder))
        if arguments.rows:
            arguments.rows.write_text(json.dumps([asdict(row) for row in rows]))
            return 0
        for python in filter(Path.is_file, OTHERS):
            other = Path(folder) / "rows.json"
            subprocess.run([python, __file__, "--rows", other], check=True)
            rows += [Row(**row) for row in json.loads(other.read_text())]
    page = ROOT / "docs" / "coverage.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    bad = [row for row in rows if not row.complete]
    for row in bad:
        sys.stderr.write(f"incomplete: {row}\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
