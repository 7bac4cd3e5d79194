"""The smallest models of each task, exported with a tokenizer of real words."""

import pytest
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

import onnxfuse
from onnxfuse.evaluation.sentences import docstring_sentences
from tests.families import tiny

SENTENCES = docstring_sentences(60)


@pytest.fixture(scope="package")
def words(tmp_path_factory):
    """BERT's kind of tokenizer: small letters, words in pieces, pairs told by token types; texts are cut at 24 tokens."""
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    known = sorted({word.lower().strip(".,:;()") for text in SENTENCES[:40] for word in text.split()} - {""})
    pieces = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"), ".", ","]
    path.write_text("\n".join(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *known])) + "\n")
    return transformers.BertTokenizer(str(path), model_max_length=24)


@pytest.fixture(scope="package")
def pieces():
    """RoBERTa's kind: bytes in pieces, no token types, spaces that belong to words, <mask> that takes the one before it."""
    read = tokenizers.Tokenizer(models.BPE())
    read.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    read.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", tokenizers.AddedToken("<mask>", lstrip=True, special=True)]
    letters = pre_tokenizers.ByteLevel.alphabet()
    read.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=letters))
    read.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    named = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=read, model_max_length=24, unk_token="<unk>", mask_token=special[4], **named
    )


@pytest.fixture(scope="package")
def made(tmp_path_factory, words, pieces):
    """Makes a checkpoint of a family and class, and its export: their folders. Each is made once."""
    known = {}

    def make(family, head, **fields):
        key = (family, head, *sorted(fields))
        if key not in known:
            tokenizer = pieces if family == "roberta" else words
            sizes = {} if family == "vit" else {"vocab_size": len(tokenizer)}
            source, folder = tmp_path_factory.mktemp("checkpoint"), tmp_path_factory.mktemp("exported")
            model = tiny(family, head, **sizes | fields)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter *= 1.5  # answers that differ
            model.save_pretrained(source)
            beside = tokenizer if family != "vit" else transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
            beside.save_pretrained(source)
            onnxfuse.export(source, folder, exporter="torchscript")
            known[key] = source, folder
        return known[key]

    return make
