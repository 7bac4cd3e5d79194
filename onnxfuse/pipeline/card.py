"""The model card of a package: its models, what was measured of them, and how each library opens them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxfuse import layouts
from onnxfuse.io import folders
from onnxfuse.layouts import Content

CARD = "README.md"


def measured(models: Mapping[str, Path]) -> dict[str, Any]:
    """What ``run`` measured of files that are still as they were then, as a package's record holds it; empty where nothing.

    Args:
        models: files by precision, all of one folder.
    """
    step = folders.recorded(next(iter(models.values())).parent).get("benchmark", {})
    rows = step.get("rows", {}) if isinstance(step, dict) else {}
    usual_first = reversed(rows.items()) if isinstance(rows, dict) else ()  # a file has a row for each runtime
    known = {row["fingerprint"]: name for name, row in usual_first}
    found = {each: known.get(folders.fingerprint(path)) for each, path in models.items()}
    if not known or None in found.values():
        return {}
    others = [name for name in step["timings"] if name not in rows]
    p50 = {name: step["timings"][name]["p50"] for name in others} | {e: step["timings"][str(n)]["p50"] for e, n in found.items()}
    parity = {each: rows[str(name)]["parity"] for each, name in found.items()}
    return {"p50": p50, "parity": parity, "plan": step["plan"], "versions": step["versions"], "cpu": step["cpu"]}


def card(content: Content, steps: Sequence[Mapping[str, Any]], repository: str) -> str:
    """README.md of a repository of the hub.

    Args:
        content: what lies in the package.
        steps: of the package's record, one for each layout.
        repository: its id, by which libraries open it.
    """
    chosen = [layouts.layout(step["plan"]["layout"]) for step in steps]
    places = chosen[0].placed(content)
    known: Mapping[str, Any] = next((step["measured"] for step in steps if step.get("measured")), {})
    lines = ["---", "tags:", *(f"- {tag}" for tag in ("onnx", "onnxfuse", *(each.name for each in chosen))), "---", ""]
    lines += [f"# {content.name}", "", f"ONNX models for {content.task or 'inference'}, made with onnxfuse.", ""]
    lines += [*_table(content, {each: str(at) for each, at in places.items()}, known), "", *_note(known)]
    for each in chosen:
        code = [each.use(content, precision, repository) for precision in content.models]
        lines += [f"## {each.label}", "", "```", *code, "```", ""]
    return "\n".join(lines)


def _table(content: Content, places: Mapping[str, str], known: Mapping[str, Any]) -> list[str]:
    """The models with their sizes; with latency, speed and parity where they were measured."""
    if not known:
        sizes = [f"| {places[each]} | {each} | {_megabytes(model.size)} |" for each, model in content.models.items()]
        return ["| model | precision | size |", "|---|---|---|", *sizes]
    p50: Mapping[str, float] = known["p50"]
    first = next(iter(p50))
    rows = ["| model | precision | size | p50 ms | speed-up | parity |", "|---|---|---|---|---|---|"]
    for name, value in p50.items():
        ours = content.models.get(name)
        place, size = (name, "") if ours is None else (places[name], _megabytes(ours.size))
        agrees = "reference" if name == first else known["parity"].get(name, "")
        precision = "" if ours is None else name
        rows.append(f"| {place} | {precision} | {size} | {value:.2f} | {p50[first] / value:.2f} | {agrees} |")
    return rows


def _note(known: Mapping[str, Any]) -> list[str]:
    """What the numbers are true of."""
    if not known:
        return []
    plan, versions = known["plan"], known["versions"]
    made = ", ".join(f"{name} {versions[name]}" for name in ("onnxruntime", "torch", "transformers") if name in versions)
    threads = f"{plan['threads']} threads" if plan["threads"] else "as many threads as cores"
    return [f"Measured at batch {plan['batch']}, length {plan['length']}, {threads}, on {known['cpu']}, with {made}.", ""]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
