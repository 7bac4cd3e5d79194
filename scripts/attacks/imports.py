"""Everything that a case may import, imported once before the first fork, and the command line as a call."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence

BESIDE = ("torch", "transformers", "transformers.models.auto.tokenization_auto", "transformers.models.bert.modeling_bert",
          "onnxruntime", "onnxscript", "safetensors.torch", "h5py", "datasets", "torch.onnx", "tokenizers", "matplotlib",
          "onnxruntime.quantization", "onnxruntime.transformers.optimizer")  # fmt: skip
"""What verbs import when they run."""


def everything() -> None:
    """Import the package and what its verbs use; no session is opened and no thread started."""
    import onnxfuse

    for name in BESIDE:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    for each in pkgutil.walk_packages(onnxfuse.__path__, "onnxfuse."):
        if not each.name.endswith("__main__"):
            try:
                importlib.import_module(each.name)
            except ImportError:  # a framework that is not installed
                continue
    from onnxfuse.measure import benchmark

    benchmark.SETTLE = 0.0


def run(arguments: Sequence[str]) -> None:
    """The command line. Raises SystemExit."""
    from onnxfuse.cli.app import main

    sys.argv = ["onnxfuse", *arguments]
    main()
