"""What measure_dropin.py compares: the same inputs answered by transformers' pipeline on the original, by the pipeline on
``onnxfuse.accelerate``, and by the methods of ``onnxfuse.load``; singly and in batches."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import onnxfuse
from onnxfuse.evaluation.embeddings import cosines
from onnxfuse.evaluation.sentences import calibration_sentences, docstring_sentences
from onnxfuse.evaluation.sources import SENTENCES as CALIBRATED

BATCHES = (1, 8)
PRECISIONS = ("fp32", "int8")
TOKENS = "feature-extraction"
READER = Path(__file__).with_name("dropin_reader.py")

Answer = tuple[Any, np.ndarray]
"""What must be equal, and the scores [n]."""

Ask = Callable[[int], list[Answer]]
"""Answers to all inputs, so many at a time."""


@dataclass(frozen=True)
class Row:
    """One comparison with the original: how many answers are equal, of how many, and the largest difference of scores."""

    subject: str
    by: str
    precision: str
    batch: int
    equal: int
    count: int
    difference: float

    def cells(self) -> list[str]:
        share = f"{self.equal} of {self.count} ({self.equal / self.count:.1%})"
        return [self.subject, self.by, self.precision, str(self.batch), share, f"{self.difference:.1e}"]


def compared(subject: str, by: str, precision: str, batch: int, got: Sequence[Answer], wanted: Sequence[Answer]) -> Row:
    """Scores count where the answers are equal."""
    same = [(mine, its) for (answer, mine), (right, its) in zip(got, wanted, strict=True) if answer == right]
    difference = max((float(np.abs(mine - its).max(initial=0)) for mine, its in same), default=float("nan"))
    return Row(subject, by, precision, batch, len(same), len(wanted), difference)


def unseen(folder: Path, count: int) -> list[str]:
    """Sentences of a test set that int8 is not calibrated on."""
    calibrated = set(calibration_sentences(CALIBRATED))
    lines = (folder / "test" / "texts.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line not in calibrated][:count]


def fast(folder: Path, home: Path, precision: str, **options: Any) -> tuple[Any, Any]:
    """The checkpoint as a torch module, and as what ``onnxfuse.load`` gives; int8 classifiers know inputs of their training."""
    own = folder / "calibration"
    if precision == "int8" and own.is_dir() and (own / "labels.npy").is_file():
        options = {"calibration": str(own), **options}
    module = onnxfuse.accelerate(str(folder), precision=precision, folder=home / precision, threads=1, **options)
    return module, onnxfuse.load(home / precision, threads=1)


def pipeline(task: str, model: Any, folder: Path, **options: Any) -> Callable[..., Any]:
    found = {"image_processor": str(folder)} if task.startswith("image") else {"tokenizer": str(folder)}
    made: Callable[..., Any] = transformers.pipeline(task, model=model, **found, **options)  # type: ignore[call-overload]
    return made


def labels(found: Sequence[Any]) -> list[Answer]:
    """The best label of each, whether it stands in a list or alone."""
    best = [each[0] if isinstance(each, list) else each for each in found]
    return [(each["label"], np.array([each["score"]])) for each in best]


def classes(folder: Path, home: Path, count: int) -> Iterator[Row]:
    """docs-bert: the label of a sentence."""
    texts, task = unseen(folder, count), "text-classification"

    def asked(model: Any) -> Ask:
        run = pipeline(task, model, folder)
        return lambda batch: labels(run(texts, batch_size=batch, truncation=True))

    original = known(asked(transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()))
    for precision in PRECISIONS:
        module, own = fast(folder, home, precision)
        ways = {"pipeline": asked(module), "classify": lambda batch, own=own: labels(own.classify(texts, batch=batch))}
        yield from rows("docs-bert", precision, ways, original)


def images(folder: Path, home: Path, count: int) -> Iterator[Row]:
    """digits-vit: the digit on an image of 32 x 32 pixels, which the processor makes smaller."""
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels = np.load(folder / "test" / "pixel_values.npy")[:count, 0]
    assert load_digits().images.max() == 16
    found = [Image.fromarray(np.rint((each + 1) / 2 * 255).astype(np.uint8)).convert("RGB").resize((32, 32)) for each in pixels]
    place, task = coloured(folder, home / "coloured"), "image-classification"

    def asked(model: Any) -> Ask:
        run = pipeline(task, model, place)
        return lambda batch: labels(run(found, batch_size=batch))

    original = known(asked(transformers.AutoModelForImageClassification.from_pretrained(place).eval()))
    calibration = home / "calibration"
    calibration.mkdir()
    np.save(calibration / "pixel_values.npy", np.repeat(np.load(folder / "calibration" / "pixel_values.npy"), 3, axis=1))
    for precision in PRECISIONS:
        module, own = fast(place, home, precision, **({"calibration": str(calibration)} if precision == "int8" else {}))
        ways = {"pipeline": asked(module), "classify": lambda batch, own=own: labels(own.classify(found, batch=batch))}
        yield from rows("digits-vit", precision, ways, original)


def coloured(folder: Path, place: Path) -> Path:
    """The same function of grey images in three channels, as pipelines give them, with a processor."""
    model = transformers.ViTForImageClassification.from_pretrained(folder)
    model.config.num_channels = 3
    state = model.state_dict()
    (name,) = [name for name in state if name.endswith("patch_embeddings.projection.weight")]
    state[name] = state[name].repeat(1, 3, 1, 1) / 3
    wide = transformers.ViTForImageClassification(model.config)
    wide.load_state_dict(state)
    wide.save_pretrained(place)
    half = [0.5] * 3
    transformers.ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=half, image_std=half).save_pretrained(place)
    return place


def tags(folder: Path, home: Path, count: int) -> Iterator[Row]:
    """docs-tagger: the entities of a sentence with their offsets, however a word's tokens are joined."""
    texts = unseen(folder, count)

    def answer(found: Sequence[dict[str, Any]]) -> Answer:
        names = ("entity", "entity_group", "word", "start", "end")
        return [[each.get(name) for name in names] for each in found], np.array([each["score"] for each in found])

    def asked(model: Any, strategy: str) -> Ask:
        run = pipeline("token-classification", model, folder, aggregation_strategy=strategy)
        return lambda batch: [answer(found) for found in run(texts, batch_size=batch)]

    original = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    modules = {precision: fast(folder, home, precision)[0] for precision in PRECISIONS}
    for strategy in ("none", "simple", "first"):
        wanted = known(asked(original, strategy))
        for precision, module in modules.items():
            yield from rows(f"docs-tagger, {strategy}", precision, {"pipeline": asked(module, strategy)}, wanted)


def gaps(folder: Path, home: Path, count: int) -> Iterator[Row]:
    """docs-filler: the likeliest of five tokens at a masked word."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pick = np.random.default_rng(0)
    texts = []
    for text in unseen(folder, count):
        words = text.split()
        words[pick.integers(len(words))] = tokenizer.mask_token
        texts.append(" ".join(words))

    def answers(found: Sequence[Any]) -> list[Answer]:
        return [((each[0]["token"], each[0]["sequence"]), np.array([each[0]["score"]])) for each in found]

    def asked(model: Any) -> Ask:
        run = pipeline("fill-mask", model, folder)
        return lambda batch: answers(run(texts, batch_size=batch))

    original = known(asked(transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()))
    for precision in PRECISIONS:
        module, own = fast(folder, home, precision)
        ways = {"pipeline": asked(module), "fill": lambda batch, own=own: answers(own.fill(texts, batch=batch))}
        yield from rows("docs-filler", precision, ways, original)


def vectors(folder: Path, home: Path, count: int) -> Iterator[Row]:
    """all-MiniLM-L6-v2: the embedding of a sentence; equal is which other sentence is nearest, and 1 - cosine differs."""
    texts = docstring_sentences(count)

    def pooled(model: Any, batch: int) -> np.ndarray:
        run = pipeline(TOKENS, model, folder)
        made = run(texts, batch_size=batch, return_tensors=True, truncation=True)
        lengths = [len(each) for each in run.tokenizer(texts, truncation=True)["input_ids"]]  # type: ignore[attr-defined]
        return np.stack([each[0, :length].mean(0).numpy() for each, length in zip(made, lengths, strict=True)])

    original = transformers.AutoModel.from_pretrained(folder).eval()
    wanted = {batch: pooled(original, batch) for batch in BATCHES}
    for precision in PRECISIONS:
        module = onnxfuse.accelerate(str(folder), precision=precision, folder=home / precision, threads=1, task=TOKENS)
        own_home = home / f"{precision}-own"
        onnxfuse.optimize(onnxfuse.export(str(folder), own_home))
        if precision == "int8":
            onnxfuse.quantize(own_home)
        own = onnxfuse.load(own_home, threads=1)
        for batch in BATCHES:
            for by, got in (("pipeline", pooled(module, batch)), ("encode", own.encode(texts, batch=batch))):
                far = 1 - cosines(got, wanted[batch])
                same = int((nearest(got) == nearest(wanted[batch])).sum())
                yield Row("all-MiniLM-L6-v2", by, precision, batch, same, len(texts), float(far.max()))


def nearest(found: np.ndarray) -> np.ndarray:
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    close = unit @ unit.T
    np.fill_diagonal(close, -np.inf)
    return np.asarray(close.argmax(axis=1))


def spans(folder: Path, home: Path, count: int, old: Path) -> Iterator[Row]:
    """docs-reader: the answer in a text, beside the pipeline of transformers 4.57, whose Python is ``old``: 5 has none."""
    squad = json.loads((folder / "test" / "squad.json").read_text(encoding="utf-8"))
    entries = [(entry["qas"][0]["question"], entry["context"]) for entry in squad["data"][0]["paragraphs"]][:count]
    questions, contexts = ([pair[side] for pair in entries] for side in (0, 1))
    own = {precision: fast(folder, home, precision)[1] for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as scratch:
        asked, told = Path(scratch, "asked.json"), Path(scratch, "told.json")
        places = {"original": str(folder.absolute())} | {name: str((home / name).absolute()) for name in PRECISIONS}
        asked.write_text(json.dumps({"pairs": entries, "models": places, "batches": BATCHES}))
        subprocess.run([str(old), str(READER), str(asked), str(told)], check=True)
        found = json.loads(told.read_text())
    answers = {name: {int(batch): answered(each) for batch, each in by.items()} for name, by in found.items()}
    for precision in PRECISIONS:
        for batch in BATCHES:
            wanted = answers["original"][batch]
            yield compared("docs-reader", "pipeline of 4.57", precision, batch, answers[precision][batch], wanted)
            if batch == 1:
                singly = [own[precision].answer(question, context) for question, context in entries]
            else:
                singly = own[precision].answer(questions, contexts)
            yield compared("docs-reader", "answer", precision, batch, answered(singly), wanted)


def answered(found: Sequence[dict[str, Any]]) -> list[Answer]:
    return [((each["answer"], each["start"], each["end"]), np.array([each["score"]])) for each in found]


def known(ask: Ask) -> Ask:
    """The same, asked once for each size of batch."""
    found: dict[int, list[Answer]] = {}

    def again(batch: int) -> list[Answer]:
        if batch not in found:
            found[batch] = ask(batch)
        return found[batch]

    return again


def rows(subject: str, precision: str, ways: dict[str, Ask], original: Ask) -> Iterator[Row]:
    """Each way beside the original, for each size of batch."""
    for batch in BATCHES:
        wanted = original(batch)
        for by, ask in ways.items():
            with torch.inference_mode():
                yield compared(subject, by, precision, batch, ask(batch), wanted)
