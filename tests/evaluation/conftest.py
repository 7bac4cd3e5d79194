"""Small models that look words up and average the real ones, and tokenizers for them."""

from pathlib import Path

import onnx
import onnx_ir as ir

from onnxfuse.evaluation.collate import Collator
from onnxfuse.verify.inputs import profile_of
from tests.conftest import fill, parse

WORDS = 50
TABLES = {"words": (WORDS, 8), "kinds": (3, 8), "places": (20, 8)}


def averaging(ids="int64[B,S] input_ids", mask="int64[B,S] attention_mask", types="", positions="", masked=None):
    """A model of the mean over a row's real tokens; each argument is an input as ONNX's text writes it, or nothing.

    ``masked`` makes m, float [B,S], 1 for a real token, where a cast of the mask does not, or there is none.
    """
    given = {table: text for table, text in zip(TABLES, (ids, types, positions), strict=True) if text}
    names = [text.split()[-1] for text in given.values()]
    inputs = [*given.values(), *[mask] * bool(mask), *(f"float[{rows},{width}] {name}" for name, (rows, width) in TABLES.items())]
    looked_up = [f"e{at} = Gather({table}, {name})" for at, (table, name) in enumerate(zip(given, names, strict=True))]
    total = [f"t{at} = Sum({', '.join(f'e{each}' for each in range(at + 1))})" for at in [len(names) - 1]]
    everything = f"one = Constant<value = float {{1.0}}>()  shape = Shape({names[0]})  m = Expand(one, shape)"
    weight = masked or (f"m = Cast<to = 1>({mask.split()[-1]})" if mask else everything)
    text = f"""g ({", ".join(inputs)}) => (float[B,8] y) <int64[1] last = {{-1}}, int64[1] along = {{1}}>
        {{ {"  ".join([*looked_up, *total, weight])}  u = Unsqueeze(m, last)  p = Mul(t{len(names) - 1}, u)
           s = ReduceSum<keepdims = 0>(p, along)  n = ReduceSum<keepdims = 0>(u, along)  y = Div(s, n) }}"""
    return fill(parse(text), **TABLES)


def saved(model: ir.Model, path: Path) -> Path:
    onnx.save(ir.to_proto(model), path)
    return path


def collator_of(model: ir.Model, **collator) -> Collator:
    return Collator(profile_of(model), **collator)


def tokenizer_files(folder: Path, *, special: bool = False, words: int = WORDS, unk_token: str = "w0", **settings) -> Path:
    """A tokenizer of the words w2, w3, ... in ``folder``; ``special`` marks a text's ends with ids 0 and 1."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    inner = Tokenizer(models.WordLevel({f"w{number}": number for number in range(words)}, unk_token=unk_token))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        inner.post_processor = processors.TemplateProcessing(single="w0:0 $A:2 w1:2", special_tokens=[("w0", 0), ("w1", 1)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token=unk_token, **settings).save_pretrained(folder)
    return folder
