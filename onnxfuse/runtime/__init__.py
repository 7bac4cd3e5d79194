"""Runtimes that execute models. ONNX Runtime today; the interface is a function from feeds to outputs.

    ort   sessions with the options that users get, or named ones
"""

from onnxfuse.runtime.ort import open_session, product_saturates, run

__all__ = ["open_session", "product_saturates", "run"]
