"""docs/api.md has every public name, as it is: signatures, keywords, defaults, fields, exit codes."""

import inspect
import re
from dataclasses import MISSING, fields

import pytest

import onnxfuse
from onnxfuse import api, config, errors
from onnxfuse.io.progress import silent
from tests.pages import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text()
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
ROWS = {row[0]: row for row in (re.findall(r"(?<=\| ).*?(?= \|)", line) for line in PAGE.splitlines() if line.startswith("| `"))}

FUNCTIONS = [name for name in onnxfuse.__all__ if inspect.isfunction(getattr(onnxfuse, name))]
KINDS = {name: each for name in onnxfuse.__all__ if inspect.isclass(each := getattr(onnxfuse, name))}
CONFIGS = [name for name, each in KINDS.items() if issubclass(each, config.Config)]
ERRORS = [name for name in onnxfuse.__all__ if getattr(onnxfuse, name).__module__ == errors.__name__]
OPTIONS = {
    "export": (api.ExportOptions, (config.ExportConfig,)),
    "optimize": (api.OptimizeOptions, (config.OptimizeConfig,)),
    "quantize": (api.QuantizeOptions, (config.QuantizeConfig, config.Scheme, config.Thresholds)),
}
"""Keywords that a function takes as ``options``, and the configs that have their defaults."""


def shown(value: object) -> str:
    """A default as the page writes it."""
    return value.__name__ if inspect.isfunction(value) else repr(value)


def keywords(name: str) -> dict[str, str]:
    """The parameters of a function, those of its options too, with the defaults."""
    found = {}
    for each in inspect.signature(getattr(onnxfuse, name)).parameters.values():
        if each.kind != each.VAR_KEYWORD:
            found[each.name] = "" if each.default is each.empty else shown(each.default)
        elif name in OPTIONS:
            taken, configs = OPTIONS[name]
            known = {field.name: field.default for kind in configs for field in fields(kind) if field.default is not MISSING}
            found |= {key: shown(known.get(key, silent)) for key in taken.__annotations__}
        else:
            found[f"**{each.name}"] = ""
    return found


def test_every_public_name_is_there_once():
    assert sorted([*SECTIONS, *(name.strip("`") for name in ROWS if name.strip("`")[0].isupper())]) == sorted(onnxfuse.__all__)
    assert sorted([*FUNCTIONS, *CONFIGS, *ERRORS, "Model", "Parity"]) == sorted(onnxfuse.__all__) == dir(onnxfuse)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    section = SECTIONS[name]
    given = inspect.signature(getattr(onnxfuse, name)).parameters.values()
    parts, starred = [], False
    for each in given:
        if each.kind == each.KEYWORD_ONLY and not starred:
            parts, starred = [*parts, "*"], True
        default = "" if each.default is each.empty else f"={shown(each.default)}"
        parts.append(("**" if each.kind == each.VAR_KEYWORD else "") + each.name + default)
    assert f"`{name}({', '.join(parts)})`" in section
    table = re.findall(r"^\| ((?:`[\w*]+`(?:, )?)+) \| (?:`(.*?)`)? ?\| ", section, re.MULTILINE)
    assert {key: default for names, default in table for key in re.findall(r"`(.*?)`", names)} == keywords(name)
    assert len(re.findall(r"^```python$", section, re.MULTILINE)) == 1
    assert re.search(r"[Rr]aises", section)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(name):
    assert re.findall(r"`(\w+)`", ROWS[f"`{name}`"][1]) == [field.name for field in fields(getattr(onnxfuse, name))]


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    assert ROWS[f"`{name}`"][1] == str(getattr(onnxfuse, name).exit_code)
