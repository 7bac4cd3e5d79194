"""Hostile data sets, for evaluate and for quantize's calibration."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from attacks import configs
from attacks.child import Case, Command, Room
from attacks.escapes import furnish
from attacks.sources import Sources

Lay = Callable[[Path], None]
KINDS: dict[str, tuple[str, Lay]] = {}
"""The name of the file or folder that is given, and what lays it down."""

IDS = np.full((12, 8), 6)
GOOD: dict[str, Any] = {
    "input_ids": IDS,
    "attention_mask": np.ones_like(IDS),
    "token_type_ids": np.zeros_like(IDS),
    "labels": np.arange(12) % 3,
}


def cases(sources: Sources, _: int) -> list[Case]:
    """Every kind with both verbs."""
    verbs: dict[str, Callable[[str], Command]] = {
        "evaluate": lambda name: ["evaluate", "model.onnx", "--data", name, "--rounds", "1", "--threads", "1"],
        "quantize": lambda name: ["quantize", "model.onnx", "-o", "made.onnx", "--calibration", name],
    }

    def builder(name: str, lay: Lay, verb: str) -> Callable[[Room], Command]:
        def build(room: Room) -> Command:
            furnish(room, sources)
            lay(room.work)
            return verbs[verb](name)

        return build

    return [Case("data", kind, verb, builder(name, lay, verb)) for kind, (name, lay) in KINDS.items() for verb in verbs]


def _file(name: str, data: bytes) -> tuple[str, Lay]:
    return name, lambda folder: _ignore((folder / name).write_bytes(data))


def _ignore(_: object) -> None:
    return None


def _columns(**changed: Any) -> tuple[str, Lay]:
    """A folder of .npy files; bytes are written as they are, None is left out."""

    def lay(folder: Path) -> None:
        shutil.rmtree(folder / "data")
        (folder / "data").mkdir()
        for name, value in (GOOD | changed).items():
            if isinstance(value, bytes):
                (folder / "data" / f"{name}.npy").write_bytes(value)
            elif value is not None:
                np.save(folder / "data" / f"{name}.npy", value, allow_pickle=True)

    return "data", lay


def _npy(header: str, data: bytes = b"") -> bytes:
    """An .npy file of any header."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + data


def _npz(members: dict[str, bytes]) -> tuple[str, Lay]:
    def lay(folder: Path) -> None:
        with zipfile.ZipFile(folder / "data.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    return "data.npz", lay


def _zeros(gigabytes: int) -> tuple[str, Lay]:
    """Few bytes that unpack to many."""

    def lay(folder: Path) -> None:
        header = _npy(f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({gigabytes << 27},), }}")
        with (
            zipfile.ZipFile(folder / "data.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("input_ids.npy", "w", force_zip64=True) as member,
        ):
            member.write(header)
            for _ in range(gigabytes << 4):
                member.write(bytes(1 << 26))

    return "data.npz", lay


def _saved(change: Callable[[Path], object]) -> tuple[str, Lay]:
    """A folder of the datasets library, changed."""

    def lay(folder: Path) -> None:
        import datasets

        datasets.disable_progress_bars()
        shutil.rmtree(folder / "data")
        datasets.Dataset.from_dict({name: value.tolist() for name, value in GOOD.items()}).save_to_disk(folder / "data")
        change(folder / "data")

    return "data", lay


def _json(file: str, value: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())


def _state(**fields: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        known = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps(known | fields))

    return change


def _packed(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


KINDS |= {f"columns-{name}": _columns(**changed) for name, changed in {
    "ids-large": {"input_ids": IDS * 10**6}, "ids-negative": {"input_ids": -IDS}, "ids-float": {"input_ids": IDS / 7},
    "ids-object": {"input_ids": np.array([[1], [2, 3]], object)}, "ids-text": {"input_ids": np.array([["a"] * 8] * 12)},
    "ids-scalar": {"input_ids": np.array(1)}, "ids-flat": {"input_ids": np.arange(12)}, "ids-deep": {"input_ids": IDS[:, :, None, None]},
    "ids-structured": {"input_ids": np.zeros(12, [("a", "i8")])}, "ids-date": {"input_ids": np.zeros((12, 8), "M8[s]")},
    "ids-complex": {"input_ids": IDS * 1j}, "ids-empty": {"input_ids": np.zeros((0, 8), np.int64)}, "ids-narrow": {"input_ids": np.zeros((12, 0), np.int64)},
    "mask-short": {"attention_mask": np.ones((12, 3), np.int64)}, "mask-zero": {"attention_mask": np.zeros_like(IDS)},
    "mask-nan": {"attention_mask": IDS * np.nan}, "labels-text": {"labels": np.array(["x"] * 12)}, "labels-large": {"labels": np.full(12, 2**62)},
    "labels-square": {"labels": np.ones((12, 12), np.int64)}, "labels-float": {"labels": np.ones(12) * 0.5}, "labels-negative": {"labels": np.full(12, -7)},
    "cut": {"input_ids": _packed(IDS)[:90]}, "no-npy": {"input_ids": b"text"}, "no-content": {"input_ids": b""},
    "header-huge": {"input_ids": _npy("{'descr': '<i8', 'fortran_order': False, 'shape': (4611686018427387904, 4), }")},
    "header-code": {"input_ids": _npy("__import__('os').system('touch ../outside/pwned')")},
    "header-deep": {"input_ids": _npy("(" * 20_000)}, "header-descr": {"input_ids": _npy("{'descr': [], 'fortran_order': 0, 'shape': 'x', }")},
    "header-negative": {"input_ids": _npy("{'descr': '<i8', 'fortran_order': False, 'shape': (-1, 8), }")},
    "header-descr-deep": {"input_ids": _npy("{'descr': '" + "(2,)" * 40 + "i8', 'fortran_order': False, 'shape': (12,), }")},
    "none": dict.fromkeys(GOOD),
}.items()}  # fmt: skip
KINDS |= {
    "npz-empty": _npz({}),
    "npz-text": _npz({"input_ids.npy": b"text"}),
    "npz-pickle": _npz({"input_ids.npy": _npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cposix\nsystem\n(S'touch ../outside/pwned'\ntR.")}),
    "npz-cut": _file("data.npz", b"PK\x03\x04" + bytes(50)),
    "npz-names": _npz({"../../outside/pwned.npy": _packed(IDS), " ": _packed(IDS)}),
    "npz-huge": _npz({"input_ids.npy": _npy(f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({2**50},), }}")}),
    "npz-bomb": _zeros(6),
    "csv-field": _file("data.csv", b"text,label\n" + b"x" * 200_000 + b",1\n"),
    "csv-nul": _file("data.csv", b"text,label\n\x00,1\n"),
    "csv-quote": _file("data.csv", b'text,label\n"open,1\n'),
    "csv-columns": _file("data.csv", b",".join(b"c%d" % at for at in range(100_000)) + b"\n1\n"),
    "csv-more": _file("data.csv", b"text,label\na,1,2,3,4\n"),
    "csv-twice": _file("data.csv", b"text,text\na,b\n"),
    "csv-latin": _file("data.csv", b"text,label\n\xe9,1\n"),
    "csv-label": _file("data.csv", "text,label\nthe,²\n".encode()),
    "csv-digits": _file("data.csv", b"text,label\nthe," + b"9" * 5000 + b"\n"),
    "jsonl-list": _file("data.jsonl", b"[1,2]\n"),
    "jsonl-null": _file("data.jsonl", b"null\n"),
    "jsonl-deep": _file("data.jsonl", configs.WHOLE["deep"] + b"\n"),
    "jsonl-digits": _file("data.jsonl", b'{"text": "a", "label": ' + b"9" * 5000 + b"}\n"),
    "jsonl-large": _file("data.jsonl", b'{"text": "a", "label": 1e999}\n'),
    "jsonl-mixed": _file("data.jsonl", b'{"input_ids": [1, [2]]}\n{"input_ids": {"a": 1}}\n'),
    "jsonl-whole": _file("data.jsonl", b'{"input_ids": [18446744073709551616], "attention_mask": [1]}\n'),
    "jsonl-surrogate": _file("data.jsonl", b'{"text": "\\ud800", "label": 1}\n'),
    "jsonl-text": _file("data.jsonl", b'{"text": 5, "label": 1}\n'),
    "txt-long": _file("data.txt", b"the " * 1_000_000),
    "txt-empty": _file("data.txt", b"\n\n"),
    "txt-binary": _file("data.txt", bytes(range(256)) * 10),
    "txt-nul": _file("data.txt", b"the\x00of\n"),
    "suffix": _file("data.pkl", b"cposix\nsystem\n(S'touch ../outside/pwned'\ntR."),
    "saved-state-list": _saved(_json("state.json", [])),
    "saved-state-cut": _saved(_json("state.json", b"{")),
    "saved-state-deep": _saved(_json("state.json", configs.WHOLE["deep"])),
    "saved-state-files": _saved(_state(_data_files=5)),
    "saved-state-none": _saved(_state(_data_files=[])),
    "saved-state-format": _saved(_state(_format_type="evil", _format_kwargs={"a": 1})),
    "saved-info": _saved(_json("dataset_info.json", {"features": {"input_ids": {"_type": "Evil"}}})),
    "saved-info-null": _saved(_json("dataset_info.json", None)),
    "saved-image": _saved(_json("dataset_info.json", {"features": {"input_ids": {"_type": "Image"}}})),
    "saved-arrow": _saved(lambda folder: next(folder.glob("*.arrow")).write_bytes(b"ARROW1" + bytes(100))),
    "saved-arrow-cut": _saved(lambda folder: next(folder.glob("*.arrow")).write_bytes(next(folder.glob("*.arrow")).read_bytes()[:300])),
    "saved-dict": _saved(lambda folder: (folder / "dataset_dict.json").write_text('{"splits": ["../../outside"]}')),
    "pipe-typed": ("data.csv", lambda folder: os.mkfifo(folder / "data.csv")),
    "device-typed": ("data.txt", lambda folder: (folder / "data.txt").symlink_to("/dev/zero")),
    "circle-typed": ("data.txt", lambda folder: (folder / "data.txt").symlink_to("data.txt")),
}  # fmt: skip
