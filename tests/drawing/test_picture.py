"""Which nodes share a box, what is an arrow, and what is part of a row."""

from onnxfuse.drawing.layout import lay_out
from onnxfuse.drawing.picture import picture
from onnxfuse.rewrite.lines import Line
from tests.conftest import parse

CHAIN = "g (float[B,4] x) => (float[B,4] y) <float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}, float half = {0.5}> { BODY }"


def lines(body: str) -> list[Line]:
    return [Line.of(node) for node in parse(CHAIN.replace("BODY", body)).graph]


def boxes(body: str, **given):
    drawn = picture("a", lines(body), shown=["y"], **given)
    return [[row.op for row in box.rows] or box.end for box in drawn.boxes], drawn.arrows


def test_what_follows_each_other_and_nothing_else_is_a_box():
    assert boxes("m = MatMul(x, w)  r = Relu(m)  y = Mul(r, half)") == ([["MatMul", "Relu", "Mul"], "x", "y"], ((1, 0), (0, 2)))


def test_what_somebody_else_reads_ends_a_box():
    found, arrows = boxes("m = MatMul(x, w)  r = Relu(m)  y = Add(r, m)")
    assert found == [["MatMul"], ["Relu"], ["Add"], "x", "y"]
    assert set(arrows) == {(3, 0), (0, 1), (1, 2), (0, 2), (2, 4)}


def test_another_rule_is_another_box():
    found, _ = boxes("m = MatMul(x, w)  y = Relu(m)", rules={"y": "a-rule"})
    assert found == [["MatMul"], ["Relu"], "x", "y"]


def test_constants_and_attributes_are_part_of_a_row():
    drawn = picture("a", lines("m = MatMul(x, w)  u = Softmax<axis = 0>(m)  y = Mul(u, half)"), shapes={"m": "B×4"}, shown=["y"])
    rows = drawn.boxes[0].rows
    assert [(row.notes, row.shape) for row in rows] == [("4×4", "B×4"), ("axis=0", ""), ("0.5", "")]
    assert rows[0].said == "MatMul at m; reads x; reads w (4×4); gives B×4"


def test_an_attribute_that_is_as_usual_is_not_told():
    assert lines("y = Softmax<axis = -1>(x)")[0].attributes == ()
    assert lines("y = Softmax<axis = 0>(x)")[0].attributes == (("axis", "0"),)


def test_a_constant_node_is_no_box():
    found, _ = boxes("c = Constant<value_float = 2.0>()  y = Mul(x, c)")
    assert found == [["Mul"], "x", "y"]
    assert picture("a", lines("c = Constant<value_float = 2.0>()  y = Mul(x, c)")).boxes[0].rows[0].notes == "2"


def test_boxes_lie_beside_each_other_and_above_what_reads_them():
    drawing = lay_out(picture("a", lines("m = MatMul(x, w)  r = Relu(m)  s = Sigmoid(m)  y = Add(r, s)"), shown=["y"]))
    places = {placed.box.end or placed.box.rows[0].op: placed for placed in drawing.boxes}
    assert places["x"].y < places["MatMul"].y < places["Relu"].y == places["Sigmoid"].y < places["Add"].y < places["y"].y
    assert abs(places["Relu"].x - places["Sigmoid"].x) >= min(places["Relu"].width, places["Sigmoid"].width)
    assert all(
        each.x >= 0 and each.x + each.width <= drawing.width and each.y + each.height <= drawing.height for each in drawing.boxes
    )
    assert len(drawing.arrows) == 6
