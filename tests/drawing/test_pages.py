"""diff and report: what stands in the pages, and the pages in a browser."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import onnxfuse
from onnxfuse.drawing import pages
from onnxfuse.drawing.layout import lay_out
from onnxfuse.drawing.picture import picture
from onnxfuse.errors import MissingExtraError
from onnxfuse.pipeline import diff
from onnxfuse.pipeline import report as reporting
from onnxfuse.rewrite.lines import Line
from tests.drawing import browser
from tests.marks import OTHERS


@pytest.fixture(scope="module")
def measured(folder):
    """The folder with what ``run`` records of a measurement."""
    path = folder / "onnxfuse.json"
    record = json.loads(path.read_text())
    timings = {
        name: {"p50": p50, "low": p50 * 0.9, "high": p50 * 1.2, "p90": p50, "p99": p50, "samples": 20}
        for name, p50 in (("PyTorch", 4.0), ("ONNX", 2.0))
    }
    rows = {"ONNX": {"file": "model.onnx", "fingerprint": "0", "parity": "max diff 1.0e-07"}}
    plan = {"batch": 1, "length": 128, "threads": 0, "rounds": 20, "real": 1.0, "seed": 0}
    record["benchmark"] = {"plan": plan, "timings": timings, "rows": rows, "cpu": "a CPU", "fastest": {"name": "ONNX"}}
    path.write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("layer", ["embeddings", "1", "head"])
def test_a_diff_is_legible_in_a_browser(folder, tmp_path, scheme, layer):
    found = onnxfuse.diff(folder, output=tmp_path / "diff.html", layer=layer)
    with browser.opened(tmp_path / "diff.html", scheme) as page:
        browser.require_legible(page)
        browser.require_contrast(page, scheme)
        drawn = page.locator("figure").first.locator("tspan.op").count()
        assert drawn == found.before.nodes > 0


@OTHERS
def test_what_a_diff_says(folder):
    found = onnxfuse.diff(folder, output=folder.parent / "d.html", layer="1")
    assert found.layers == ["embeddings", "layer 0", "layer 1", "layer 2", "head"]
    assert "the rules for target cpu, applied again" in found.how
    counts = {each.rule: (each.before, each.after) for each in found.counts}
    assert counts["attention"][0] > 5 and counts["attention"][1] == 1
    assert counts["merged-qkv"] == (6, 2)
    assert [row.op for box in found.after.boxes for row in box.rows].count("Attention") == 1
    said = [row.said for box in found.before.boxes for row in box.rows]
    assert sum("MatMul at" in each for each in said) == 8
    assert any(row.notes.startswith("128×256") for box in found.before.boxes for row in box.rows)


@OTHERS
def test_models_that_rules_do_not_make_of_each_other(folder, tmp_path):
    found = onnxfuse.diff(folder / "model_optimized.onnx", folder / "model_quantized.onnx", tmp_path / "d.html", layer="1")
    assert "model_quantized.onnx is not what onnxfuse's rules make" in found.how
    assert {each.rule for each in found.counts} == {"only here"}
    assert "MatMulInteger" in {row.op for box in found.after.boxes if box.rule for row in box.rows}
    before = {(row.op, box.rule) for box in found.before.boxes for row in box.rows}
    assert ("MatMul", "only here") in before, "int8 writes the value of that name by another operator"
    assert ("MatMul", "") not in before and ("LayerNormalization", "") in before


def test_a_model_beside_itself(folder, tmp_path):
    found = onnxfuse.diff(folder / "model.onnx", folder / "model.onnx", tmp_path / "d.html", layer="EMBEDDINGS")
    assert found.how == "both are the same graph" and found.counts == [] and found.layer == "embeddings"
    assert f"before: {folder.name}/model.onnx" == found.before.title


def test_zooming_by_buttons_and_keys(folder, tmp_path):
    onnxfuse.diff(folder, output=tmp_path / "d.html", layer="1")
    with browser.opened(tmp_path / "d.html") as page:
        figure = page.locator("figure").first
        width = figure.locator("svg.graph").bounding_box()["width"]
        figure.get_by_role("button", name=re.compile("Larger")).click()
        assert figure.locator("output").text_content() == "125 %"
        assert figure.locator("svg.graph").bounding_box()["width"] == pytest.approx(1.25 * width, rel=0.01)
        figure.get_by_role("region").focus()
        page.keyboard.press("0")
        assert figure.locator("svg.graph").bounding_box()["width"] == pytest.approx(width, rel=0.01)
        page.keyboard.press("f")
        pane = figure.locator(".pane").bounding_box()
        shown = figure.locator("svg.graph").bounding_box()
        assert shown["width"] <= pane["width"] and shown["height"] <= pane["height"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_in_a_browser(measured, tmp_path, scheme):
    onnxfuse.report(measured, tmp_path / "r.html", layer="1")
    with browser.opened(tmp_path / "r.html", scheme) as page:
        browser.require_legible(page)
        browser.require_contrast(page, scheme)
        names = page.locator("h2").all_text_contents()
        assert names == [
            "What was done",
            "What was fused",
            "Why not",
            "Latency",
            "Accuracy",
            "Parity",
            "Graphs",
            "Repeat it",
        ]
        assert page.evaluate(
            "document.querySelectorAll('[id]').length == new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size"
        )
        for link in page.locator("nav a").all():
            assert page.locator(link.get_attribute("href")).count() == 1
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "only panes and tables scroll sideways"
        assert page.locator("figure").count() == 4
        assert page.locator("figure .pane[role=region][tabindex]").count() == page.locator("figure").count()
        assert page.locator("#latency ~ .wide tbody tr").count() == 2


def test_what_a_report_says(measured, tmp_path):
    found = onnxfuse.report(measured, tmp_path / "r.html")
    assert [each.step for each in found.steps] == ["export", "optimize", "quantize"]
    assert {name: (count, wanted) for name, count, wanted in found.fused}["attention"] == (3, 3)
    assert [(row.name, row.p50, row.ours, row.fastest) for row in found.latencies] == [
        ("PyTorch", 4.0, False, False),
        ("ONNX", 2.0, True, True),
    ]
    assert found.padding == "removed" and all(each.done for each in found.findings)
    assert found.missing == ["accuracy: give labelled samples with --data"]
    text = (tmp_path / "r.html").read_text()
    for said in ("rewrites proven one by one", "held to", "onnxfuse run", "torch", "a CPU"):
        assert said in text
    assert str(measured.parent) not in text, "a path of this machine"


def test_accuracy_stands_in_it_where_data_are_given(folder, tmp_path):
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 99, (24, 9))
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    np.savez(tmp_path / "data.npz", **arrays, labels=rng.integers(0, 2, 24))
    found = onnxfuse.report(folder, tmp_path / "r.html", data=tmp_path / "data.npz")
    assert found.missing == ["latency: onnxfuse run measures it, or onnxfuse benchmark"] or found.missing == []
    rows = found.evaluation.rows
    assert len(rows) == 3
    with browser.opened(tmp_path / "r.html") as page:
        table = page.locator("#accuracy ~ .wide tbody tr").all_text_contents()
        first = next(iter(rows.values())).metrics["accuracy"]
        assert len(table) == 3 and all(f"{first.value:.4f} ({first.low:.4f} to {first.high:.4f})" in row for row in table[:2])


def test_a_file_that_changed_since(folder, tmp_path):
    import shutil

    there = shutil.copytree(folder, tmp_path / "there")
    shutil.copy(there / "model.onnx", there / "model_optimized.onnx")
    changed = {each.file: each.changed for each in onnxfuse.report(there, tmp_path / "r.html").steps}
    assert changed["model_optimized.onnx"] and not changed["model.onnx"]


def test_the_commands_repeat_what_was_done(folder, cli, tmp_path):
    import shutil

    there = shutil.copytree(folder, tmp_path / "small")
    (there / "report.html").unlink(missing_ok=True)
    record = json.loads((there / "onnxfuse.json").read_text())
    record.pop("benchmark", None)
    (there / "onnxfuse.json").write_text(json.dumps(record))
    (there / "model_optimized.onnx").unlink()
    command = next(each for each in reporting.gather(there, None, "", "").commands if each.startswith("onnxfuse optimize"))
    result = cli(*shlex.split(command)[1:])
    assert result.returncode == 0, result.stderr
    assert json.loads((there / "onnxfuse.json").read_text())["optimize"]["plan"] == record["optimize"]["plan"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("diff", "small/model.onnx"), 2, "is one file; give the other one too, or a folder"),
        pytest.param(("diff", "small", "--layer", "7"), 2, "'layer 7'; choose one of embeddings, 0, 1, 2, head", marks=OTHERS),
        (("diff", "small", "--layer", "9" * 5000), 2, "choose one of embeddings, "),
        (("diff", "small", "--layer", "layer x"), 2, "has no 'layer x'; choose one of embeddings, "),
        (("diff", "small", "--layer", "\N{SUPERSCRIPT TWO}"), 2, "has no '\N{SUPERSCRIPT TWO}'; choose one of embeddings, "),
        (("diff", "small", "small/config.json"), 3, "is not a whole ONNX model"),
        (("diff", "small", "gone.onnx"), 2, "gone.onnx"),
        (("diff", "small", "-o", "notes.html"), 2, "notes.html is there, and onnxfuse did not make it"),
        (("report", "small/model.onnx"), 2, "is a file, wanted a folder"),
        (("report", "gone"), 2, "is not there, wanted a folder"),
        (("report", "empty"), 2, "has no onnxfuse.json that says what onnxfuse made"),
        (("report", "odd"), 3, "is not as onnxfuse writes it; make it anew with: onnxfuse run"),
        (("report", "cut"), 3, "onnxfuse.json holds no JSON object; make it anew with: onnxfuse run"),
        (("report", "small", "--split", "test"), 2, "--split test is of labelled data; give them with --data"),
        (("report", "small", "--data", "gone.csv"), 2, "gone.csv"),
        (("report", "small", "-o", "page.txt"), 2, "page.txt: wanted a file ending in .html"),
        (("diff", "small", "-o", "page.svg"), 2, "page.svg: wanted a file ending in .html"),
        (("diff", "nowhere"), 2, "nowhere is not there"),
        (("report", "small", "-o", "notes.html"), 2, "notes.html is there, and onnxfuse did not make it"),
    ],
)
def test_what_cannot_be(folder, cli, tmp_path, arguments, code, said):
    (tmp_path / "small").symlink_to(folder)
    (tmp_path / "notes.html").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "onnxfuse.json").write_text('{"export":')
    (tmp_path / "odd" / "onnxfuse.json").write_text('{"export": {"path": 3}}')
    result = cli(*arguments)
    assert result.returncode == code
    assert said in result.stderr.splitlines()[-1] and result.stderr.count("onnxfuse: ") == 1
    assert (tmp_path / "notes.html").read_text() == "mine"


@pytest.mark.parametrize(("widths", "beside"), [((2, 2), True), ((2, 5), False)])
def test_drawings_stand_beside_each_other_where_both_fit(tmp_path, widths, beside):
    """Else each has the page's whole width: at 1400 pixels nothing of a layer is cut off at the side."""
    titles = ("before", "after")
    parts = [
        picture(
            title, [Line("Relu", ("x",), (f"y{at}",)) for at in range(width)], shapes={f"y{at}": "B" * 20 for at in range(width)}
        )
        for title, width in zip(titles, widths, strict=True)
    ]
    difference = diff.Difference(Path("a.onnx"), Path("b.onnx"), "layer 0", ["layer 0"], "", *parts)
    content = {"title": "t", "difference": difference, "drawings": difference.drawings(), "classes": pages.classes([])}
    (tmp_path / "d.html").write_text(pages.page("diff.html", **content, first="a.onnx", second="b.onnx"))
    with browser.opened(tmp_path / "d.html") as page:
        left, right = (page.locator("figure").nth(at).bounding_box() for at in (0, 1))
        assert (left["y"] == right["y"]) == beside
        for at in (0, 1):
            pane = page.locator(".pane").nth(at)
            assert pane.evaluate("(each) => each.scrollWidth <= each.clientWidth")


def test_names_of_a_stranger_are_text(tmp_path):
    name = "</svg><script>alert(1)</script>\u202e"
    drawn = picture("a", [Line("Relu", (name,), ("y",))], shown=["y"])
    text = pages.beside(drawn, drawn, "a")
    assert "<script>" not in text and "\u202e" not in text and "&lt;script&gt;" in text


def test_without_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(MissingExtraError, match=re.escape("onnxfuse[report]")):
        lay_out(picture("a", [Line("Relu", ("x",), ("y",))]))
