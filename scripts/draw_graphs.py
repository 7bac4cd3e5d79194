"""Draw every rewrite before and after, and one encoder layer of each architecture, into graphs/. ``make graphs`` runs it.

Drawings are Mermaid flowcharts in Markdown, which repository browsers and editors render. They show what happened to real
exports (small ones, random weights), not what a rule says of itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from onnxfuse import catalog, targets
from onnxfuse.exporters import export, open_checkpoint
from onnxfuse.io import atomic, onnx_file
from onnxfuse.optimizer import UNPAD, fuse, rule_names
from onnxfuse.rewrite.driver import Application, Line

LAYERS = {"num_hidden_layers": 1, "n_layers": 1}
SMALL = {
    "hidden_size": 64,
    "dim": 64,
    "intermediate_size": 128,
    "hidden_dim": 128,
    "num_attention_heads": 4,
    "n_heads": 4,
    "vocab_size": 100,
    "image_size": 32,
    "patch_size": 8,
}


def flowchart(lines: Iterable[Line]) -> str:
    """Nodes and the values between them as a Mermaid flowchart; inputs are rounded."""
    lines = list(lines)
    makers = {name: i for i, line in enumerate(lines) for name in line.outputs}
    text, sources = ["```mermaid", "flowchart TD"], {}
    for i, line in enumerate(lines):
        text.append(f'    n{i}["{line.op}"]')
    for i, line in enumerate(lines):
        for name in line.inputs:
            if name in makers:
                text.append(f"    n{makers[name]} --> n{i}")
            else:
                label = sources.setdefault(name, f"i{len(sources)}")
                text.append(f'    {label}(["{name.rsplit("/", 1)[-1]}"]) --> n{i}')
    return "\n".join([*text, "```", ""])


def draw_rewrite(application: Application) -> str:
    counts = f"{len(application.before)} nodes become {len(application.after)}"
    return (
        f"# {application.rule}\n\nAt `{application.value}`: {counts}.\n\n"
        f"## Before\n\n{flowchart(application.before)}\n## After\n\n{flowchart(application.after)}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent.parent / "graphs")
    folder = parser.parse_args().output
    seen: dict[str, Application] = {}
    for family in catalog.families().values():
        for exporter in ("torchscript", "dynamo"):
            model = small_export(family.model_type, exporter)
            before = [Line.of(node) for node in model.graph]
            trace = fuse(model, targets.find("cpu"), without=frozenset({UNPAD})).trace
            for application in trace.applications:
                seen.setdefault(application.rule, application)
            if exporter == "torchscript":
                after = [Line.of(node) for node in model.graph]
                text = f"# {family.model_type}, one layer\n\n{len(before)} nodes become {len(after)}.\n\n{flowchart(after)}"
                atomic.save_text(text, folder / f"{family.model_type}.md")
                unpadded = small_export(family.model_type, exporter)
                if not fuse(unpadded, targets.find("cpu")).padding.kept:
                    lines = [Line.of(node) for node in unpadded.graph]
                    seen[UNPAD] = Application(UNPAD, "the whole graph", tuple(after), tuple(lines))
    for name in rule_names():
        if name in seen:
            atomic.save_text(draw_rewrite(seen[name]), folder / f"rule-{name}.md")
    return 0


def small_export(model_type: str, exporter: str):
    """A one-layer model of that family, exported and loaded; its weights are read before the file goes."""
    import transformers

    family = catalog.architecture(model_type)
    task = next(task for task in family.tasks if task in ("text-classification", "image-classification"))
    default = transformers.AutoConfig.for_model(model_type)
    fields = {name: value for name, value in (SMALL | LAYERS).items() if hasattr(default, name)}
    config = transformers.AutoConfig.for_model(model_type, **fields)
    checkpoint = open_checkpoint(getattr(transformers, family.tasks[task]).from_config(config), task=task)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(checkpoint, path, exporter=exporter)
        model = onnx_file.load(path)
        for value in model.graph.initializers.values():
            if value.const_value is not None:
                value.const_value.numpy()
    return model


if __name__ == "__main__":
    sys.exit(main())
