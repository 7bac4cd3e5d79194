"""The templates in ``templates/``, filled in by jinja2: SVG drawings and pages of one HTML file that asks for nothing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from onnxfuse.drawing import layout
from onnxfuse.drawing.picture import Picture
from onnxfuse.errors import MissingExtraError, printable

GONE = "folded or unused"
"""What stands in a rule's place of nodes that no rule took."""

COLOURS = 8
"""Colours of rules in ``graph.css``; the names stand in the boxes too."""


def classes(rules: Sequence[str]) -> dict[str, str]:
    """The CSS class of each rule; a drawing's rules get the colours in their order."""
    coloured = [rule for rule in rules if rule != GONE]
    return {"": "plain", GONE: "gone"} | {rule: f"r{at % COLOURS}" for at, rule in enumerate(coloured)}


def svg(drawing: layout.Drawing, rules: Sequence[str], name: str) -> Any:
    """A drawing as SVG, for a page to take as it is.

    Args:
        rules: all that get a colour, in its order: pictures beside each other share it.
        name: unlike that of any other drawing of the page.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    return _marked(
        _template("graph.svg").render(
            drawing=drawing,
            classes=classes(rules),
            id=name,
            label=f"{drawing.picture.title}: {drawing.picture.nodes} nodes",
            end_text=layout.end_text,
            pad=layout.PAD,
            line=layout.LINE,
            caption=layout.CAPTION,
        )
    )


def beside(before: Picture, after: Picture, name: str) -> str:
    """Two pictures beside each other as one SVG file. Raises MissingExtraError."""
    rules = list(dict.fromkeys([*after.rules, *before.rules]))
    drawings = [layout.lay_out(each) for each in (before, after)]
    parts = [svg(each, rules, f"{name}-{at}") for at, each in enumerate(drawings)]
    style = _marked(_source("graph.css"))
    return str(_template("pair.svg").render(drawings=drawings, parts=parts, style=style, name=name))


def page(template: str, **content: Any) -> str:
    """A page of one file: its style, its script and its drawings are in it. Raises as ``svg``."""
    style = {"page_style": _marked(_source("page.css")), "graph_style": _marked(_source("graph.css"))}
    return str(_template(template).render(**content, **style, script=_marked(_source("zoom.js"))))


def _marked(text: str) -> Any:
    """Text that is SVG, CSS or HTML of ours, which is not escaped."""
    from markupsafe import Markup

    return Markup(text)


def _source(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return str(loader.get_source(_environment(), name)[0])


def _template(name: str) -> Any:
    return _environment().get_template(name)


@functools.cache
def _environment() -> Any:
    """Everything that is filled in is escaped, but what is marked; what nobody gave is an error."""
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("drawing graphs", "report") from error
    loader = jinja2.PackageLoader("onnxfuse.drawing", "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown)


def _shown(value: Any) -> Any:
    """Names in a stranger's file may hold what turns the direction of a text."""
    return printable(value) if type(value) is str else value
