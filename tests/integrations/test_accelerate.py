"""An accelerated model stands in for the original: the same call, the same outputs, in the libraries that call it."""

import copy
import json
import os
import pickle
import threading
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import transformers

import onnxfuse
from onnxfuse.errors import ExportError, UsageError
from onnxfuse.runtime import runtimes
from tests.families import TEXT
from tests.marks import OTHERS

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "on",
    "mat",
    "who",
    "where",
    "?",
    ".",
    "paris",
    "is",
    "in",
    "france",
    "alice",
    "lives",
]
TEXTS = ["the cat sat on the mat .", "alice lives in paris", "who is alice ?"]


def bert(kind, **fields):
    torch.manual_seed(0)
    sizes = TEXT | {"vocab_size": len(WORDS)}
    return getattr(transformers, kind)(transformers.BertConfig(**sizes | fields)).eval()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return transformers.BertTokenizer(str(path))


@pytest.fixture(scope="module")
def original():
    return bert("BertForSequenceClassification", num_labels=3)


@pytest.fixture(scope="module")
def fast(original):
    return onnxfuse.accelerate(original)


def ids(rows, tokens):
    return torch.from_numpy(np.random.default_rng(rows).integers(5, len(WORDS), (rows, tokens)))


@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (3, 9), (2, 32)])
def test_the_same_call_gives_the_same_outputs(original, fast, rows, tokens):
    given = ids(rows, tokens)
    mask = torch.ones_like(given)
    mask[0, tokens // 2 + 1 :] = 0
    types = torch.zeros_like(given)
    types[:, tokens // 2 :] = 1
    for args, kwargs in (
        ((given,), {}),
        ((given, mask), {"token_type_ids": types}),
        ((), {"input_ids": given, "attention_mask": mask.bool(), "return_dict": True}),
        ((given,), {"attention_mask": mask, "output_attentions": False}),
    ):
        with torch.no_grad():
            wanted = original(*args, **kwargs)
        got = fast(*args, **kwargs)
        assert type(got) is type(wanted) and not got.logits.requires_grad
        torch.testing.assert_close(got.logits, wanted.logits, atol=1e-5, rtol=1e-5)
    (alone,) = fast(given, return_dict=False)
    torch.testing.assert_close(alone, fast(given).logits)


def test_what_libraries_ask_of_a_model(original, fast):
    assert type(fast).__name__ == "BertForSequenceClassification" and isinstance(fast, torch.nn.Module)
    assert fast.config.to_dict()["id2label"] == original.config.to_dict()["id2label"]
    assert (fast.device, fast.dtype, fast.training, fast.can_generate()) == (torch.device("cpu"), torch.float32, False, False)
    assert fast.eval() is fast and fast.to("cpu") is fast and fast.float() is fast


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda fast: fast(ids(1, 3), labels=torch.zeros(1, dtype=torch.long)), "optimized without labels; call the original"),
        (lambda fast: fast(ids(1, 3), output_attentions=True), "without output_attentions; call the original"),
        (lambda fast: fast(inputs_embeds=torch.zeros(1, 3, 32)), "needs input_ids; got inputs_embeds"),
        (lambda fast: fast(ids(1, 3), past=1), "has no argument 'past'; it has input_ids"),
        (lambda fast: fast(ids(1, 3), input_ids=ids(1, 3)), "input_ids is given twice"),
        (lambda fast: fast([[1, 2]]), "input_ids is a list, wanted a tensor"),
        (lambda fast: fast(ids(1, 3).to("meta")), "on meta, and the optimized model on the CPU"),
        (lambda fast: fast(ids(1, 3), torch.ones(1, 3, requires_grad=True)), "requires a gradient"),
        (lambda fast: fast(ids(1, 33)), "32"),
        (lambda fast: fast.half(), "float32 on the CPU, wanted torch.float16"),
        (lambda fast: fast.to("meta"), "wanted torch.float32 on meta"),
        (lambda fast: fast.train(), "optimized for inference; train the original"),
        (lambda fast: pickle.dumps(fast), "its files go with it"),
    ],
)
def test_what_it_cannot_do_is_said(fast, call, words):
    with pytest.raises(onnxfuse.OnnxfuseError, match=words):
        call(fast)


def test_saved_loaded_and_pickled(fast, tmp_path):
    wanted = fast(ids(2, 5)).logits
    fast.save(tmp_path / "kept")
    with pytest.raises(UsageError, match="is there already, and not an empty folder"):
        fast.save(tmp_path / "kept")
    loaded = onnxfuse.load_torch(tmp_path / "kept", threads=1)
    for each in (loaded, pickle.loads(pickle.dumps(loaded)), copy.deepcopy(loaded)):
        assert each.runtime_model.settings.threads == 1
        torch.testing.assert_close(each(ids(2, 5)).logits, wanted)


def test_its_files_go_with_it(original):
    fast = onnxfuse.accelerate(original)
    folder = fast.folder
    child = os.fork()
    if child == 0:
        fast._end()
        os._exit(0)
    os.waitpid(child, 0)
    assert (folder / "model_optimized.onnx").is_file(), "a forked child took them away"
    del fast
    assert not folder.exists()


def test_threads_share_it(fast):
    inputs = [ids(rows, 7) for rows in range(1, 9)]
    wanted, got = [fast(each).logits for each in inputs], {}

    def work(number):
        for _ in range(20):
            got[number] = fast(inputs[number]).logits

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(got[number], wanted[number]) for number in range(8))


@pytest.mark.parametrize(
    ("task", "kind", "fields", "call"),
    [
        ("text-classification", "BertForSequenceClassification", {"num_labels": 3}, lambda pipe: pipe(TEXTS, batch_size=2)),
        ("token-classification", "BertForTokenClassification", {"num_labels": 4}, lambda pipe: pipe(TEXTS)),
        ("fill-mask", "BertForMaskedLM", {}, lambda pipe: pipe(["the cat [MASK] on the mat", "alice [MASK] in paris"])),
        (
            "zero-shot-classification",
            "BertForSequenceClassification",
            {"label2id": {"contradiction": 0, "neutral": 1, "entailment": 2}},
            lambda pipe: pipe(TEXTS, candidate_labels=["cat", "dog"]),
        ),
        ("feature-extraction", "BertModel", {}, lambda pipe: pipe(TEXTS, batch_size=3)),
    ],
)
def test_pipelines_of_texts_give_the_same(tokenizer, task, kind, fields, call):
    model = bert(kind, **fields)
    wanted, got = (
        call(transformers.pipeline(task, model=each, tokenizer=tokenizer)) for each in (model, onnxfuse.accelerate(model))
    )
    assert_close(got, wanted)


@pytest.mark.parametrize(
    ("task", "kind"),
    [("image-classification", "ViTForImageClassification"), ("image-feature-extraction", "ViTModel")],
)
def test_a_pipeline_of_images_gives_the_same(task, kind):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2, "image_size": 32}
    model = getattr(transformers, kind)(transformers.ViTConfig(**sizes, patch_size=8, num_labels=5)).eval()
    processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
    from PIL import Image

    images = [Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 50, 3), np.uint8)) for seed in range(3)]
    wanted, got = (
        transformers.pipeline(task, model=each, image_processor=processor)(images, batch_size=2)
        for each in (model, onnxfuse.accelerate(model))
    )
    assert_close(got, wanted)


def assert_close(got, wanted):
    """The same structure of lists and dicts, texts and counts equal, floats close."""
    assert type(got) is type(wanted)
    if isinstance(wanted, dict):
        assert got.keys() == wanted.keys()
        for name in wanted:
            assert_close(got[name], wanted[name])
    elif isinstance(wanted, list):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert_close(one, other)
    elif isinstance(wanted, float | np.floating):
        assert abs(got - wanted) < 1e-4
    else:
        assert got == wanted


def test_int8_in_place_of_a_model(original, tokenizer):
    fast = onnxfuse.accelerate(original, precision="int8")
    given = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = original(**given).logits
    assert fast.runtime_model.path.name == "model_quantized.onnx"
    assert torch.nn.functional.cosine_similarity(fast(**given).logits, wanted).min() > 0.98
    with pytest.raises(UsageError, match="precision 'int4': wanted one of fp32, fp16, bf16, int8"):
        onnxfuse.accelerate(original, precision="int4")
    with pytest.raises(UsageError, match="min_cosine is an option of int8, and precision is 'fp32'"):
        onnxfuse.accelerate(original, min_cosine=0.9)
    with pytest.raises(UsageError, match="quantize has no option sharp"):
        onnxfuse.accelerate(original, precision="int8", sharp=True)
    with pytest.raises(UsageError, match=r"precision 'fastest' finds the runtime too; leave out runtime 'ort'"):
        onnxfuse.accelerate(original, precision="fastest", runtime="ort")


def test_the_fastest_in_place_of_a_model(original, tokenizer, tmp_path):
    """A sound form, whichever is the fastest: measured, written down, and opened again."""
    threads = torch.get_num_threads()
    fast = onnxfuse.accelerate(original, precision="fastest", threads=1, folder=tmp_path / "fast")
    assert torch.get_num_threads() == threads
    assert "was measured as the fastest here" in str(fast.runtime_model)
    assert fast.runtime_model.settings.threads == 1
    given = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = original(**given).logits
    assert torch.nn.functional.cosine_similarity(fast(**given).logits, wanted).min() > 0.98
    again = onnxfuse.load_torch(tmp_path / "fast")
    assert (again.runtime_model.path, again.runtime_model.settings.runtime) == (
        fast.runtime_model.path,
        fast.runtime_model.settings.runtime,
    )


@OTHERS
def test_int8_in_openvino_has_scales_from_calibration(original, tmp_path):
    given = {name: np.ones((4, 6), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    np.savez(tmp_path / "real.npz", **given | {"input_ids": np.arange(24).reshape(4, 6) % 20})
    options = {"precision": "int8", "calibration": tmp_path / "real.npz"}
    kinds = {}
    for runtime in ("ort", "openvino"):
        fast = onnxfuse.accelerate(original, runtime=runtime, **options)
        graph = onnx.load(fast.runtime_model.path, load_external_data=False).graph
        kinds[runtime] = {node.op_type for node in graph.node} & {"Attention", "DynamicQuantizeLinear", "QuantizeLinear"}
    assert kinds == {"ort": {"Attention", "DynamicQuantizeLinear"}, "openvino": {"QuantizeLinear"}}, "each for its own target"


def test_another_runtime_in_place_of_a_model(original):
    fast = onnxfuse.accelerate(original, runtime="openvino")
    assert fast.runtime_model.settings.runtime == "openvino"
    with torch.no_grad():
        torch.testing.assert_close(fast(ids(2, 6)).logits, original(ids(2, 6)).logits, atol=1e-5, rtol=1e-5)
    with pytest.raises(
        UsageError, match="no runtime named 'onyx'; choose one of cuda, tensorrt, openvino, openvino-bf16, ort, ort-openvino"
    ):
        onnxfuse.accelerate(original, runtime="onyx")
    with pytest.raises(
        UsageError, match=r"runtime litert takes \.tflite files, and model\.onnx is none; choose one of cuda, tensorrt, openvino"
    ):
        onnxfuse.accelerate(original, runtime="litert")


def test_a_runtime_that_is_not_to_be_had_is_told_before_the_work(original, monkeypatch):
    def missing():
        raise onnxfuse.MissingExtraError("running it", "it")

    known = runtimes()
    gone = known | {"openvino": replace(known["openvino"], require=missing)}
    monkeypatch.setattr("onnxfuse.runtime.runtimes", lambda suffix="": gone)
    monkeypatch.setattr("onnxfuse.api.export", lambda *_, **__: pytest.fail("it is exported"))
    with pytest.raises(onnxfuse.MissingExtraError, match="running it needs packages"):
        onnxfuse.accelerate(original, runtime="openvino")


def test_bfloat16_in_place_of_a_model(original):
    with pytest.raises(UsageError, match="runtime 'ort' does not compute in bf16"):
        onnxfuse.accelerate(original, precision="bf16", runtime="ort")
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        for options in ({"precision": "bf16"}, {"runtime": "openvino-bf16"}):
            with pytest.raises(onnxfuse.ModelError, match="this CPU has no bfloat16 products"):
                onnxfuse.accelerate(original, **options)
        return
    with pytest.raises(UsageError, match="runtime 'openvino-bf16' computes in bf16; leave it out, or choose precision 'bf16'"):
        onnxfuse.accelerate(original, runtime="openvino-bf16")
    fast = onnxfuse.accelerate(original, precision="bf16")
    with torch.no_grad():
        wanted, got = original(ids(2, 6)).logits, fast(ids(2, 6)).logits
    assert 0 < (got - wanted).abs().max() < 0.1 * wanted.abs().max()


def test_everything_that_is_loaded_inside_is_accelerated(original, tmp_path):
    original.save_pretrained(tmp_path / "bert")
    transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50)).save_pretrained(
        tmp_path / "gpt"
    )
    before = transformers.PreTrainedModel.__dict__["from_pretrained"]
    with onnxfuse.accelerated():
        inside = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "bert")
        with pytest.warns(UserWarning, match="GPT2LMHeadModel stays as it is: model type 'gpt2' is not supported"):
            other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "gpt")
    outside = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "bert")
    assert hasattr(inside, "runtime_model") and not hasattr(outside, "runtime_model") and not hasattr(other, "runtime_model")
    assert transformers.PreTrainedModel.__dict__["from_pretrained"] is before
    with torch.no_grad():
        torch.testing.assert_close(inside(ids(2, 6)).logits, outside(ids(2, 6)).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("source", ["object", "checkpoint", "sentence model"])
def test_an_encoder_gives_its_pooler_output_too(source, tmp_path):
    model = bert("BertModel")
    model.save_pretrained(tmp_path / "bert")
    if source == "sentence model":
        kind = "sentence_transformers.models.Pooling"
        modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
        modules.append({"idx": 1, "name": "1", "path": "1_Pooling", "type": kind})
        (tmp_path / "bert" / "modules.json").write_text(json.dumps(modules))
    fast = onnxfuse.accelerate(model if source == "object" else tmp_path / "bert")
    with torch.no_grad():
        wanted, got = model(ids(2, 6)), fast(ids(2, 6))
    assert type(got) is type(wanted) and got.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], atol=1e-5, rtol=1e-5)


def test_an_encoder_without_weights_for_its_pooler_gives_none(tmp_path):
    bert("BertForMaskedLM").save_pretrained(tmp_path / "bert")
    fast = onnxfuse.accelerate(tmp_path / "bert", task="feature-extraction", folder=tmp_path / "kept")
    assert fast.runtime_model.outputs == ("last_hidden_state",)
    with pytest.raises(UsageError, match="no output 'pooler_output'; choose of last_hidden_state"):
        onnxfuse.export(tmp_path / "bert", tmp_path / "out", task="feature-extraction", outputs=["pooler_output"])


def test_a_folder_with_outputs_of_another_kind_is_refused(tmp_path):
    onnxfuse.export(bert("BertModel"), tmp_path, task="sentence-similarity")
    with pytest.raises(ExportError, match="has the output 'sentence_embedding', and BertModel gives last_hidden_state, pooler"):
        onnxfuse.load_torch(tmp_path)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ExportError, match="no transformers model"):
        onnxfuse.accelerate(torch.nn.Linear(2, 2))
    with pytest.raises(UsageError, match="is no folder and no file"):
        onnxfuse.load_torch(tmp_path / "nothing")


def test_what_it_refuses_the_original_answers_where_that_is_asked(original):
    model = copy.deepcopy(original)
    fast, given = onnxfuse.accelerate(model, fallback="original"), ids(2, 5)
    labels = torch.tensor([0, 2])
    assert fast(given).loss is None and not fast(given).logits.requires_grad
    torch.testing.assert_close(fast(given, labels=labels).loss, model(given, labels=labels).loss)
    assert fast(inputs_embeds=torch.zeros(1, 3, 32, requires_grad=True)).logits.requires_grad
    assert fast.double().dtype == torch.float64 == fast(given).logits.dtype
    trained = onnxfuse.accelerate(model.float(), fallback="original")
    assert trained.train().training and model.training and len(list(trained.parameters())) == len(list(model.parameters()))
    assert not trained.eval().training and trained(given).logits.requires_grad, "its weights may have changed"
    for wrong, words in (({"fallback": "other"}, "fallback 'other': wanted 'original'"), ({}, "is for a model in memory")):
        with pytest.raises(UsageError, match=words):
            onnxfuse.accelerate("folder", **({"fallback": "original"} | wrong))


def test_blocks_end_nest_and_hold_in_their_thread_alone(original, tmp_path):
    original.save_pretrained(tmp_path / "bert")
    kind, before = transformers.BertForSequenceClassification, transformers.PreTrainedModel.__dict__["from_pretrained"]
    seen, entered, leave = [], threading.Event(), threading.Event()

    def beside():
        seen.append(kind.from_pretrained(tmp_path / "bert"))
        with onnxfuse.accelerated():
            entered.set()
            leave.wait(60)

    with pytest.raises(KeyError), onnxfuse.accelerated():
        with onnxfuse.accelerated(threads=1):
            assert kind.from_pretrained(tmp_path / "bert").runtime_model.settings.threads == 1
        exported = onnxfuse.export(tmp_path / "bert", tmp_path / "out")
        thread = threading.Thread(target=beside)
        thread.start()
        entered.wait(60)
        raise KeyError
    assert exported.path.is_file() and type(seen[0]) is kind
    assert type(kind.from_pretrained(tmp_path / "bert")) is kind
    leave.set()
    thread.join()
    assert transformers.PreTrainedModel.__dict__["from_pretrained"] is before
    for options, words in (({"folder": "x"}, "folder is for one model"), ({"min_cosine": 0.9}, "is an option of int8")):
        with pytest.raises(UsageError, match=words), onnxfuse.accelerated(**options):
            pass


def test_a_block_opens_our_folders(original, tokenizer, tmp_path):
    original.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    onnxfuse.export(tmp_path / "bert", tmp_path / "ours")
    wanted = transformers.pipeline("text-classification", model=str(tmp_path / "bert"))(TEXTS, batch_size=2)
    with onnxfuse.accelerated(threads=1):
        pipe = transformers.pipeline("text-classification", model=str(tmp_path / "ours"))
        with pytest.raises(UsageError, match="holds a BertForSequenceClassification, and BertModel is asked for"):
            transformers.AutoModel.from_pretrained(tmp_path / "ours")
    assert pipe.model.runtime_model.settings.threads == 1
    assert_close(pipe(TEXTS, batch_size=2), wanted)
    outside = transformers.pipeline(
        "text-classification", model=onnxfuse.load_torch(tmp_path / "ours"), tokenizer=str(tmp_path / "ours")
    )
    assert_close(outside(TEXTS, batch_size=2), wanted)


def test_the_precision_that_is_asked_for_is_opened_whatever_lies_there(original, tmp_path):
    """A folder of an earlier int8 model: its load takes int8, ``accelerate`` what it was asked for."""
    onnxfuse.accelerate(original, precision="int8", folder=tmp_path / "f")
    fast = onnxfuse.accelerate(original, folder=tmp_path / "f")
    assert fast.runtime_model.path.name == "model_optimized.onnx"
    assert (tmp_path / "f" / "model_quantized.onnx").is_file(), "made from the same export, so it stays"
    assert onnxfuse.load_torch(fast.save(tmp_path / "saved")).runtime_model.path.name == "model_optimized.onnx"
    assert pickle.loads(pickle.dumps(fast)).runtime_model.path == fast.runtime_model.path
    file = tmp_path / "f" / "model_optimized.onnx"
    assert onnxfuse.load_torch(file).runtime_model.path == file


def test_a_pickle_of_a_model_that_another_has_replaced_is_refused(original, tmp_path):
    content = pickle.dumps(onnxfuse.accelerate(original, folder=tmp_path / "f"))
    other = transformers.BertForTokenClassification(transformers.BertConfig(**TEXT))
    onnxfuse.accelerate(other, folder=tmp_path / "f")
    with pytest.raises(UsageError, match="is another model than the one that was pickled"):
        pickle.loads(content)


def test_what_a_config_asks_for_is_not_dropped(original, fast, monkeypatch):
    asking = copy.deepcopy(original)
    asking.config.output_hidden_states = True
    with pytest.raises(UsageError, match=r"the model's config asks for output_hidden_states, .* or give fallback='original'"):
        onnxfuse.accelerate(asking)
    assert onnxfuse.accelerate(asking, fallback="original")(ids(1, 4)).hidden_states is not None
    monkeypatch.setattr(fast.config, "output_hidden_states", True)
    with pytest.raises(UsageError, match="output_hidden_states"):
        fast(ids(1, 4))


def test_what_cannot_be_accelerated_is_told_first(fast, tmp_path):
    with pytest.raises(UsageError, match="is optimized already"):
        onnxfuse.accelerate(fast)
    kept = fast.save(tmp_path / "kept")
    with pytest.raises(UsageError, match=r"holds an exported model; open it with onnxfuse\.load_torch"):
        onnxfuse.accelerate(kept)
    with pytest.raises(UsageError, match="input input_ids holds -1, wanted 0 or more"):
        fast(ids(1, 4) - ids(1, 4) - 1)
    with pytest.raises(UsageError, match="optimized for float32 on the CPU"):
        fast.cuda()


def test_nothing_is_copied_between_torch_and_the_runtime(fast, monkeypatch):
    """The runtime reads the tensors' own memory, and the outputs are tensors over the memory that it gives."""
    given = {name: torch.ones(2, 6, dtype=torch.int64) for name in fast.runtime_model.inputs}
    run, seen = fast.runtime_model.runner, {}

    def watched(feeds):
        outputs = run(feeds)
        seen.update({name: array.ctypes.data for name, array in (feeds | outputs).items()})
        return outputs

    monkeypatch.setitem(vars(fast.runtime_model), "runner", watched)
    answer = fast(**given)
    assert {name: seen[name] for name in given} == {name: tensor.data_ptr() for name, tensor in given.items()}
    assert answer.logits.data_ptr() == seen["logits"]
