"""I-BERT: RoBERTa in whole numbers alone, as transformers has it; its kernels compute these in float32.

Its weights go by RoBERTa's names. What it lacks are the ranges of activations, which it learns in training: here they come from
random rows, as those of other tools' static int8 do, and nothing is trained.

Source: transformers 5.24 (``models.ibert``: ``IBertConfig.quant_mode``, ``quant_modules.QuantAct``); Kim et al., 2021.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from onnxfuse.errors import ModelError
from onnxfuse.pipeline.baselines.api import Baseline, Context, Made, calibration_rows, in_torch

ROBERTA, IBERT = "roberta", "ibert"
"""How the encoder is called in classes with a head."""

HELD = {"weight_integer", "bias_integer", "weight_scaling_factor", "fc_scaling_factor", "act_scaling_factor", "x_min", "x_max"}
HELD |= {"shift", "position_ids"}
"""Last words of names that no checkpoint of RoBERTa has: whole numbers that follow from its weights, scales, ranges."""


def _open(context: Context) -> Made:
    """Raises ModelError: the model is no RoBERTa, or has other weights than I-BERT."""
    checkpoint = context.torch()
    if checkpoint.family.model_type != ROBERTA:
        raise ModelError(
            f"I-BERT takes the weights of RoBERTa, and {checkpoint.name} is of family {checkpoint.family.model_type}"
        )
    given = checkpoint.module.model
    model = _loaded(given)
    module = copy.deepcopy(checkpoint.module, {id(given): model}).eval()
    made = in_torch(replace(checkpoint, module=module), context)
    ranged = [part for part in model.modules() if hasattr(part, "x_min")]
    for part in ranged:
        part.train()  # it takes down what it sees; the rest does not train
    for feeds in calibration_rows(context.model):
        made.run(feeds)
    module.eval()
    return made


def _loaded(given: Any) -> Any:
    """The class of I-BERT that a class of RoBERTa is called like, with its weights. Raises ModelError."""
    import transformers

    name = type(given).__name__.replace("Roberta", "IBert")
    kind = getattr(transformers, name, None)
    if kind is None:
        raise ModelError(f"transformers has no {name}; give a model of another task")
    config = transformers.IBertConfig(**{**given.config.to_dict(), "model_type": IBERT, "quant_mode": True})
    model = kind(config)
    weights = {_renamed(key): weight for key, weight in given.state_dict().items() if key.rpartition(".")[2] not in HELD}
    found = model.load_state_dict(weights, strict=False)
    lacking = [key for key in found.missing_keys if key.rpartition(".")[2] not in HELD]
    if lacking or found.unexpected_keys:
        raise ModelError(f"{name} and {type(given).__name__} differ in {', '.join((lacking + found.unexpected_keys)[:3])}")
    return model


def _renamed(key: str) -> str:
    return f"{IBERT}{key.removeprefix(ROBERTA)}" if key.startswith(f"{ROBERTA}.") else key


BASELINE = Baseline("ibert", "int8", _open)
