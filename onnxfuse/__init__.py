"""onnxfuse: from a Hugging Face encoder to the fastest ONNX model for this machine, every rewrite explained and proven.

    import onnxfuse

    exported = onnxfuse.export("bert-base-cased", task="feature-extraction")
    optimized = onnxfuse.optimize(exported)
    quantized = onnxfuse.quantize(optimized, max_drop=0.005, data="test.csv")
    model = onnxfuse.load("onnx/bert-base-cased")
    outputs = model(input_ids=ids, attention_mask=mask, token_type_ids=types)

Each verb takes keyword options, and returns a result with typed fields that serves as the path of its file. What they are asked
to do is data (``OptimizeConfig`` and its kin); every error is an ``OnnxfuseError``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxfuse.api import benchmark as benchmark
    from onnxfuse.api import check as check
    from onnxfuse.api import diff as diff
    from onnxfuse.api import evaluate as evaluate
    from onnxfuse.api import export as export
    from onnxfuse.api import load as load
    from onnxfuse.api import map as map
    from onnxfuse.api import optimize as optimize
    from onnxfuse.api import package as package
    from onnxfuse.api import profile as profile
    from onnxfuse.api import push as push
    from onnxfuse.api import quantize as quantize
    from onnxfuse.api import report as report
    from onnxfuse.bulk.job import MapConfig as MapConfig
    from onnxfuse.config import BenchmarkConfig as BenchmarkConfig
    from onnxfuse.config import ExportConfig as ExportConfig
    from onnxfuse.config import OptimizeConfig as OptimizeConfig
    from onnxfuse.config import PackageConfig as PackageConfig
    from onnxfuse.config import QuantizeConfig as QuantizeConfig
    from onnxfuse.config import Scheme as Scheme
    from onnxfuse.config import Thresholds as Thresholds
    from onnxfuse.config import TuneConfig as TuneConfig
    from onnxfuse.errors import BadRowsError as BadRowsError
    from onnxfuse.errors import ExportError as ExportError
    from onnxfuse.errors import InterruptedWorkError as InterruptedWorkError
    from onnxfuse.errors import MissingExtraError as MissingExtraError
    from onnxfuse.errors import ModelError as ModelError
    from onnxfuse.errors import NotBuiltError as NotBuiltError
    from onnxfuse.errors import NothingToQuantizeError as NothingToQuantizeError
    from onnxfuse.errors import OnnxfuseError as OnnxfuseError
    from onnxfuse.errors import ParityError as ParityError
    from onnxfuse.errors import RequirementError as RequirementError
    from onnxfuse.errors import StorageError as StorageError
    from onnxfuse.errors import UncalibratedError as UncalibratedError
    from onnxfuse.errors import UsageError as UsageError
    from onnxfuse.integrations.accelerate import accelerate as accelerate
    from onnxfuse.integrations.accelerate import load_torch as load_torch
    from onnxfuse.integrations.accelerated import accelerated as accelerated
    from onnxfuse.integrations.sentences import cross_encoder as cross_encoder
    from onnxfuse.integrations.sentences import sentence_transformer as sentence_transformer
    from onnxfuse.model import Model as Model
    from onnxfuse.verify.parity import Parity as Parity

_VERBS = (
    "benchmark",
    "check",
    "diff",
    "evaluate",
    "export",
    "load",
    "map",
    "optimize",
    "package",
    "profile",
    "push",
    "quantize",
    "report",
)
_CONFIGS = (
    "BenchmarkConfig",
    "ExportConfig",
    "OptimizeConfig",
    "PackageConfig",
    "QuantizeConfig",
    "Scheme",
    "Thresholds",
    "TuneConfig",
)
_ERRORS = (
    "BadRowsError",
    "ExportError",
    "InterruptedWorkError",
    "MissingExtraError",
    "ModelError",
    "NotBuiltError",
    "NothingToQuantizeError",
    "OnnxfuseError",
    "ParityError",
    "RequirementError",
    "StorageError",
    "UncalibratedError",
    "UsageError",
)
_MODULES_OF_TORCH = ("accelerate", "load_torch")
_BLOCKS = ("accelerated",)
_SENTENCES = ("cross_encoder", "sentence_transformer")
_MODULES = {
    **dict.fromkeys(_VERBS, "api"),
    **dict.fromkeys(_MODULES_OF_TORCH, "integrations.accelerate"),
    **dict.fromkeys(_BLOCKS, "integrations.accelerated"),
    **dict.fromkeys(_SENTENCES, "integrations.sentences"),
    **dict.fromkeys(_CONFIGS, "config"),
    **dict.fromkeys(_ERRORS, "errors"),
    "MapConfig": "bulk.job",
    "Model": "model",
    "Parity": "verify.parity",
}

__all__ = [*_VERBS, *_MODULES_OF_TORCH, *_BLOCKS, *_SENTENCES, *_CONFIGS, *_ERRORS, "MapConfig", "Model", "Parity"]


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for: the command line starts without what works on models."""
    if name not in _MODULES:
        raise AttributeError(f"module 'onnxfuse' has no attribute {name!r}")
    return getattr(importlib.import_module(f"onnxfuse.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
