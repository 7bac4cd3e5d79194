"""Put a package into a repository of the Hugging Face hub, with a model card."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxfuse import layouts
from onnxfuse.errors import MissingExtraError, StorageError, UsageError, one_line
from onnxfuse.io import commit, folders
from onnxfuse.io.ours import is_ours
from onnxfuse.io.progress import Progress, silent
from onnxfuse.layouts.api import HUB
from onnxfuse.pipeline.card import CARD, card
from onnxfuse.pipeline.package import content_of

PART = r"(?!.*(?:--|\.\.))[A-Za-z0-9](?:[\w.-]*\w)?"
ID = re.compile(rf"{PART}/{PART}", re.ASCII)
"""What the hub takes for the name of a repository with its owner."""


@dataclass(frozen=True)
class Pushed:
    """What was put where: the repository's id, the address of the commit, and the names of the files."""

    repository: str
    url: str
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"repository": self.repository, "url": self.url, "files": list(self.files)}


def push(folder: Path, repository: str, progress: Progress = silent, *, private: bool = False, overwrite: bool = False) -> Pushed:
    """Put what ``package`` wrote into a repository of the hub, in one commit; it comes to be where it is not there.

    Nothing else of the folder goes there; only a README.md in it, instead of the card that would be made. Who may write there is
    what huggingface_hub knows: ``hf auth login``, or HF_TOKEN.

    Args:
        repository: its id, ``OWNER/NAME``.
        private: of a new one, whether only its owner sees it.
        overwrite: whether files may be replaced in a repository that ``push`` did not fill.

    Raises:
        UsageError: no repository can have that name, the folder is no package in the hub's layout, a file of it was changed, or
            the repository has files of others.
        MissingExtraError: huggingface_hub is not installed. StorageError: the hub cannot be reached, or refuses.
    """
    if not isinstance(repository, str) or not ID.fullmatch(repository):
        raise UsageError(f"the repository is {repository!r:.80}, wanted OWNER/NAME, of letters, digits, - _ and .")
    commit.settle(folder)
    steps = _steps(folder)
    names = sorted({name for step in steps for name in step["made"]})
    if changed := [name for name in names if not is_ours(folder, name)]:
        raise UsageError(f"{folder / changed[0]} was changed or removed since it was packaged; package the model again")
    content = content_of(folders.source_file(folder, folders.MODEL, folders.QUANTIZED))
    own = folder / CARD
    text = own.read_text(encoding="utf-8") if own.is_file() else card(content, steps, repository)
    hub = _hub()
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    files = (*names, folders.RECORD, CARD)
    progress(f"asking for {repository}")
    with_hub = _Hub(repository)
    with_hub.call(lambda: api.create_repo(repository, private=private, exist_ok=True))
    there = set(with_hub.call(lambda: api.list_repo_files(repository)))
    if folders.RECORD not in there and not overwrite and (taken := sorted(there & set(files))):
        raise UsageError(f"{repository} has a {taken[0]} that onnxfuse did not make; choose another, or add --overwrite")
    progress(f"sending {len(files)} files")
    sent = [hub.CommitOperationAdd(name, folder / name) for name in (*names, folders.RECORD)]
    sent.append(hub.CommitOperationAdd(CARD, text.encode()))
    done = with_hub.call(lambda: api.create_commit(repository, sent, commit_message="Add models made with onnxfuse"))
    return Pushed(repository, str(done.commit_url), files)


def _steps(folder: Path) -> list[Mapping[str, Any]]:
    """The packagings in the hub's layout that a folder's record holds. Raises UsageError."""
    known = layouts.layouts()
    steps = [
        step
        for name, step in folders.recorded(folder).items()
        if name.startswith("package for ") and (chosen := known.get(step["plan"]["layout"])) and chosen.places == HUB
    ]
    if not steps:
        fitting = ", ".join(name for name, each in known.items() if each.places == HUB)
        raise UsageError(
            f"{folder} is no package in the hub's layout; make one with: onnxfuse package MODEL --for LIBRARY, of {fitting}"
        )
    return steps


class _Hub:
    """Calls of huggingface_hub, whose failures are one line."""

    def __init__(self, repository: str) -> None:
        self.repository = repository

    def call(self, ask: Any) -> Any:
        """What a call gives. Raises StorageError: nothing was put there."""
        try:
            return ask()
        except Exception as error:
            code = getattr(getattr(error, "response", None), "status_code", None)
            advice = "log in with: hf auth login" if code in (401, 403) else "check the name and the connection"
            raise StorageError(f"cannot write to {self.repository} on the hub ({one_line(error, 160)}); {advice}") from error


def _hub() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise MissingExtraError("pushing to the hub", "torch") from error
