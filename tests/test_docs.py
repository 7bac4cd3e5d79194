"""Every block of README.md and docs/ works as it stands there and prints what it shows, and links lead somewhere.

The folder that the pages are followed in has what they call by name: small random models stand in for trained ones, so that
numbers differ and words do not. ``scripts/newcomer.py`` follows the README and the tutorial with the real model.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers

import onnxfuse
from onnxfuse.cli import console
from onnxfuse.evaluation.sentences import docstring_sentences
from onnxfuse.pipeline import doctor, view
from tests.conftest import BERT_SPECIALS, save_tokenizer
from tests.families import TEXT, tiny
from tests.layouts.test_push import hub as hub
from tests.marks import OTHERS
from tests.pages import PAGES, ROOT, Block, blocks, difference, exit_code, indented

NOT_RUN = {
    "README.md": 3,
    "docs/checkpoints.md": 1,
    "docs/gpu.md": 1,
    "docs/how-it-works.md": 1,
    "docs/native.md": 1,
    "docs/packages.md": 1,
    "docs/scale.md": 1,
    "docs/verbs/benchmark.md": 1,
    "docs/verbs/explain.md": 1,
    "docs/verbs/export.md": 1,
    "docs/verbs/run.md": 1,
}
"""How many blocks of a page the tests leave out, each with its reason in front of it."""

TUTORIAL = "docs/tutorial.md"
"""What it makes, the other pages use."""

SLOW = ("docs/verbs/ablate.md", "docs/verbs/tune.md")
FAST = tuple(page for page in PAGES if page not in (TUTORIAL, *SLOW))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder that has what the pages call by name."""
    folder = tmp_path_factory.mktemp("user")
    texts = docstring_sentences(80)
    (folder / "sentences.txt").write_text("\n".join(texts) + "\n")
    _sentence_encoder(folder, texts)
    _save(tiny("bert", "BertForMaskedLM", vocab_size=60), folder / "bert-base-cased")
    _save(tiny("bert", "BertForSequenceClassification", vocab_size=60, num_labels=1), folder / "reranker")
    _save(tiny("bert", "BertForSequenceClassification", vocab_size=60, num_labels=3), folder / "docs-bert")
    for name in ("reranker", "docs-bert"):
        onnxfuse.export(folder / name, folder / "onnx" / name, exporter="torchscript")
    onnxfuse.optimize(folder / "onnx" / "docs-bert", verify="off")
    onnxfuse.quantize(folder / "onnx" / "docs-bert", calibration="none")
    _samples(folder / "docs-bert" / "test")
    return folder


def _save(model: transformers.PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder)
    save_tokenizer(folder, 60, ("input_ids", "attention_mask", "token_type_ids"), (*BERT_SPECIALS, "mask"))


def _samples(folder: Path) -> None:
    """Sixteen rows of tokens, each with a label."""
    folder.mkdir()
    random = np.random.default_rng(0)
    ids = random.integers(5, 60, (16, 12))
    for name, array in {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "labels.npy", random.integers(0, 3, 16))


def _sentence_encoder(folder: Path, texts: list[str]) -> None:
    """all-MiniLM-L6-v2, small and random."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    inside = folder / "inside"
    inside.mkdir()
    words = sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())})
    (inside / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
    transformers.BertTokenizer(str(inside / "vocab.txt")).save_pretrained(inside)
    sizes = TEXT | {"vocab_size": 5 + len(words), "hidden_size": 128, "intermediate_size": 256}
    transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(inside)
    chain = [Transformer(str(inside)), Pooling(128, pooling_mode="mean"), Normalize()]
    sentence_transformers.SentenceTransformer(modules=chain, device="cpu").save(str(folder / "all-MiniLM-L6-v2"))


class Follower:
    """Does what a page says, in ``home``."""

    def __init__(self, home, cli, monkeypatch, capsys):
        self.home, self.cli, self.monkeypatch, self.capsys = home, cli, monkeypatch, capsys

    def follow(self, page: str) -> list[str]:
        """What went otherwise than the page says."""
        names: dict[str, object] = {}
        return [
            f"{page}:{block.line}: {wrong}" for block in blocks(page) if not block.mark for wrong in self._wrong(block, names)
        ]

    def _wrong(self, block: Block, names: dict[str, object]) -> list[str]:
        if block.kind == "python":
            return self._python(block, names)
        if block.kind not in ("sh", "console"):
            return [f"a block of kind {block.kind!r}, which says neither how to run it nor why it is not run"]
        done = [(command, self._command(command), shown) for command, shown in block.commands]
        return [f"{command}: {wrong}" for command, result, shown in done for wrong in _unlike(command, result, shown)]

    def _python(self, block: Block, names: dict[str, object]) -> list[str]:
        self.monkeypatch.chdir(self.home)
        self.capsys.readouterr()
        try:
            exec(compile(block.text, block.page, "exec"), names)
        except Exception as error:  # noqa: BLE001 - told with what else went otherwise
            return [f"{type(error).__name__}: {error}"]
        return list(filter(None, [difference(block.prints, self.capsys.readouterr().out.splitlines(), exact=False)]))

    def _command(self, command: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = shlex.split(command, comments=True)
        if program == "onnxfuse":
            return self.cli(*arguments, at=self.home)
        assert program == "python", f"no stand-in for {program}"
        return subprocess.run(
            ["bash", "-c", f"{shlex.quote(sys.executable)} {command.partition(' ')[2]}"],
            cwd=self.home,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )


def _unlike(command: str, result: subprocess.CompletedProcess[str], shown: list[str]) -> list[str]:
    """What went otherwise in one command than its page says."""
    if result.returncode != exit_code(command):
        return [f"exit code {result.returncode}: {result.stderr[-500:]}"]
    return list(filter(None, [difference(shown, result.stdout.splitlines(), exact=False)]))


@OTHERS
@pytest.mark.parametrize("pages", [FAST, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["fast", "slow"])
def test_every_block_of_the_pages_runs_and_prints_what_it_shows(cli, home, hub, monkeypatch, capsys, pages):
    monkeypatch.setattr(view, "wait", view.stop)
    monkeypatch.setattr(doctor, "WIDTH", 64)
    monkeypatch.setattr(console.out, "width", 200)  # a slow machine's wide numbers do not part a table
    follower = Follower(home, cli, monkeypatch, capsys)
    wrong = [text for page in (TUTORIAL, *pages) for text in follower.follow(page)]
    assert not wrong, "\n".join(wrong)


def test_blocks_that_are_not_run_say_why_and_are_counted():
    marked = [block for page in PAGES for block in blocks(page) if block.mark]
    assert {page: sum(block.page == page for block in marked) for page in {block.page for block in marked}} == NOT_RUN


@pytest.mark.parametrize("page", PAGES)
def test_code_is_fenced(page):
    assert indented((ROOT / page).read_text()) == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", sorted({*PAGES, *(path.name for path in ROOT.glob("*.md"))}))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert "://" in target or ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
