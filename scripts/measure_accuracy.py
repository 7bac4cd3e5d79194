"""Measure accuracy beside latency, and write docs/accuracy.md: what each rewrite does to a question answerer, four precisions in
OpenVINO beside PyTorch's, and two classifiers in every runtime. ``make accuracy`` runs it; each table is one command of onnxfuse.

Figures of accuracy are properties of the files; times are of this machine, and only their ratios within a table count.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from onnxfuse.io import atomic, folders
from onnxfuse.measure import machine
from onnxfuse.runtime.cores import cores

PAGE = Path(__file__).with_name("accuracy_page.md")
"""The page, with a place for each table."""

PACKAGES = ("torch", "torchao", "transformers", "onnxruntime", "openvino", "ctranslate2")
MODES = ("FP32", "BF16", "FP32 + QINT8", "BF16 + QINT8")
"""What S2 calls a float32 and an int8 file, each in float32 and in bfloat16, in the order of the rows."""

HOME = Path(folders.EXPORTS)
"""Where the models are made, in the folder of the checkpoints, whose place their records tell from there."""

BATCH, LENGTH = 8, 48
"""Rows and tokens of every run of a classifier; texts are padded or cut to that."""

SAMPLES = (10, 100)
"""Beside all: how many S1 measures on."""

Row = Mapping[str, Any]


def command(*words: object) -> str:
    return shlex.join(["onnxfuse", *map(str, words)])


@dataclass(frozen=True)
class Bench:
    """Where the checkpoints lie, which commands are run in; and how long each row is timed."""

    folder: Path
    seconds: float
    log: Console

    def ran(self, told: str) -> dict[str, Any]:
        """What a command of onnxfuse answers as JSON. It ends everything where it fails, in its own words."""
        self.log.print(told, markup=False, highlight=False, soft_wrap=True)
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(told), "--json", "--quiet"],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"exit code {done.returncode}: {told}\n{done.stdout.decode()}")
        return dict(json.loads(done.stdout.decode().replace(f"{self.folder.resolve()}/", "")))

    @property
    def pace(self) -> tuple[str, str]:
        return "--seconds", f"{self.seconds:g}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [columns, ["---"] * len(columns), *rows])


def shown(told: str, columns: Sequence[str], rows: Sequence[Sequence[str]], answer: Mapping[str, Any]) -> str:
    """A command, what it answers as a table, and a line for each row that could not be measured."""
    lacking = "".join(f"\n- {each['name']} could not take part: {each['why']}" for each in answer["failed"])
    return f"`{told}`\n\n{table(columns, rows)}" + ("\n" + lacking if lacking else "")


def figure(row: Row, name: str) -> str:
    """A figure of 0 to 1 in hundredths, with its 95 % interval."""
    metric = row["metrics"].get(name)
    return "" if metric is None else f"{metric['value']:.2%} ({metric['low']:.1%} - {metric['high']:.1%})".replace("%", "")


def chance(row: Row) -> str:
    return "" if row["p_value"] is None else f"{row['p_value']:.2g}"


def latency(row: Row) -> list[str]:
    speed = row["speed"]
    return [f"{row['latency']['p50']:.2f}", f"{speed['value']:.2f} ({speed['low']:.2f} - {speed['high']:.2f})"]


def model_name(row: Row, home: Path) -> str:
    return str(row["name"]).replace(f"{home}/", "")


def prepared(bench: Bench, name: str, *sizes: object) -> None:
    """A checkpoint's ONNX model, optimized, in dynamic int8, and both again as OpenVINO runs them fastest (static int8).

    Args:
        sizes: that texts are fixed to, for all beside each other: what compiles for each length would compile for minutes.
    """
    home, like = HOME / name, ("--calibration", f"{name}/calibration")
    for told in (
        command("export", name, "-o", home),
        command("optimize", home, *sizes),
        command("quantize", home, *like),
        command("optimize", home / folders.MODEL, "--target", "openvino", "-o", home / "openvino.onnx", *sizes),
        command("quantize", home / "openvino.onnx", "-o", home / "openvino_int8.onnx", *like),
    ):
        bench.ran(told)


def rewrites(bench: Bench, name: str) -> str:
    """S1: each rewrite alone and all, on questions; and the first and the last on fewer of them."""
    home, whole = HOME / name, f"{name}/test/squad.json"
    bench.ran(command("export", name, "-o", home))
    told = command("evaluate", home / folders.MODEL, "--data", whole, "--ablate", *bench.pace)
    answer = bench.ran(told)
    rows = [
        [row["name"], str(row["rewrites"]), figure(row, "exact_match"), figure(row, "f1"), rate(row), *latency(row), chance(row)]
        for row in answer["results"]
    ]
    columns = ["rewrites", "made", "exact match", "F1", "samples/s", "p50 ms", "times as fast as none", "p"]
    bench.ran(command("optimize", home))
    again = command(
        "evaluate", home / folders.MODEL, home / folders.OPTIMIZED, "--data", f"{name}/test/squad-N.json", *bench.pace
    )
    fewer = []
    for count in SAMPLES:
        squad = json.loads((bench.folder / whole).read_text(encoding="utf-8"))
        (bench.folder / f"{name}/test/squad-{count}.json").write_text(json.dumps(some(squad, count)), encoding="utf-8")
        for row in bench.ran(again.replace("squad-N", f"squad-{count}"))["results"]:
            figures = figure(row, "exact_match"), figure(row, "f1")
            fewer.append([str(count), model_name(row, home), *figures, rate(row), *latency(row)])
    headers = ["samples", "row", "exact match", "F1", "samples/s", "p50 ms", "times as fast as the first"]
    less = f"The model before and after, on the first N questions:\n\n`{again}`\n\n{table(headers, fewer)}"
    return f"{shown(told, columns, rows, answer)}\n\n{less}"


def some(squad: dict[str, Any], count: int) -> dict[str, Any]:
    """The first paragraphs of a SQuAD file, of one question each."""
    first = squad["data"][0]
    return squad | {"data": [first | {"paragraphs": first["paragraphs"][:count]}]}


def rate(row: Row) -> str:
    return f"{row['count'] / row['seconds']:.1f}"


def modes(bench: Bench, name: str) -> str:
    """S2: two files in two precisions, beside PyTorch's ways, on texts."""
    home = HOME / name
    files = (home / "openvino.onnx", home / "openvino_int8.onnx")
    ways = ("--runtime", "openvino", "--runtime", "openvino-bf16", "--against", "torch,torch-traced,torch-frozen,torch-bf16")
    told = command("evaluate", *files, "--data", f"{name}/test/texts.csv", *ways, *bench.pace)
    answer = bench.ran(told)
    rows = [
        [*said(row, home), figure(row, "accuracy"), figure(row, "f1_macro"), chance(row), rate(row), *latency(row)]
        for row in answer["results"]
    ]
    columns = ["mode", "row", "accuracy", "F1 (macro)", "p", "samples/s", "p50 ms", "times as fast as the first"]
    return shown(told, columns, rows, answer)


def said(row: Row, home: Path) -> tuple[str, str]:
    """What S2 calls a row, where it does, and its name."""
    name = model_name(row, home)
    return MODES[2 * ("int8.onnx" in name) + name.endswith("openvino-bf16")] if ".onnx" in name else "", name


def runtimes(bench: Bench, name: str, data: str, others: str) -> str:
    """S3: a classifier in every runtime: how right, how long for all, how large, how fast."""
    home = HOME / name
    names = (folders.MODEL, folders.OPTIMIZED, folders.QUANTIZED, "openvino_int8.onnx")
    ways = ("--runtime", "ort", "--runtime", "openvino", "--runtime", "openvino-bf16", "--against", others)
    told = command("evaluate", *(home / file for file in names), "--data", data, *ways)
    answer = bench.ran(told)
    rows = [
        [
            model_name(row, home),
            figure(row, "accuracy"),
            figure(row, "f1_macro"),
            chance(row),
            f"{row['seconds']:.2f}",
            f"{row['size'] / 1e6:.1f}",
            *latency(row),
        ]
        for row in answer["results"]
    ]
    columns = ["row", "accuracy", "F1 (macro)", "p", "seconds", "MB", "p50 ms", "times as fast as the first"]
    count = answer["results"][0]["count"]
    return f"{count} test samples.\n\n{shown(told, columns, rows, answer)}"


def there(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Those that are installed, with their versions."""
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path, help="what make_checkpoints.py wrote")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/accuracy.md"))
    parser.add_argument("--seconds", type=float, default=3.0, help="run time of each row that is timed so")
    parser.add_argument("--others", default="torch,torch-traced,torch-frozen,torchao-int8,ctranslate2,ctranslate2-int8,ibert")
    arguments = parser.parse_args()
    bench, others = Bench(arguments.checkpoints, arguments.seconds, Console(stderr=True)), arguments.others
    prepared(bench, "docs-bert", "--batch", BATCH, "--length", LENGTH)
    prepared(bench, "digits-vit")  # images have a size; of rows that are fixed to 8, OpenVINO 2026.4.1 ends the process
    content = PAGE.read_text(encoding="utf-8").format(
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        machine=machine.cpu(),
        threads=cores(),
        versions=", ".join(f"{name} {version}" for name, version in there(PACKAGES)),
        rewrites=rewrites(bench, "docs-reader"),
        modes=modes(bench, "docs-bert"),
        docs_bert=runtimes(bench, "docs-bert", "docs-bert/test/texts.csv", others),
        digits_vit=runtimes(bench, "digits-vit", "digits-vit/test", others),
    )
    atomic.save_text(content, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
