"""What ``map`` runs, for rows of requests: the same model, opened alike, and the same answers, a row each."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.bulk.flaws import flaw
from onnxfuse.bulk.job import TOKENS
from onnxfuse.bulk.uses import front_of, use_of
from onnxfuse.bulk.work import choice_of, serving_of
from onnxfuse.errors import UsageError, reason
from onnxfuse.runtime import open_runner

IMAGE = "image"
"""What an image of a request is called: a file's bytes in base64."""


class Answering:
    """A model of one session that computes in one thread. Threads may share it."""

    def __init__(self, path: Path, columns: Sequence[str] = (), prompt_name: str | None = None) -> None:
        """Open it.

        Args:
            path: a model's file, or a folder, as ``load`` takes it.
            columns: what the texts of a row are called; none takes the model's usual names.
            prompt_name: as of ``Model.encode``.

        Raises:
            UsageError: the model is for nothing that is done in bulk, has no such prompt, or the columns are too few or too many.
            ModelError, MissingExtraError: as of ``load``.
        """
        chosen, _ = choice_of(path, 1, None)
        serving = serving_of(chosen, open_runner(chosen.path, chosen.settings, 1))
        self.use = use_of(serving)
        self.columns = tuple(columns) or ((IMAGE,) if serving.sees else self.use.columns)
        if not len(self.use.columns) <= len(self.columns) <= self.use.most:
            wanted = f"{len(self.use.columns)} to {self.use.most}"
            raise UsageError(f"{path} takes {wanted} columns, and {len(self.columns)} are given")
        self.serving = replace(serving, budget=TOKENS, front=front_of(self.use, serving, prompt_name))

    def answers(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """An answer to each row, by the columns that ``map`` writes, or what is wrong with it as ``error``.

        Args:
            rows: texts, or mappings with the model's columns; of an image the bytes of its file in base64.

        Raises:
            ModelError: the model fails.
        """
        found: list[dict[str, Any]] = [{} for _ in rows]
        given, places = [], []
        for at, row in enumerate(rows):
            values = row if isinstance(row, Mapping) else {self.columns[0]: row}
            try:
                if wrong := flaw(values, self.columns) if not self.serving.sees else "":
                    raise UsageError(wrong)
                given.append(self._given(values))
                places.append(at)
            except UsageError as error:
                found[at] = {"error": reason(error, "image 1")}
        if given:
            columns = self.use.run(self.serving, self.use.prepare(self.serving, given))
            for number, at in enumerate(places):
                found[at] = {name: _plain(values[number]) for name, values in columns.items()}
        return found

    def _given(self, values: Mapping[str, Any]) -> Any:
        """A row as the use takes it. Raises UsageError: there is no image, or a broken one."""
        if not self.serving.sees:
            texts = tuple(values[column] for column in self.columns)
            return texts if len(texts) > 1 else texts[0]
        image = values.get(self.columns[0])
        try:
            data = base64.b64decode(image if isinstance(image, str) else "", validate=True)
        except ValueError:
            data = b""
        if not data:
            raise UsageError(f"has no {self.columns[0]}: the bytes of its file in base64")
        return self.serving.images.pixels(data)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
