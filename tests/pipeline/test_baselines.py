"""Other tools' ways: what each gives of small models, and what it says where it is not there or cannot take one."""

import subprocess
import sys

import numpy as np
import pytest

from onnxfuse.config import ExportConfig
from onnxfuse.errors import MissingExtraError, ModelError
from onnxfuse.pipeline import baselines
from onnxfuse.pipeline.baselines import Baseline, Context, Made
from onnxfuse.pipeline.export import export
from onnxfuse.verify.inputs import profile_of_family
from tests.conftest import save_tokenizer, small_model
from tests.families import tiny

CT2 = ("ctranslate2", "ctranslate2-int8")
NEAR = {"fp32": 0.999999, "int8": 0.98}


def cosine(a, b):
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def context_of(model, folder, **plan):
    family = model.config.model_type
    made = export(ExportConfig(family, folder / "export", exporter="torchscript", **plan), source=model)
    return Context(made.path, family, folder / "made", 1, made.checkpoint)


def feeds_of(context, lengths=(9, 5, 2)):
    checkpoint = context.checkpoint
    profile = profile_of_family(checkpoint.family, checkpoint.config, checkpoint.task)
    feeds = profile.feeds(len(lengths), max(lengths), seed=3)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    return feeds | {"attention_mask": mask}


@pytest.mark.parametrize(
    ("family", "head", "plan"),
    [
        ("bert", "AutoModelForSequenceClassification", {}),
        ("bert", "AutoModel", {"task": "sentence-similarity"}),
        ("distilbert", "AutoModelForQuestionAnswering", {}),
    ],
)
def test_ctranslate2_with_the_checkpoints_own_head(family, head, plan, tmp_path):
    context = context_of(small_model(family, head, layers=2), tmp_path, **plan)
    feeds = feeds_of(context)
    wanted = baselines.known()["torch"].open(context).run(feeds)
    sizes = []
    for baseline in baselines.choose(",".join(CT2)):
        made = baseline.open(context)
        got = made.run(feeds)
        assert set(got) == set(wanted)
        for name, array in wanted.items():
            keep = feeds["attention_mask"].astype(bool) if array.shape[:2] == feeds["attention_mask"].shape else slice(None)
            assert cosine(array[keep], got[name][keep]) > NEAR[baseline.kind], (baseline.name, name)
        sizes.append(made.size)
    assert sizes[1] < sizes[0] * 0.5
    broken = feeds | {"attention_mask": feeds["attention_mask"][:, ::-1].copy()}
    with pytest.raises(ModelError, match="padding by each row's length, and here is some that is not at a row's end"):
        made.run(broken)


@pytest.mark.parametrize(
    ("name", "family", "words"),
    [
        ("ctranslate2", "vit", "runs encoders of tokens, and .* takes pixel_values"),
        ("ctranslate2-int8", "electra", "failed: No conversion is registered"),
        ("ibert", "bert", "^I-BERT takes the weights of RoBERTa, and BertForSequenceClassification is of family bert$"),
        ("ibert", "xlm-roberta", "is of family xlm-roberta"),
        ("sentence-transformers", "bert", "gives a sentence_embedding, and this model logits"),
        ("sentence-transformers-onnx", "bert", "installs with transformers 4 alone"),
    ],
)
def test_a_model_that_a_tool_cannot_take(name, family, words, tmp_path):
    context = context_of(tiny(family), tmp_path)
    with pytest.raises(ModelError, match=words) as caught:
        baselines.known()[name].open(context)
    assert "\n" not in str(caught.value)


def test_sentence_transformers_opens_a_checkpoint_with_a_tokenizer(tmp_path):
    context = context_of(tiny("bert", "BertModel"), tmp_path, task="sentence-similarity")
    with pytest.raises(ModelError, match="opens a checkpoint with its tokenizer, and BertModel has none beside it"):
        baselines.known()["sentence-transformers"].open(context)


def test_sentence_transformers_gives_what_the_export_gives(tmp_path):
    model = tiny("bert", "BertModel", vocab_size=64)
    model.save_pretrained(tmp_path / "checkpoint")
    save_tokenizer(tmp_path / "checkpoint", 20)
    plan = ExportConfig(str(tmp_path / "checkpoint"), tmp_path / "export", task="sentence-similarity", exporter="torchscript")
    made = export(plan)
    context = Context(made.path, "bert", tmp_path / "made", 1, made.checkpoint)
    feeds = feeds_of(context)
    wanted, got = (baselines.known()[name].open(context) for name in ("torch", "sentence-transformers"))
    np.testing.assert_allclose(got.run(feeds)["sentence_embedding"], wanted.run(feeds)["sentence_embedding"], rtol=0, atol=1e-6)
    assert got.size == wanted.size


@pytest.mark.parametrize(
    ("name", "package"), [("ctranslate2", "ctranslate2"), ("torchao-int8", "torchao.quantization"), ("openvino-int8", "nncf")]
)
def test_a_tool_that_is_not_installed(name, package, bert_export, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    context = Context(bert_export / "export" / "model.onnx", "bert", tmp_path)
    with pytest.raises(MissingExtraError, match=rf"measuring against {name} needs packages .* 'onnxfuse\[baselines\]'"):
        baselines.known()[name].open(context)


@pytest.mark.parametrize("name", ["torch-traced", "torch-frozen"])
@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "modernbert", "vit"])
def test_torchscript_takes_other_sizes_than_it_was_traced_with(name, family, tmp_path):
    context = context_of(tiny(family), tmp_path)
    profile = profile_of_family(context.checkpoint.family, context.checkpoint.config, context.checkpoint.task)
    wanted, got = (baselines.known()[each].open(context) for each in ("torch", name))
    for batch, length in ((1, 5), (3, 9), (5, 12)):
        feeds = profile.feeds(batch, length, seed=batch, mask="right")
        for _ in range(2):  # it is compiled at the second call
            for output, array in wanted.run(feeds).items():
                np.testing.assert_allclose(got.run(feeds)[output], array, rtol=0, atol=1e-5)
    assert got.size == wanted.size


def test_torchscript_is_what_runs(tmp_path, monkeypatch):
    import torch

    context = context_of(tiny("bert"), tmp_path)
    done, freeze = [], torch.jit.freeze
    monkeypatch.setattr(torch.jit, "freeze", lambda module: done.append(type(module)) or freeze(module))
    baselines.known()["torch-traced"].open(context)
    assert not done
    baselines.known()["torch-frozen"].open(context)
    assert done == [torch.jit.TopLevelTracedModule]


@pytest.mark.parametrize(
    "head", ["RobertaModel", "RobertaForSequenceClassification", "RobertaForQuestionAnswering", "RobertaForMaskedLM"]
)
def test_ibert_with_robertas_weights(head, tmp_path):
    context = context_of(tiny("roberta", head), tmp_path)
    feeds = feeds_of(context)
    before = context.checkpoint.module.state_dict()
    wanted, got = (baselines.known()[name].open(context).run(feeds) for name in ("torch", "ibert"))
    assert set(got) == set(wanted)
    for name, array in wanted.items():
        keep = feeds["attention_mask"].astype(bool) if array.shape[:2] == feeds["attention_mask"].shape else slice(None)
        assert NEAR["int8"] < cosine(array[keep], got[name][keep]), name
        assert np.abs(array[keep] - got[name][keep]).max() > 1e-5, "8 bits are not float32"
    assert all((weight == before[name]).all() for name, weight in context.checkpoint.module.state_dict().items())


def test_ibert_takes_robertas_very_weights(tmp_path):
    from onnxfuse.pipeline.baselines import ibert

    model = tiny("roberta")
    loaded = dict(ibert._loaded(model).named_parameters())
    assert {ibert._renamed(name) for name, _ in model.named_parameters()} == set(loaded), "none too few, none too many"
    assert all((loaded[ibert._renamed(name)] == weight).all() for name, weight in model.named_parameters())
    model.roberta.more = model.roberta.embeddings.LayerNorm
    with pytest.raises(ModelError, match=r"^IBertFor\w+ and RobertaFor\w+ differ in ibert\.more\.weight, ibert\.more\.bias$"):
        ibert._loaded(model)
    del model.roberta.more, model.roberta.encoder.layer[1].output.dense.weight
    with pytest.raises(ModelError, match=r"differ in ibert\.encoder\.layer\.1\.output\.dense\.weight$"):
        ibert._loaded(model)


def test_what_goes_wrong_in_a_tool_is_one_line_of_ours(tmp_path):
    def make(context):
        def run(feeds):
            raise KeyError("first\nsecond")

        return Made(run, 7)

    def refuse(context):
        raise AssertionError

    context = Context(tmp_path / "m.onnx", "bert", tmp_path)
    made = Baseline("odd", "fp32", make).open(context)
    assert made.size == 7
    with pytest.raises(ModelError, match=r"^odd failed: "):
        made.run({})
    with pytest.raises(ModelError, match=r"^odd failed: AssertionError$"):
        Baseline("odd", "fp32", refuse).open(context)


def test_bytes_of_a_tensor_that_is_made_of_others(tmp_path):
    torch = pytest.importorskip("torch")

    class Pair:
        codes, scales = torch.zeros(4, 8, dtype=torch.int8), torch.zeros(4)

        def __tensor_flatten__(self):
            return ["codes", "scales"], None

    from onnxfuse.pipeline.baselines.api import tensor_bytes

    assert tensor_bytes(Pair()) == 4 * 8 + 4 * 4


def test_what_torchao_logs_where_it_is_installed_is_not_seen():
    """transformers imports it with its first class of models; it says what of it does not load on this machine."""
    code = "from onnxfuse.exporters.pytorch import require_torch; require_torch().BertModel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, "")
