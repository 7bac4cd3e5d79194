"""Hostile weights of a checkpoint: safetensors, their index, pickles, HDF5."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from attacks import configs
from attacks.child import Room
from attacks.laying import Lay, fields, ignore, link, pipe, then, write

KINDS: dict[str, Lay] = {}
WEIGHTS, INDEX, H5 = "model.safetensors", "model.safetensors.index.json", "tf_model.h5"
LARGEST = "bert.embeddings.word_embeddings.weight"


def _named(name: str) -> Callable[[Lay], Lay]:
    def keep(lay: Lay) -> Lay:
        KINDS[name] = lay
        return lay

    return keep


# safetensors -----------------------------------------------------------------------------------------------------


def _header(change: Callable[[dict[str, Any]], object]) -> Lay:
    """The weights' header, changed."""

    def lay(room: Room, folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        change(header)
        text = json.dumps(header).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])

    return lay


KINDS |= {
    "weights-empty": write(WEIGHTS, b""),
    "weights-short": write(WEIGHTS, b"\x01\x02"),
    "weights-length": write(WEIGHTS, struct.pack("<Q", 2**63) + b"{}"),
    "weights-header-list": write(WEIGHTS, struct.pack("<Q", 2) + b"[]"),
    "weights-header-deep": write(WEIGHTS, struct.pack("<Q", 200_000) + b"[" * 200_000),
    "weights-none": write(WEIGHTS, struct.pack("<Q", 2) + b"{}"),
    "weights-offsets": _header(lambda header: header[LARGEST].update(data_offsets=[0, 2**60])),
    "weights-overlap": _header(lambda header: header[LARGEST].update(data_offsets=[0, 4])),
    "weights-negative": _header(lambda header: header[LARGEST].update(data_offsets=[-4, 4])),
    "weights-shape": _header(lambda header: header[LARGEST].update(shape=[2**32, 2**32])),
    "weights-dtype": _header(lambda header: header[LARGEST].update(dtype="EVIL")),
    "weights-metadata": _header(lambda header: header.update(__metadata__=[1])),
    "weights-format": _header(lambda header: header.update(__metadata__={"format": "evil"})),
    "weights-name": _header(lambda header: header.update({"../../outside/x": header.pop(LARGEST)})),
    "weights-link": link(WEIGHTS, "../../outside/checkpoint/model.safetensors"),
    "weights-pipe": pipe(WEIGHTS),
    "weights-device": link(WEIGHTS, "/dev/zero"),
    "weights-folder": lambda room, folder: ((folder / WEIGHTS).unlink(), (folder / WEIGHTS).mkdir(), None)[-1],
    "inside-weights-hard-link": lambda room, folder: ((folder / WEIGHTS).unlink(), os.link(room.outside / "checkpoint" / WEIGHTS, folder / WEIGHTS), None)[-1],
}  # fmt: skip


def _arrays(change: Callable[[dict[str, np.ndarray]], object]) -> Lay:
    def lay(room: Room, folder: Path) -> None:
        arrays = load_file(folder / WEIGHTS)
        change(arrays)
        save_file(arrays, folder / WEIGHTS, metadata={"format": "pt"})

    return lay


KINDS |= {
    "weights-small": _arrays(lambda arrays: arrays.update({LARGEST: np.zeros((2, 2), np.float32)})),
    "weights-scalar": _arrays(lambda arrays: arrays.update({LARGEST: np.zeros((), np.float32)})),
    "weights-whole": _arrays(lambda arrays: arrays.update({LARGEST: arrays[LARGEST].astype(np.int64)})),
    "weights-nan": _arrays(lambda arrays: arrays.update({LARGEST: arrays[LARGEST] * np.nan})),
    "weights-missing": _arrays(lambda arrays: arrays.pop(LARGEST)),
    "weights-many": _arrays(lambda arrays: arrays.update({f"bert.more.{at}": np.zeros(1, np.float32) for at in range(20_000)})),
    "weights-layers": _arrays(lambda arrays: arrays.update({f"bert.encoder.layer.{10**9}.x.weight": np.zeros(1, np.float32)})),
}


def _index(named: Any) -> Lay:
    """An index in place of the weights; every weight is said to lie in ``named``, or the whole map is."""

    def lay(room: Room, folder: Path) -> None:
        names = list(load_file(folder / WEIGHTS))
        (folder / WEIGHTS).rename(folder / "shard.safetensors")
        text = named.format(outside=room.outside) if isinstance(named, str) else named
        table = dict.fromkeys(names, text) if isinstance(named, str) else named
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": table}))

    return lay


KINDS |= {
    "index-up": _index("../../outside/checkpoint/model.safetensors"),
    "index-absolute": _index("{outside}/checkpoint/model.safetensors"),
    "index-list": _index([1]),
    "index-empty": _index({}),
    "index-number": _index({"a": 1}),
    "index-missing": _index("nothing.safetensors"),
    "index-nul": _index("a\x00b"),
    "index-link": then(_index("far.safetensors"), link("far.safetensors", "../../outside/checkpoint/model.safetensors")),
    "index-folder": then(_index("far/model.safetensors"), link("far", "../../outside/checkpoint")),
    "index-pipe": then(_index("far.safetensors"), pipe("far.safetensors")),
    "index-itself": _index(INDEX),
    "index-two": lambda room, folder: ignore((folder / INDEX).write_text(json.dumps({"weight_map": {LARGEST: "../../outside/checkpoint/model.safetensors"}}))),
    "index-deep": then(_index("shard.safetensors"), write(INDEX, configs.WHOLE["deep"])),
}  # fmt: skip


# pickles, HDF5 ---------------------------------------------------------------------------------------------------


@_named("odd-pickle")
def _pickle(room: Room, folder: Path) -> None:
    """A pickle that writes outside."""
    (folder / WEIGHTS).unlink()
    code = b"cposix\nsystem\n(S'touch ../outside/pwned'\ntR."
    (folder / "pytorch_model.bin").write_bytes(code)


@_named("code-beside")
def _code(room: Room, folder: Path) -> None:
    for name in ("evil.py", "modeling_bert.py", "conftest.py", "setup.py", "__init__.py"):
        (folder / name).write_text("open('../outside/pwned', 'w')\n")
    fields("config.json", auto_map={"AutoConfig": "evil.C", "AutoModelForSequenceClassification": "evil.M"})(room, folder)
    fields("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})(room, folder)


def _h5(change: Callable[[Any, Room], None]) -> Lay:
    """tf_model.h5 in place of the weights, with one data set made otherwise."""

    def lay(room: Room, folder: Path) -> None:
        import h5py

        arrays = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        with h5py.File(room.outside / "there.h5", "w") as file:
            file["secret"] = arrays[LARGEST]
        with h5py.File(folder / H5, "w") as file:
            for name, array in arrays.items():
                file[_place(name)] = array
            change(file, room)

    return lay


def _place(name: str) -> str:
    return "layer/model/" + name.replace(".", "/")


@_named("inside-h5")
def _plain_h5(room: Room, folder: Path) -> None:
    _h5(lambda file, room: None)(room, folder)


def _outside(room: Room, folder: Path, place: str) -> None:
    """The largest weight in a file of external storage."""

    def change(file: Any, room: Room) -> None:
        shape = file[_place(LARGEST)].shape
        del file[_place(LARGEST)]
        file.create_dataset(_place(LARGEST), shape, "f4", external=[(place, 0, int(np.prod(shape)) * 4)])

    _h5(change)(room, folder)


@_named("h5-storage")
def _storage(room: Room, folder: Path) -> None:
    _outside(room, folder, str(room.outside / "secret.bin"))


@_named("h5-storage-up")
def _storage_up(room: Room, folder: Path) -> None:
    _outside(room, folder, "../outside/secret.bin")


@_named("h5-virtual")
def _virtual(room: Room, folder: Path) -> None:
    import h5py

    def change(file: Any, room: Room) -> None:
        shape = file[_place(LARGEST)].shape
        del file[_place(LARGEST)]
        layout = h5py.VirtualLayout(shape, "f4")
        layout[...] = h5py.VirtualSource(str(room.outside / "there.h5"), "secret", shape)
        file.create_virtual_dataset(_place(LARGEST), layout)

    _h5(change)(room, folder)


def _linked(link: Callable[[Any, Room], Any]) -> Lay:
    def change(file: Any, room: Room) -> None:
        del file[_place(LARGEST)]
        import h5py

        file[_place(LARGEST)] = link(h5py, room)

    return _h5(change)


def _set(name: str, make: Callable[[Any], Any]) -> Lay:
    def change(file: Any, room: Room) -> None:
        del file[_place(LARGEST)]
        make(file)

    return _h5(change)


KINDS |= {
    "h5-link": _linked(lambda h5py, room: h5py.ExternalLink(str(room.outside / "there.h5"), "secret")),
    "h5-soft-circle": _linked(lambda h5py, room: h5py.SoftLink("/" + _place(LARGEST))),
    "h5-group-circle": _h5(lambda file, room: file.__setitem__("layer/again", file["layer"])),
    "h5-huge": _set("h5-huge", lambda file: file.create_dataset(_place(LARGEST), (2**20, 2**20), "f4", chunks=(1, 2**20))),
    "h5-text": _set("h5-text", lambda file: file.create_dataset(_place(LARGEST), data=b"text")),
    "h5-scalar": _set("h5-scalar", lambda file: file.create_dataset(_place(LARGEST), data=1.0)),
    "h5-empty": write(H5, b""),
    "h5-none": then(write(H5, b"\x89HDF\r\n\x1a\n" + bytes(200)), lambda room, folder: (folder / WEIGHTS).unlink()),
    "h5-top": _h5(lambda file, room: file.create_dataset("short", data=1.0)),
    "h5-file-link": then(_h5(lambda file, room: None), lambda room, folder: ignore(shutil.move(folder / H5, room.outside / H5)), link(H5, "../../outside/tf_model.h5")),
    "h5-pipe": then(lambda room, folder: (folder / WEIGHTS).unlink(), pipe(H5)),
}  # fmt: skip
