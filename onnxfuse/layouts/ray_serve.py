"""Ray Serve: a folder with the model, what belongs to it, and ``serve_app.py``, an application that answers over HTTP.

Source: ``serve run`` with an import path and its folder.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from onnxfuse.bulk.uses import use_of
from onnxfuse.errors import UsageError
from onnxfuse.inference.serving import Serving
from onnxfuse.io import folders
from onnxfuse.layouts.api import FLOAT, INT8, Content, Layout

APP = {FLOAT: "serve_app.py", INT8: "serve_app_int8.py"}
"""The application of each model."""

TEXT = '''"""Answers rows over HTTP as onnxfuse map does, with the model beside this file. Written by onnxfuse package.

    serve run --app-dir . APP:app
    curl localhost:8000 --json \'REQUEST\'

A replica is a session on one core; Ray Serve starts more of them while requests wait. Needs: pip install "onnxfuse[ray-serve]"
"""

from pathlib import Path

from onnxfuse.integrations.ray_serve import Answers

app = Answers.bind(str(Path(__file__).resolve().parent / "MODEL"))
'''

SENT = {
    ("text",): '{"rows": ["a text", "another"]}',
    ("question", "context"): '{"rows": [{"question": "Who wrote it?", "context": "Ada wrote it."}]}',
}
"""A request, by the columns that a model reads."""

SEEN = '{"rows": [{"image": "base64 of a file"}]}'


def serving_of(content: Content) -> Serving:
    """As the application has it; the model is not opened for what its graph tells."""
    return Serving(content.first.path, lambda feeds: content.first.runner()(feeds), content.inputs, content.outputs)


def refusal(content: Content) -> str:
    """Why ``map`` does not run it either, and the next step."""
    serving = serving_of(content)
    try:
        use_of(serving)
    except UsageError as error:
        return str(error).removeprefix(f"{serving.path} ")
    needed = "preprocessor_config.json" if serving.sees else "tokenizer.json"
    return "" if needed in content.files else f"there is no {needed} beside it; export the checkpoint with it"


def texts(content: Content, precision: str, place: PurePosixPath) -> Mapping[str, str]:
    serving, app = serving_of(content), APP[precision]
    request = SEEN if serving.sees else SENT[use_of(serving).columns]
    return {app: TEXT.replace("APP", PurePosixPath(app).stem).replace("REQUEST", request).replace("MODEL", place.name)}


def use(content: Content, precision: str, folder: str) -> str:
    return f"serve run --app-dir {shlex.quote(folder)} {PurePosixPath(APP[precision]).stem}:app"


LAYOUT = Layout("ray-serve", "Ray Serve", {FLOAT: folders.MODEL, INT8: folders.QUANTIZED}, use, refusal, texts)
