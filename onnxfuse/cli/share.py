"""The verb that hands models on: push."""

from __future__ import annotations

from onnxfuse.cli import options
from onnxfuse.cli.console import progress, show


@options.examples(
    "onnxfuse push packages/mine-transformers.js me/mine-onnx",
    "onnxfuse push packages/mine-sentence-transformers me/mine --private",
)
def push(
    folder: options.Package,
    repository: options.Repository,
    private: options.Private = False,
    overwrite: options.OverwriteThere = False,
    as_json: options.Json = False,
) -> None:
    """Put what package wrote into a repository of the Hugging Face hub, with a model card of what was measured."""
    from onnxfuse.pipeline import push as verb

    with progress() as tell:
        made = verb.push(folder, repository, tell, private=private, overwrite=overwrite)
    show(as_json, made.to_json(), f"{folder} to {repository}: {len(made.files)} files", made.url)
