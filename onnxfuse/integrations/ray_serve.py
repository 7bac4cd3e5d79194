"""A model behind Ray Serve: rows of HTTP requests, answered as ``onnxfuse map`` answers those of files.

A request is ``{"rows": [...]}``: texts, or objects with the model's columns (``question`` and ``context``), or images as base64
of their files. Its answer is ``{"answers": [...]}``, one for each row: the columns that map writes, or ``error`` where there is
none.

Source: Ray Serve's deployments, and ``serve.batch``: rows of requests that come together are answered in one call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxfuse.bulk.answering import Answering
from onnxfuse.bulk.use import ROWS
from onnxfuse.errors import MissingExtraError

try:
    from ray import serve
    from starlette.requests import Request
    from starlette.responses import JSONResponse
except ImportError as error:
    raise MissingExtraError("serving with Ray", "ray-serve") from error

WAIT = 0.005
"""Seconds that a row waits for others to come."""

WANTED = 'wanted {"rows": ["a text", ...]}'


@serve.deployment(num_replicas="auto", max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Answers:
    """A replica: a session on one core. Its options say how many there are: see ``serve.deployment``."""

    def __init__(self, model: str, columns: Sequence[str] = (), prompt_name: str | None = None) -> None:
        """As of ``Answering``."""
        self.answering = Answering(Path(model), columns, prompt_name)

    @serve.batch(max_batch_size=ROWS, batch_wait_timeout_s=WAIT)
    async def answers(self, rows: list[Any]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.answering.answers, rows)

    async def __call__(self, request: Request) -> JSONResponse:
        try:
            rows = (await request.json())["rows"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return JSONResponse({"error": f"the request is no JSON with rows, {WANTED}"}, status_code=400)
        if not isinstance(rows, list):
            return JSONResponse({"error": f"rows is {type(rows).__name__}, {WANTED}"}, status_code=400)
        return JSONResponse({"answers": list(await asyncio.gather(*map(self.answers, rows)))})
