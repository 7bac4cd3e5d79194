"""What a function of the mask, and of others where the mask decides alone, is at padding."""

import pytest

from onnxfuse.fusions.padding_mask import PaddingMask
from tests.conftest import analysis_of, parse

GRAPH = """g (bool[B,S] mask, bool[B,S] other, float[B,S] x) => (float[1] y)
    <float three = {{3.0}}, float four = {{4.0}}, int64[1] last = {{-1}}, int64[1] second = {{1}}, int64[4] lead = {{1, 1, 1, 1}}, int64[3] same = {{1, 1, 1}},
    int64[4] heads = {{0, 1, 1, -1}}> {{ padding = Not(mask)  column = Unsqueeze(mask, last)  row = Unsqueeze(mask, second)  y = {} }}"""


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("Or(padding, other)", 1.0),
        ("Or(mask, other)", None),
        ("And(mask, other)", 0.0),
        ("And(padding, other)", None),
        ("Where(mask, x, three)", 3.0),
        ("Where(padding, three, x)", 3.0),
        ("Where(mask, three, x)", None),
        ("Where(other, three, x)", None),
        ("Where(other, three, three)", 3.0),
        ("Where(other, three, four)", None),
        ("Reshape(row, heads)", 0.0),
        ("Not(column)", 1.0),
        ("Expand(column, lead)", None),  # [1,B,S,1]: one axis more
        ("Expand(column, same)", None),
    ],
)
def test_what_stands_at_padding(body, wanted):
    model = parse(GRAPH.format(body))
    analysis = analysis_of(model)
    padding = PaddingMask(model.graph.inputs[0], 0, -1e4)
    assert padding.at_padding(model.graph.outputs[0], analysis) == wanted
