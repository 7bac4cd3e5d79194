"""Hostile checkpoints for ``export``: configs, weights in each format, tokenizers, modules, links and pipes."""

from __future__ import annotations

import json
from collections.abc import Callable

from attacks import configs, stored
from attacks.child import SECRET, Case, Command, Room
from attacks.escapes import furnish
from attacks.laying import Lay, fields, ignore, link, pipe, then, write
from attacks.sources import Sources

KINDS: dict[str, Lay] = dict(stored.KINDS)


def cases(sources: Sources, _: int) -> list[Case]:
    """Every kind, exported."""

    def builder(lay: Lay) -> Callable[[Room], Command]:
        def build(room: Room) -> Command:
            furnish(room, sources)
            lay(room, room.work / "checkpoint")
            return ["export", "checkpoint", "-o", "made", "--exporter", "torchscript"]

        return build

    return [
        Case("checkpoints", name, "export", builder(lay), name.startswith("inside"), name.startswith("odd"))
        for name, lay in KINDS.items()
    ]


for _name in (
    "empty",
    "list",
    "null",
    "text",
    "cut",
    "deep",
    "deep-list",
    "latin",
    "digits",
    "surrogate",
    "binary",
    "wide",
    "bom",
):
    KINDS[f"config-{_name}"] = write("config.json", configs.WHOLE[_name])
for _name in ("list", "cut", "deep", "binary", "surrogate"):
    KINDS[f"tokenizer-{_name}"] = write("tokenizer.json", configs.WHOLE[_name])
    KINDS[f"modules-{_name}"] = write("modules.json", configs.WHOLE[_name])
for _name, _value in {
    "hidden-huge": {"hidden_size": 2**31}, "hidden-text": {"hidden_size": "x"}, "heads-zero": {"num_attention_heads": 0},
    "layers-huge": {"num_hidden_layers": 10**6}, "layers-negative": {"num_hidden_layers": -1}, "vocab-huge": {"vocab_size": 2**40},
    "act-import": {"hidden_act": "os.system"}, "auto-map": {"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Config"}},
    "type-list": {"model_type": ["bert"]}, "type-path": {"model_type": "../../outside"}, "labels-list": {"id2label": [1]},
    "labels-text": {"id2label": "x"}, "labels-key": {"id2label": {"a": {}}}, "dtype": {"dtype": "os"}, "dtype-object": {"torch_dtype": {"a": 1}},
    "eps": {"layer_norm_eps": "nan"}, "positions": {"max_position_embeddings": 0}, "quantization": {"quantization_config": {"quant_method": "evil"}},
    "architectures": {"architectures": [1]}, "attn": {"attn_implementation": "evil/kernel", "_attn_implementation": "evil/kernel"},
    "pad": {"pad_token_id": 10**9}, "name": {"_name_or_path": "../outside"}, "custom": {"custom_pipelines": {"x": {"impl": "evil.X"}}},
}.items():  # fmt: skip
    KINDS[f"config-{_name}"] = fields("config.json", **_value)


# what lies beside ------------------------------------------------------------------------------------------------


def _module(path: str, kind: str = "sentence_transformers.models.Transformer") -> Lay:
    return lambda room, folder: ignore(
        (folder / "modules.json").write_text(
            json.dumps([{"idx": 0, "name": "0", "path": path.format(outside=room.outside), "type": kind}])
        )
    )


KINDS |= {
    "modules-up": _module("../../outside/checkpoint"),
    "modules-absolute": _module("{outside}/checkpoint"),
    "modules-link": then(_module("far"), link("far", "../../outside/checkpoint")),
    "modules-type": _module("", "os.system"),
    "modules-nul": _module("a\x00b"),
    "pooling-link": then(
        lambda room, folder: ignore((folder / "modules.json").write_text(json.dumps([
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]))),
        lambda room, folder: (folder / "1_Pooling").mkdir(),
        lambda room, folder: ignore((room.outside / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True, "word_embedding_dimension": 128, "secret": SECRET.decode()}))),
        link("1_Pooling/config.json", "../../../outside/config.json"),
    ),
    "tokenizer-class": fields("tokenizer_config.json", tokenizer_class="os.system"),
    "tokenizer-limit": fields("tokenizer_config.json", model_max_length="x"),
    "tokenizer-file": fields("tokenizer_config.json", tokenizer_file="../outside/tokenizer.json", vocab_file="../outside/vocab.txt"),
    "tokenizer-config-pipe": pipe("tokenizer_config.json"),
    "config-pipe": pipe("config.json"),
    "modules-pipe": pipe("modules.json"),
    "vocab-pipe": pipe("vocab.txt"),
    "vocab-device": link("vocab.txt", "/dev/zero"),
    "generation-link": link("generation_config.json", "../../outside/config.json"),
    "adapter": write("adapter_config.json", b'{"base_model_name_or_path": "../outside/checkpoint"}'),
    "record": write("onnxfuse.json", b"[]"),
}  # fmt: skip
for _file, _there in (("config.json", "config.json"), ("tokenizer.json", "tokenizer.json"), ("vocab.txt", "vocab.txt"),
                      ("tokenizer_config.json", "tokenizer_config.json"), ("special_tokens_map.json", "config.json"),
                      ("preprocessor_config.json", "config.json"), ("chat_template.jinja", "vocab.txt")):  # fmt: skip
    KINDS[f"link-{_file}"] = link(_file, "../../outside/" + _there)
