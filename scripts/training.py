"""How make_checkpoints.py trains a model, judges it and saves it with its test set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers
from rich.console import Console

from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.evaluation.quality import score

Arrays = dict[str, np.ndarray]
UNASKED = -100
"""The label of a token that nothing is asked of, as transformers writes it."""


@dataclass(frozen=True)
class Samples:
    """A model's inputs, and what is right: ``labels`` [n], ``tags`` [n,S], or ``start_positions`` and ``end_positions`` [n]."""

    inputs: Arrays
    right: Arrays

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def save(self, folder: Path, count: int | None = None) -> None:
        """An .npy file for each column, of the first ``count`` samples."""
        folder.mkdir(parents=True, exist_ok=True)
        for column, array in (self.inputs | self.right).items():
            np.save(folder / f"{column}.npy", array[:count] if column in self.inputs else array[:count].astype(np.int64))


@dataclass(frozen=True)
class Trained:
    """A model with its samples. ``files``: what lies in test/ besides, by name; ``tokenizer``: the folder that it is in."""

    model: torch.nn.Module
    train: Samples
    test: Samples
    files: Mapping[str, str] = field(default_factory=dict)
    tokenizer: Path | None = None

    def score(self) -> str:
        """How often it is right on the test set, in words."""
        inputs, right = self.test.inputs, self.test.right
        found: list[list[np.ndarray]] = []
        with torch.inference_mode():
            for at in range(0, len(self.test), 64):
                outputs = self.model(**{name: torch.from_numpy(array[at : at + 64]) for name, array in inputs.items()})
                found.append([logits.argmax(1 if logits.ndim == 2 else 2).numpy() for logits in outputs.to_tuple()])
        answers = [np.concatenate(parts) for parts in zip(*found, strict=True)]
        if "labels" in right:
            accuracy, f1 = score(answers[0], right["labels"])
            return f"accuracy {accuracy:.4f}, F1 {f1:.4f}"
        if "tags" in right:
            asked = right["tags"] != UNASKED
            accuracy, f1 = score(answers[0][asked], right["tags"][asked])
            return f"accuracy of tokens {accuracy:.4f}, F1 {f1:.4f}"
        both = (answers[0] == right["start_positions"]) & (answers[1] == right["end_positions"])
        return f"exact answers {both.mean():.4f}"

    def save(self, folder: Path, calibration: int) -> None:
        """The checkpoint with its tokenizer, the test set, and ``calibration`` inputs of the training set."""
        self.model.save_pretrained(folder)
        if self.tokenizer is not None:
            transformers.AutoTokenizer.from_pretrained(self.tokenizer).save_pretrained(folder)
        self.test.save(folder / "test")
        self.train.save(folder / "calibration", calibration)
        for name, content in self.files.items():
            (folder / "test" / name).write_text(content, encoding="utf-8")


def fit(
    model: torch.nn.Module, samples: Samples, *, epochs: int, batch: int, rate: float, log: Console, noise: float = 0.0
) -> None:
    """Train with AdamW and a rate that rises and falls; ``noise`` is added to inputs that are no whole numbers."""
    steps = epochs * (-(-len(samples) // batch))
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    model.train()
    for epoch in range(epochs):
        for index in torch.randperm(len(samples)).split(batch):
            rows = {name: array[index.numpy()] for name, array in samples.inputs.items()}
            feeds = next(Dataset("training", rows).batches(batch))
            tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
            tensors |= {
                name: tensor + noise * torch.randn_like(tensor) for name, tensor in tensors.items() if tensor.is_floating_point()
            }
            length = tensors["input_ids"].shape[1] if "input_ids" in tensors else None
            for name, array in samples.right.items():
                tensors["labels" if name == "tags" else name] = torch.from_numpy(array[index.numpy()])
            if "tags" in samples.right:
                tensors["labels"] = tensors["labels"][:, :length].contiguous()
            loss = model(**tensors).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % max(1, epochs // 6) == 0:
            log.print(f"  epoch {epoch + 1} of {epochs}, loss {loss.item():.3f}", highlight=False)
    model.eval()
