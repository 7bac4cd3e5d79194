"""What one reads at a time stays small: no module over 300 lines, no function over 50 but with a reason (``# long: ...``)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("onnxfuse", "fusions", "models", "scripts")
MODULES = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_module_and_no_function_is_long(path):
    text = (ROOT / path).read_text()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    excused = {number for number, line in enumerate(text.splitlines(), 1) if "# long: " in line}
    long = [node.name for node in functions if node.end_lineno - node.lineno >= 50 and node.lineno not in excused]
    assert (text.count("\n") <= 300, long) == (True, [])
