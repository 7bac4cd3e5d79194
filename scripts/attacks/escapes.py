"""Ways out of the folder that was named, for every verb that reads or writes: paths, links, devices."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from attacks.child import SECRET, Case, Command, Room
from attacks.reading import VERBS
from attacks.sources import SIZES, Sources

VOCABULARY, WIDTH = SIZES["vocab_size"], SIZES["hidden_size"]
SIZE = VOCABULARY * WIDTH * 4
"""Bytes of the largest weight, which is outside."""


@dataclass(frozen=True)
class Kind:
    """One way. ``lay``: makes it in a room that holds a copy of the export and data, and a folder outside with the same."""

    name: str
    lay: Callable[[Room], None]
    reads: str
    allowed: bool = False
    refuse: bool = False


def furnish(room: Room, sources: Sources) -> None:
    """The export, data and checkpoint in the work folder; the same, with a secret in it, outside."""
    shutil.copytree(sources.export, room.work, dirs_exist_ok=True)
    for name in ("data", "checkpoint"):
        shutil.copytree(sources.folder / name, room.work / name)
        shutil.copytree(sources.folder / name, room.outside / name)
    (room.outside / "secret.bin").write_bytes((SECRET * (SIZE // len(SECRET) + 1))[:SIZE])
    for name in ("config.json", "onnxfuse.json", "tokenizer_config.json", "tokenizer.json"):
        known = json.loads((sources.export / name).read_text())
        (room.outside / name).write_text(json.dumps(known | {"secret": SECRET.decode()}))
    (room.outside / "vocab.txt").write_bytes((sources.export / "vocab.txt").read_bytes() + SECRET + b"\n")
    (room.outside / "there.onnx").write_bytes((sources.export / "model.onnx").read_bytes())
    (room.outside / "target.json").write_text('{"name": "secret", "opset": 0, "why": "' + SECRET.decode() + '"}')


def _external(location: str | None, *, small: bool = False) -> Callable[[Room], None]:
    """The largest weight, or a small one, is said to lie elsewhere; None names it absolutely."""

    def lay(room: Room) -> None:
        proto = onnx.load(room.work / "model.onnx")
        weights = sorted(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        floats = [tensor for tensor in weights if tensor.data_type == TensorProto.FLOAT and tensor.raw_data]
        _point(floats[0] if small else floats[-1], location or str(room.outside / "secret.bin"))
        (room.work / "model.onnx").write_bytes(proto.SerializeToString())

    return lay


def _point(tensor: TensorProto, location: str) -> None:
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)


def _linked(*links: tuple[str, str]) -> Callable[[Room], None]:
    """Links in the work folder, in place of what is there, each to a path beside it or from the root."""

    def lay(room: Room) -> None:
        for name, points in links:
            path = room.work / name
            path.unlink(missing_ok=True)
            path.symlink_to(points)

    return lay


def _hard(room: Room) -> None:
    os.link(room.outside / "secret.bin", room.work / "weights.bin")
    _external("weights.bin")(room)


def _fifo(name: str) -> Callable[[Room], None]:
    def lay(room: Room) -> None:
        path = room.work / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        os.mkfifo(path)

    return lay


def _both(*steps: Callable[[Room], None]) -> Callable[[Room], None]:
    def lay(room: Room) -> None:
        for step in steps:
            step(room)

    return lay


def _node(where: str) -> Callable[[Room], None]:
    """A Constant whose value lies outside: in the graph, in a body, in a function, or sparse; its sum is an output."""

    def lay(room: Room) -> None:
        proto = onnx.load(room.work / "model.onnx")
        tensor = TensorProto(name="out", data_type=TensorProto.FLOAT, dims=[VOCABULARY, WIDTH], raw_data=bytes(SIZE))
        _point(tensor, "../outside/secret.bin")
        constant = helper.make_node("Constant", [], ["leak"])
        constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=tensor)
        if where == "body":
            value = helper.make_tensor_value_info("leak", TensorProto.FLOAT, None)
            body = helper.make_graph([constant], "body", [], [value])
            proto.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
            constant = helper.make_node("If", ["yes"], ["leak"], then_branch=body, else_branch=body)
        elif where == "function":
            proto.functions.append(helper.make_function("evil", "Leak", [], ["leak"], [constant], [helper.make_opsetid("", 17)]))
            proto.opset_import.add(domain="evil", version=1)
            constant = helper.make_node("Leak", [], ["leak"], domain="evil")
        elif where == "sparse":
            del constant.attribute[:]
            at = helper.make_tensor("at", TensorProto.INT64, [4], [0, 1, 2, 3])
            tensor.dims[:] = [4]
            constant.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
            constant.attribute[0].sparse_tensor.CopyFrom(onnx.SparseTensorProto(values=tensor, indices=at, dims=[8]))
        proto.graph.node.extend([constant, helper.make_node("ReduceSum", ["leak"], ["leaked"], keepdims=0)])
        proto.graph.output.append(helper.make_tensor_value_info("leaked", TensorProto.FLOAT, []))
        (room.work / "model.onnx").write_bytes(proto.SerializeToString())

    return lay


def _saved(file: str) -> Callable[[Room], None]:
    """A folder of the datasets library whose state names a file elsewhere; None makes the file itself a link."""

    def lay(room: Room) -> None:
        import datasets

        table = {name: np.load(room.work / "data" / f"{name}.npy").tolist() for name in ("input_ids", "attention_mask", "labels")}
        table["token_type_ids"] = np.zeros((12, 8), np.int64).tolist()
        datasets.disable_progress_bars()
        for folder in (room.work, room.outside):
            shutil.rmtree(folder / "data")
            datasets.Dataset.from_dict(table).save_to_disk(folder / "data")
        name = next((room.work / "data").glob("*.arrow")).name
        if file == "link":
            (room.work / "data" / name).unlink()
            (room.work / "data" / name).symlink_to(room.outside / "data" / name)
            return
        state = json.loads((room.work / "data" / "state.json").read_text())
        state["_data_files"] = [{"filename": file.format(outside=room.outside, name=name)}]
        (room.work / "data" / "state.json").write_text(json.dumps(state))

    return lay


def _record(room: Room) -> None:
    """An int8 model, and a record, that were calibrated on data outside."""
    proto = onnx.load(room.work / "model_quantized.onnx")
    proto.metadata_props.add(key="onnxfuse.int8", value=json.dumps({"calibration": "data", "rows": 4}))
    (room.work / "model_quantized.onnx").write_bytes(proto.SerializeToString())
    shutil.rmtree(room.work / "data")
    record = json.loads((room.work / "onnxfuse.json").read_text())
    record["quantize"]["plan"]["calibration"] = str(room.outside / "data")
    (room.work / "onnxfuse.json").write_text(json.dumps(record))


def _metadata(room: Room) -> None:
    """An int8 model that says itself where its calibration data lie."""
    proto = onnx.load(room.work / "model_quantized.onnx")
    proto.metadata_props.add(key="onnxfuse.int8", value=json.dumps({"calibration": "../outside/data", "rows": 4}))
    (room.work / "model_quantized.onnx").write_bytes(proto.SerializeToString())


def _target(room: Room) -> None:
    (room.work / "target").mkdir()
    (room.work / "target" / "target.json").symlink_to(room.outside / "target.json")


def _modules(room: Room) -> None:
    (room.work / "checkpoint" / "modules.json").write_text(
        json.dumps(
            [{"idx": 0, "name": "0", "path": "../../outside/checkpoint", "type": "sentence_transformers.models.Transformer"}]
        )
    )


OUT = "../outside/"
KINDS = (
    Kind("path-up", _external(OUT + "secret.bin"), "model"),
    Kind("path-absolute", _external(None), "model"),
    Kind("path-through", _external("data/../../outside/secret.bin"), "model"),
    Kind("path-small", _external(OUT + "secret.bin", small=True), "model"),
    Kind("path-url", _external("file:../outside/secret.bin"), "model"),
    Kind("path-backslash", _external("..\\outside\\secret.bin"), "model"),
    Kind("link-weights", _both(_linked(("w.bin", OUT + "secret.bin")), _external("w.bin")), "model"),
    Kind("link-chain", _both(_linked(("v.bin", OUT + "secret.bin"), ("w.bin", "v.bin")), _external("w.bin")), "model"),
    Kind("link-folder", _both(_linked(("sub", "../outside")), _external("sub/secret.bin")), "model"),
    Kind("link-environment", _both(_linked(("w.bin", "/proc/self/environ")), _external("w.bin")), "model", refuse=True),
    Kind("link-device", _both(_linked(("w.bin", "/dev/zero")), _external("w.bin")), "model", refuse=True),
    Kind("link-circle", _both(_linked(("w.bin", "w.bin")), _external("w.bin")), "model", refuse=True),
    Kind("pipe-weights", _both(_fifo("w.bin"), _external("w.bin")), "model", refuse=True),
    Kind("constant", _node("graph"), "model"),
    Kind("constant-in-body", _node("body"), "model"),
    Kind("constant-in-function", _node("function"), "model"),
    Kind("constant-sparse", _node("sparse"), "model"),
    Kind("hard-link", _hard, "model", allowed=True),
    Kind("typed-link", _linked(("model.onnx", OUT + "there.onnx")), "model", allowed=True),
    Kind("typed-pipe", _fifo("model.onnx"), "model", refuse=True),
    Kind("config-link", _linked(("config.json", OUT + "config.json")), "beside"),
    Kind("config-pipe", _fifo("config.json"), "beside", refuse=True),
    Kind("config-device", _linked(("config.json", "/dev/zero")), "beside", refuse=True),
    Kind("record-link", _linked(("onnxfuse.json", OUT + "onnxfuse.json")), "beside"),
    Kind("record-pipe", _fifo("onnxfuse.json"), "beside"),
    Kind("tokenizer-link", _linked(("tokenizer.json", OUT + "tokenizer.json")), "texts"),
    Kind("tokenizer-config-link", _linked(("tokenizer_config.json", OUT + "tokenizer_config.json")), "texts"),
    Kind("tokenizer-pipe", _fifo("tokenizer.json"), "texts"),
    Kind("record-data", _record, "int8"),
    Kind("metadata-data", _metadata, "int8"),
    Kind("column-link", _linked(("data/input_ids.npy", "../../outside/data/input_ids.npy")), "data"),
    Kind("column-pipe", _fifo("data/labels.npy"), "data", refuse=True),
    Kind("column-device", _linked(("data/labels.npy", "/dev/zero")), "data", refuse=True),
    Kind("saved-up", _saved("../../outside/data/{name}"), "data"),
    Kind("saved-absolute", _saved("{outside}/data/{name}"), "data"),
    Kind("saved-link", _saved("link"), "data"),
    Kind("data-pipe", _fifo("data"), "data", refuse=True),
    Kind("target-link", _target, "target"),
    Kind("target-pipe", _both(_fifo("target")), "target", refuse=True),
    Kind("modules-up", _modules, "checkpoint"),
    Kind("checkpoint-weights-link", _linked(("checkpoint/model.safetensors", "../../outside/checkpoint/model.safetensors")), "checkpoint"),
    Kind("checkpoint-config-link", _linked(("checkpoint/config.json", "../../outside/checkpoint/config.json")), "checkpoint"),
    Kind("checkpoint-vocab-link", _linked(("checkpoint/vocab.txt", "../../outside/vocab.txt")), "checkpoint"),
    Kind("checkpoint-tokenizer-link", _linked(("checkpoint/tokenizer.json", "../../outside/tokenizer.json")), "checkpoint"),
    Kind("checkpoint-pipe", _fifo("checkpoint/tokenizer_config.json"), "checkpoint", refuse=True),
    Kind("out-model-link", _linked(("made.onnx", OUT + "there.onnx")), "output", allowed=True),
    Kind("out-default-link", _linked(("model_optimized.onnx", OUT + "there.onnx")), "default", allowed=True),
    Kind("out-record-link", _linked(("onnxfuse.json", OUT + "onnxfuse.json")), "output", allowed=True),
)  # fmt: skip


def cases(sources: Sources, _: int) -> list[Case]:
    """Every kind with every verb that reads what it is about."""

    def builder(kind: Kind, command: Command) -> Callable[[Room], Command]:
        def build(room: Room) -> Command:
            furnish(room, sources)
            kind.lay(room)
            return command

        return build

    found = []
    for kind in KINDS:
        for verb, command in VERBS[kind.reads].items():
            found.append(Case("escapes", kind.name, verb, builder(kind, command), kind.allowed, kind.refuse))
    return found + _outputs(sources)


def _outputs(sources: Sources) -> list[Case]:
    """Links that lie in the folder that export writes to."""

    def builder(name: str) -> Callable[[Room], Command]:
        def build(room: Room) -> Sequence[str]:
            furnish(room, sources)
            (room.work / "made").mkdir()
            (room.work / "made" / name).symlink_to(f"../../outside/{name if (room.outside / name).exists() else 'there.onnx'}")
            return ["export", "checkpoint", "-o", "made", "--exporter", "torchscript"]

        return build

    names = ("model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "onnxfuse.json")
    return [Case("escapes", f"out-{name}", "export", builder(name), allowed=True) for name in names]
