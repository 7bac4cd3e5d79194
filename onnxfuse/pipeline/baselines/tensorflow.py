"""TensorFlow: the checkpoint that a model was exported from, in its own framework."""

from __future__ import annotations

from onnxfuse.pipeline.baselines.api import Baseline, Context, Made, checkpoint_of


def _open(context: Context) -> Made:
    from onnxfuse.exporters import checkpoint_runner

    checkpoint = checkpoint_of(context.model, "tf")
    weights = checkpoint.module.get_concrete_function().variables
    return Made(
        checkpoint_runner(checkpoint, context.threads), sum(each.dtype.size * each.shape.num_elements() for each in weights)
    )


BASELINE = Baseline("tensorflow", "fp32", _open)
