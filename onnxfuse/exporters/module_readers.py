"""One reader for each kind of module behind a sentence encoder's encoder: its config.json and weights become a step.

Source: sentence-transformers 6.2's modules, and how 2 to 5 save them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from onnxfuse.errors import ExportError
from onnxfuse.exporters import weights
from onnxfuse.exporters.home import Home
from onnxfuse.exporters.sentence import ACTIVATIONS, MODES, SENTENCE, TOKENS, Dense, LayerNorm, Normalize, Pooling, Splade, Step
from onnxfuse.io import files
from onnxfuse.io.sides import PADDING, options_of, side

MODULES, PROMPTS = "modules.json", "config_sentence_transformers.json"

OLD_MODE = "pooling_mode_"
OLD_MODES = {
    f"{OLD_MODE}cls_token": "cls",
    f"{OLD_MODE}max_tokens": "max",
    f"{OLD_MODE}mean_tokens": "mean",
    f"{OLD_MODE}mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    f"{OLD_MODE}weightedmean_tokens": "weightedmean",
    f"{OLD_MODE}lasttoken": "lasttoken",
}
"""Modes as sentence-transformers below 6 writes them, each true or false; results stand in this order."""


def read_config(home: Home, name: str) -> dict[str, Any]:
    path = home.find(name)
    return {} if path is None else files.read_object(path)


def require_known(home: Home, name: str, config: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse what a module's config asks for and nobody here has heard of."""
    unknown = [field for field, value in config.items() if field not in known and value not in (None, False)]
    if unknown:
        raise refused(home, f"{name} asks for {', '.join(unknown)}, which onnxfuse does not know")


def refused(home: Home, why: str) -> ExportError:
    return ExportError(f"{home}: {why}; export the encoder alone with --task feature-extraction")


# One reader a kind of module: its folder, its config.json, and the encoder's folder


def _pooling(home: Home, config: dict[str, Any], encoder: Home) -> Pooling:
    if not config:
        raise ExportError(
            f"{home.source}: {MODULES} names a Pooling, whose {home.folder}/config.json is not there; copy it there"
        )
    old = [mode for name, mode in OLD_MODES.items() if config.get(name)]
    odd = [name for name, value in config.items() if name.startswith(OLD_MODE) and value and name not in OLD_MODES]
    chosen = config.get("pooling_mode") or [*old, *odd] or (["mean"] if set(config) & set(OLD_MODES) else [])
    chosen = [chosen] if isinstance(chosen, str) else chosen
    if not isinstance(chosen, list) or not chosen or any(mode not in MODES for mode in chosen):
        kind = " and ".join(map(str, chosen)) if isinstance(chosen, list) and chosen else "of no kind"
        raise refused(home, f"its pooling is {kind}, wanted some of {', '.join(MODES)}")
    known = ("word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt")
    require_known(home, f"{home}/config.json", {name: value for name, value in config.items() if name not in OLD_MODES}, known)
    return Pooling(tuple(chosen), _pads_left(encoder), config.get("include_prompt") is False)


def _pads_left(encoder: Home) -> bool:
    """Whether texts are padded on the left."""
    asked, settings, whole = (
        read_config(encoder, name) for name in ("sentence_bert_config.json", "tokenizer_config.json", "tokenizer.json")
    )
    return bool(side(PADDING, options_of(asked), settings, whole) == "left")


def _dense(home: Home, config: dict[str, Any], encoder: Home) -> Dense:
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = name.rsplit(".", 1)[-1]
    if not name.startswith("torch.nn.") or activation not in ACTIVATIONS:
        raise refused(home, f"its activation function is {name}, wanted one of torch.nn's {', '.join(ACTIVATIONS)}")
    fields = (
        "in_features",
        "out_features",
        "bias",
        "activation_function",
        "module_input_name",
        "module_output_name",
        "use_residual",
    )
    require_known(home, f"{home}/config.json", config, fields)
    stored = weights.read(weights.require(home))
    out, wide = config.get("out_features"), config.get("in_features")
    shapes: dict[str, tuple[Any, ...]] = {"linear.weight": (out, wide)}
    shapes |= {"linear.bias": (out,)} if config.get("bias", True) else {}
    apart = bool(config.get("use_residual")) and out != wide
    shapes |= {"residual.weight": (out, wide)} if apart else {}
    _require_shapes(home, stored, shapes)
    source = config.get("module_input_name") or SENTENCE
    target = config.get("module_output_name") or source
    _require_features(home, source, target)
    none = np.zeros((0, 0), np.float32) if config.get("use_residual") else None
    return Dense(
        stored["linear.weight"],
        stored.get("linear.bias"),
        activation,
        source,
        target,
        stored["residual.weight"] if apart else none,
    )


def _layer_norm(home: Home, config: dict[str, Any], encoder: Home) -> LayerNorm:
    require_known(home, f"{home}/config.json", config, ("dimension",))
    stored, size = weights.read(weights.require(home)), (config.get("dimension"),)
    _require_shapes(home, stored, {"norm.weight": size, "norm.bias": size})
    return LayerNorm(stored["norm.weight"], stored["norm.bias"])


def _normalize(home: Home, config: dict[str, Any], encoder: Home) -> Normalize:
    own = config if home.folder != encoder.folder else {}  # old ones have no files, and may name the encoder's folder
    require_known(home, f"{home}/config.json", own, ("module_input_name", "module_output_name"))
    source = own.get("module_input_name") or SENTENCE
    target = own.get("module_output_name") or source
    _require_features(home, source, target)
    return Normalize(source, target)


def _splade(home: Home, config: dict[str, Any], encoder: Home) -> Splade:
    known = ("pooling_strategy", "activation_function", "embedding_dimension", "word_embedding_dimension")
    require_known(home, f"{home}/config.json", config, known)
    strategy, activation = config.get("pooling_strategy", "max"), config.get("activation_function", "relu")
    for name, value, wanted in (
        ("pooling_strategy", strategy, ("max", "sum")),
        ("activation_function", activation, ("relu", "log1p_relu")),
    ):
        if value not in wanted:
            raise refused(home, f"its {name} is {value!r}, wanted {' or '.join(wanted)}")
    return Splade(strategy == "sum", activation == "log1p_relu")


def _dropout(home: Home, config: dict[str, Any], encoder: Home) -> None:
    """Nothing: it drops in training alone."""


def _require_shapes(home: Home, stored: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse weights of a module that are not those that its config.json asks for."""
    if wrong := sorted(set(stored) ^ set(shapes)):
        raise refused(home, f"its weights are {', '.join(sorted(stored))}, wanted {', '.join(sorted(shapes))} ({wrong[0]})")
    for name, shape in shapes.items():
        if stored[name].shape != shape:
            raise refused(home, f"{name} is {list(stored[name].shape)}, its config.json wants {list(shape)}")


def _require_features(home: Home, *names: Any) -> None:
    """Refuse a module that reads or writes something besides the two embeddings."""
    for name in names:
        if name not in (TOKENS, SENTENCE):
            raise refused(home, f"it reads or writes {name!r}, wanted {TOKENS} or {SENTENCE}")


READERS: dict[str, Callable[[Home, dict[str, Any], Home], Step | None]] = {
    "Pooling": _pooling,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
    "SpladePooling": _splade,
    "Dropout": _dropout,
}
"""The modules that are exported, by their class in sentence-transformers."""
