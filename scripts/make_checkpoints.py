"""Train two classifiers from what every machine has, so that accuracy can be measured without a download.

digits-vit    a small ViT on scikit-learn's handwritten digits
docs-bert     all-MiniLM-L6-v2 with a head that tells which module of the standard library a docstring's sentence is from
docs-bert-outliers    the same function, with channels of one layer made hundreds of times as large as the others

Each folder under OUT is a checkpoint as transformers saves it, with its test set in test/ and training inputs in calibration/
(one .npy file for each input, and labels.npy).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.evaluation.quality import score
from onnxfuse.evaluation.sentences import sentences_by_module

sys.path.insert(0, str(Path(__file__).parent))
from demo import minilm

SEED, CALIBRATION = 0, 1000
Arrays = dict[str, np.ndarray]


def digits(log: Console) -> tuple[torch.nn.Module, Arrays, np.ndarray, Arrays, np.ndarray]:
    """A ViT of three layers on 8 x 8 pixels, 2 x 2 to a patch."""
    data = load_digits()
    pixels = ((data.images / 8) - 1).astype(np.float32)[:, None]
    train, test, labels, wanted = train_test_split(pixels, data.target, test_size=0.25, random_state=SEED, stratify=data.target)
    config = transformers.ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        num_labels=10,
        initializer_range=0.05,
    )
    model = transformers.ViTForImageClassification(config)
    fit(model, {"pixel_values": train}, labels, epochs=50, batch=64, rate=1e-3, noise=0.2, log=log)
    return model, {"pixel_values": train}, labels, {"pixel_values": test}, wanted


def docs(log: Console, fewest: int = 140, most: int = 250) -> tuple[torch.nn.Module, Arrays, np.ndarray, Arrays, np.ndarray]:
    """MiniLM, tuned to tell the modules with the most sentences apart."""
    found = {name: texts[:most] for name, texts in sentences_by_module().items() if len(texts) >= fewest}
    names = sorted(found)
    texts = [text for name in names for text in found[name]]
    classes = np.repeat(np.arange(len(names)), [len(found[name]) for name in names])
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
    tokens = dict(tokenizer(texts, padding=True, truncation=True, max_length=48, return_tensors="np"))
    order = train_test_split(np.arange(len(texts)), test_size=0.5, random_state=SEED, stratify=classes)
    train, test = ({name: array[index].astype(np.int64) for name, array in tokens.items()} for index in order)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        minilm(), num_labels=len(names), id2label=dict(enumerate(names)), label2id={name: at for at, name in enumerate(names)}
    )
    fit(model, train, classes[order[0]], epochs=3, batch=32, rate=1e-4, log=log)
    return model, train, classes[order[0]], test, classes[order[1]]


def fit(
    model: torch.nn.Module,
    inputs: Arrays,
    labels: np.ndarray,
    *,
    epochs: int,
    batch: int,
    rate: float,
    log: Console,
    noise: float = 0.0,
) -> None:
    """Train with AdamW and a rate that rises and falls; ``noise`` is added to inputs that are no whole numbers."""
    steps = epochs * (-(-len(labels) // batch))
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    model.train()
    for epoch in range(epochs):
        for index in torch.randperm(len(labels)).split(batch):
            feeds = next(Dataset("training", {name: array[index.numpy()] for name, array in inputs.items()}).batches(batch))
            tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
            tensors |= {
                name: tensor + noise * torch.randn_like(tensor) for name, tensor in tensors.items() if tensor.is_floating_point()
            }
            loss = model(**tensors, labels=torch.from_numpy(labels[index.numpy()])).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % max(1, epochs // 6) == 0:
            log.print(f"  epoch {epoch + 1} of {epochs}, loss {loss.item():.3f}", highlight=False)
    model.eval()


def add_outliers(model: torch.nn.Module, layer: int = 2, channels: tuple[int, ...] = (5, 70, 200), factor: float = 300.0) -> None:
    """Make channels of a layer's values, and so of its context, larger, and what reads them smaller: the function stays."""
    attention = model.bert.encoder.layer[layer].attention
    index = list(channels)
    with torch.no_grad():
        attention.self.value.weight[index] *= factor
        attention.self.value.bias[index] *= factor
        attention.output.dense.weight[:, index] /= factor


def save(model: torch.nn.Module, folder: Path, sets: dict[str, tuple[Arrays, np.ndarray]]) -> None:
    """The checkpoint, and each set of samples in a folder of its own."""
    model.save_pretrained(folder)
    for name, (inputs, labels) in sets.items():
        (folder / name).mkdir(exist_ok=True)
        for column, array in (inputs | {"labels": labels.astype(np.int64)}).items():
            np.save(folder / name / f"{column}.npy", array)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    log = Console(stderr=True)
    for name, make in (("digits-vit", digits), ("docs-bert", docs)):
        start = time.perf_counter()
        torch.manual_seed(SEED)
        log.print(f"training {name}")
        model, train, labels, test, wanted = make(log)
        with torch.inference_mode():
            answers = model(**{column: torch.from_numpy(array) for column, array in test.items()}).logits.argmax(1).numpy()
        accuracy, f1 = score(answers, wanted)
        some = slice(0, CALIBRATION)
        calibration = {column: array[some] for column, array in train.items()}
        sets = {"test": (test, wanted), "calibration": (calibration, labels[some])}
        save(model, arguments.output / name, sets)
        if name == "docs-bert":
            add_outliers(model)
            save(model, arguments.output / f"{name}-outliers", sets)
        sys.stdout.write(
            f"{name}: accuracy {accuracy:.4f}, F1 {f1:.4f} on {len(wanted)} test samples, {time.perf_counter() - start:.0f} s\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
