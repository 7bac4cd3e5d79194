"""What the tutorial and the pages beside it tell a user to type works as it stands there, and their links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import transformers

from onnxfuse.evaluation.sentences import docstring_sentences
from tests.families import TEXT

ROOT = Path(__file__).parent.parent
PAGES = ("docs/tutorial.md", "docs/troubleshooting.md")
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder that has what the pages call by name: a sentence encoder, small and random, and texts."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    folder, inside = tmp_path_factory.mktemp("user"), tmp_path_factory.mktemp("encoder")
    texts = docstring_sentences(80)
    (folder / "sentences.txt").write_text("\n".join(texts) + "\n")
    words = sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())})
    (inside / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
    transformers.BertTokenizer(str(inside / "vocab.txt")).save_pretrained(inside)
    sizes = TEXT | {"vocab_size": 5 + len(words), "hidden_size": 128, "intermediate_size": 256}
    transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(inside)
    chain = [Transformer(str(inside)), Pooling(128, pooling_mode="mean"), Normalize()]
    sentence_transformers.SentenceTransformer(modules=chain, device="cpu").save(str(folder / "all-MiniLM-L6-v2"))
    return folder


def test_every_block_of_the_pages_runs(cli, home, monkeypatch, capsys):
    names: dict[str, object] = {}
    run = 0
    for page in PAGES:
        for kind, block in BLOCK.findall((ROOT / page).read_text()):
            if kind == "python":
                monkeypatch.chdir(home)
                exec(compile(block, page, "exec"), names)
                assert capsys.readouterr().out, f"{page} prints nothing where it says print: {block}"
                run += 1
                continue
            for line in filter(None, block.splitlines()):
                result = cli(*shlex.split(line)[1:], at=home)
                assert result.returncode == 0, f"{page}: {line}: {result.stderr}"
                run += 1
    assert run >= 10


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert "://" in target or ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
