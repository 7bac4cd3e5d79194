"""Where a checkpoint's files are: a folder or a hub id, and the folder of its model in there. Each file is checked when found."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from onnxfuse.errors import ExportError, ModelError, one_line
from onnxfuse.io import door, files
from onnxfuse.io.hub import absent

ADAPTER, MERGE = "adapter_config.json", "merge it into its model (merge_and_unload) and save that"


@dataclass(frozen=True)
class Home:
    """A checkpoint's folder or hub id.

    Args:
        source: what the user called it.
        folder: where in there the model lies; empty at the top.
    """

    source: str
    folder: str = ""

    def __str__(self) -> str:
        return str(PurePosixPath(self.source) / self.folder) if self.folder else self.source

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return Path(self.source).is_dir()

    def inner(self, folder: str) -> Home:
        """The home of a folder inside. Raises ExportError for a path that leads out of it."""
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts or "\\" in folder:
            raise ExportError(f"{self.source}: modules.json names the folder {folder!r}, which is not inside; correct it")
        return Home(self.source, "" if str(path) == "." else str(PurePosixPath(self.folder) / path))

    def find(self, name: str) -> Path | None:
        """A file by its name, in the folder or by a link of the hub's cache; None where there is none.

        Raises:
            ExportError: it lies elsewhere, or is no regular file.
            ModelError: it has no content (a git-lfs pointer).
        """
        path = self._path(name)
        if path is None:
            return None
        if wrong := files.flaw(door.linked(path, self._root(path, name), ExportError)):
            raise ModelError(f"{path} {wrong}")
        return path

    def has(self, name: str) -> bool:
        """Whether there is such a file, broken or not."""
        return self._path(name) is not None

    def config(self) -> dict[str, Any]:
        """config.json. Raises ModelError when it is no JSON object, ExportError when there is none."""
        path = self.find("config.json") if self.local else self._downloaded()
        if path is None:
            advice = "give the folder that save_pretrained wrote"
            if self.has(ADAPTER):
                advice = f"it has an adapter ({ADAPTER}): {MERGE}"
            raise ExportError(f"cannot load the checkpoint in {self}: it has no config.json; {advice}")
        return files.read_object(path)

    def _root(self, path: Path, name: str) -> Path:
        """The folder that a file of this home must lie in: what the user named, or the hub's snapshot."""
        return Path(self.source) if self.local else path.parents[len(PurePosixPath(self.folder, name).parts) - 1]

    def _path(self, name: str) -> Path | None:
        if self.local:
            path = Path(self.source) / self.folder / name
            return path if os.path.lexists(path) else None
        from transformers.utils.hub import cached_file

        with door.reading(self.source, "a checkpoint of the hub", ExportError, "check the name, or give a local folder"):
            found = cached_file(
                self.source,
                name,
                subfolder=self.folder,
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
        return None if found is None else Path(found)

    def _downloaded(self) -> Path:
        """The hub id's config.json. Raises ExportError with the hub's reason when it cannot be had."""
        from transformers.utils.hub import cached_file

        try:
            return Path(cached_file(self.source, "config.json", subfolder=self.folder) or "")
        except Exception as error:
            raise absent(self.source, one_line(error, 120)) from error
