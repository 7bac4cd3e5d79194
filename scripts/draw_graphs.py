"""Draw every rule, and a layer of every family, before and after, into graphs/. ``make graphs`` runs it.

What is drawn happened: to small exports of the families (random weights), and where a rule has nothing to do in these, to the
example that its test gives it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from onnxfuse import catalog, targets
from onnxfuse.config import OptimizeConfig
from onnxfuse.drawing import pages
from onnxfuse.drawing.picture import Box, Picture, picture
from onnxfuse.exporters import export, open_checkpoint
from onnxfuse.io import atomic, folders
from onnxfuse.optimizer import NORMAL_RULES
from onnxfuse.pipeline import diff
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.rewrite import driver
from onnxfuse.rewrite.driver import Application
from onnxfuse.rewrite.lines import Line

ROOT = Path(__file__).parent.parent
TESTED = ("tests/fusions", "tests/normalize", "tests/targets", "tests/rewrite", "tests/test_layer.py", "tests/test_optimizer.py")
LAYERS = dict.fromkeys(("num_hidden_layers", "n_layers", "num_layers"), 3)
DRAWN = "1"
"""The layer in the middle: nothing of embeddings or a head is mixed with it."""

SMALL = {
    "hidden_size": 64,
    "dim": 64,
    "embedding_size": 64,
    "intermediate_size": 128,
    "hidden_dim": 128,
    "num_attention_heads": 4,
    "n_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
INDEX = """# Drawings

Each shows what happened, before and after; `make graphs` draws them. [How it works](../docs/how-it-works.md) says what the rules
are for, and `onnxfuse diff` draws a layer of your own models.

## Families

One layer of a small export, and what target cpu makes of it.

{families}

## Rules

{rules}
"""


class Seen:
    """The first application of each rule that is made while this listens."""

    def __init__(self) -> None:
        self.found: dict[str, Application] = {}
        self._record = driver.Trace.record

    def __enter__(self) -> Seen:
        seen, record = self.found, self._record

        def listening(trace: driver.Trace, name: str, value: str, before: Any, after: Any) -> None:
            record(trace, name, value, before, after)
            made = trace.applications[-1]
            seen.setdefault(name, made)

        driver.Trace.record = listening  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        driver.Trace.record = self._record  # type: ignore[method-assign]


def drawn(application: Application) -> str:
    """A rewrite as SVG; what is written on both sides is what others read."""
    made = {name for line in application.after for name in line.outputs}
    shown = [name for line in application.before for name in line.outputs if name in made]
    sides = [
        picture(title, ordered(lines), shown=shown, rules={name: rule for line in lines for name in line.outputs})
        for title, lines, rule in (("before", application.before, ""), ("after", application.after, application.rule))
    ]
    if not application.after:  # its readers read what it read
        sides[1] = Picture("after", (Box((), end=kept(application)),), ())
    return pages.beside(*sides, application.rule)


def kept(application: Application) -> str:
    """What stands in the place of nodes that went altogether."""
    made = {name for line in application.before for name in line.outputs}
    last = next(line for line in application.before if application.value in line.outputs)
    constants = dict(last.constants)
    return next(name for name in (*(each for each in last.inputs if each not in constants), *last.inputs) if name not in made)


def ordered(lines: tuple[Line, ...]) -> list[Line]:
    """Each line behind those that it reads."""
    left, found = list(lines), list[Line]()
    while left:
        open_names = {name for line in left for name in line.outputs}
        ready = [line for line in left if not open_names & set(line.inputs) - set(line.outputs)] or left[:1]
        found += ready
        left = [line for line in left if line not in ready]
    return found


def families(folder: Path, seen: Seen) -> list[str]:
    """Draw a layer of each family, as PyTorch's first exporter writes it; their names."""
    for family in catalog.families():
        for exporter in ("torchscript", "dynamo"):
            with tempfile.TemporaryDirectory() as place:
                source, result = (Path(place) / name for name in (folders.MODEL, folders.OPTIMIZED))
                small_export(family, source, exporter)
                with seen:
                    optimize(OptimizeConfig(source, result, verify="final"))
                found = diff.compare(source, result, DRAWN)
        atomic.save_text(pages.beside(found.before, found.after, family), folder / f"{family}.svg")
    return list(catalog.families())


def small_export(model_type: str, path: Path, exporter: str) -> None:
    """A model of three layers of that family, exported; its biases are not zero, which a rule would see."""
    import torch
    import transformers

    family = catalog.architecture(model_type)
    task = next(iter(family.tasks))
    default = transformers.AutoConfig.for_model(model_type)
    fields = {name: value for name, value in (SMALL | LAYERS).items() if hasattr(default, name)}
    config = transformers.AutoConfig.for_model(model_type, **fields)
    torch.manual_seed(0)
    kind = getattr(transformers, family.tasks[task])
    model = getattr(kind, "from_config", kind)(config)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.02 * torch.randn_like(weights))
    export(open_checkpoint(model, task=task), path, exporter=exporter)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "graphs")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    seen = Seen()
    there = families(folder, seen)
    with seen:
        quiet = ("-q", "-x", "--no-header", "-p", "no:cacheprovider", "--assert=plain", "-m", "not slow")
        pytest.main([*quiet, *(str(ROOT / each) for each in TESTED)])
    lowered = [each for thing in targets.lowerings().values() for each in thing.values()]
    fused = [rule for fusion in catalog.fusions().values() for rule in fusion.rules]
    owned = (*NORMAL_RULES, *fused, *(rule for each in lowered for rule in (*each.before, *each.rules)))
    rules = list(dict.fromkeys(rule.name for rule in owned))
    for name in rules:
        if name in seen.found:
            atomic.save_text(drawn(seen.found[name]), folder / f"rule-{name}.svg")
    missing = [name for name in rules if name not in seen.found]
    lines = {
        "families": "\n".join(f"- [{name}]({name}.svg)" for name in there),
        "rules": "\n".join(f"- [{name}](rule-{name}.svg)" for name in rules if name in seen.found),
    }
    atomic.save_text(INDEX.format(**lines), folder / "README.md")
    sys.stderr.write(f"{len(there)} families, {len(rules) - len(missing)} of {len(rules)} rules; none of: {', '.join(missing)}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
