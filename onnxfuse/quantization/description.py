"""What an int8 model is and how it was made: for people, for JSON, and for the metadata of its own file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.quantization.formats import FormatChoice
from onnxfuse.quantization.linears import find_embeddings
from onnxfuse.quantization.prepare import Prepared, reduce_range


@dataclass(frozen=True)
class Description:
    """An int8 model in words and numbers.

        description = Description.of(prepared, choice, kept, calibration, rows)
        model.metadata_props[calibrated.METADATA] = description.metadata()
        details = description.to_json()

    Args:
        scheme: "dynamic" or "static".
        format: "dynamic", "qdq" or "qoperator".
        formats: of the static formats that were measured to choose one, milliseconds.
        reduce_range: whether weights are held from clipping.
        matmuls, embeddings: how many are int8.
        calibration: what it was calibrated with; None where it was not.
        rows: asked for in a batch.
        batch: rows in a batch of the calibration data.
        notes: what was done to that data.
        smoothed: SmoothQuant's alpha of each linear layer that was smoothed, by its role.
        kept: the roles of the linear layers that stayed float.
    """

    scheme: str
    format: str
    formats: Mapping[str, float]
    reduce_range: bool
    matmuls: int
    embeddings: int
    calibration: str | None
    rows: int
    batch: int
    notes: tuple[str, ...]
    smoothed: Mapping[str, float]
    kept: tuple[str, ...]
    weights: str = "s8 per channel"
    activations: str = "u8"

    @classmethod
    def of(
        cls, prepared: Prepared, choice: FormatChoice, kept: Sequence[str], calibration: Dataset | None, rows: int
    ) -> Description:
        """Of the model that ``write(prepared, kept, choice.format)`` makes.

        Args:
            kept: names of linear layers that stay float.
            calibration: the data that ``prepared`` is calibrated with, ``rows`` at a time.
        """
        roles = {linear.name: linear.role for linear in prepared.linears}
        return cls(
            scheme="static" if prepared.scheme.static else "dynamic",
            format=choice.format,
            formats=choice.milliseconds,
            reduce_range=reduce_range(prepared.scheme),
            matmuls=len(roles) - len(kept),
            embeddings=len(find_embeddings(prepared.model)) if prepared.scheme.embeddings else 0,
            calibration=None if calibration is None else calibration.name,
            rows=rows,
            batch=rows if calibration is None else calibration.rows(rows),
            notes=() if calibration is None else calibration.notes,
            smoothed={roles[name]: alpha for name, alpha in prepared.smoothed.items()},
            kept=tuple(roles[name] for name in kept),
        )

    def to_json(self) -> dict[str, Any]:
        """For ``--json`` and the folder's record."""
        return {
            "scheme": self.scheme,
            "format": self.format,
            "formats": dict(self.formats),
            "weights": self.weights,
            "activations": self.activations,
            "reduce_range": self.reduce_range,
            "matmuls": self.matmuls,
            "embeddings": self.embeddings,
            "calibration": self.calibration,
            "batch": self.batch,
            "notes": list(self.notes),
            "smoothed": dict(self.smoothed),
            "float": list(self.kept),
        }

    def metadata(self) -> str:
        """For the file's own metadata, under ``calibrated.METADATA``, which ``calibrated.real_inputs`` reads.

        Data go by their last name: a path would tell whose machine it was.
        """
        name = None if self.calibration is None else Path(self.calibration).name
        return json.dumps({**self.to_json(), "calibration": name, "rows": self.rows})
