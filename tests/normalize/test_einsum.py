"""Normal form of Einsum: a product of matrices that computes the same, with few Transposes and Reshapes around it."""

import pytest

from tests.conftest import apply, assert_same, ops, parse


@pytest.mark.parametrize(
    ("equation", "a", "b", "wanted"),
    [
        ("bsd,de->bse", "B,S,12", "12,6", ["MatMul"]),
        ("de,bsd->bse", "12,6", "B,S,12", ["MatMul"]),
        ("b s d, d e -> b e s", "B,S,12", "12,6", ["MatMul", "Transpose"]),
        ("bsd,ed->bse", "B,S,12", "6,12", ["MatMul", "Transpose"]),
        ("bsd,dnh->bsnh", "B,S,12", "12,3,4", ["MatMul", "Reshape", "Reshape"]),
        ("bsnh,nhd->bsd", "B,S,3,4", "3,4,12", ["MatMul", "Reshape", "Reshape"]),
        ("bnsh,bnth->bnst", "B,3,S,4", "B,3,T,4", ["MatMul", "Transpose"]),
        ("bsnh,btnh->bnst", "B,S,3,4", "B,T,3,4", ["MatMul", "Transpose", "Transpose"]),
        ("bnth,bnsh->bnst", "B,3,T,4", "B,3,S,4", ["MatMul", "Transpose"]),
        ("bnst,btnh->bsnh", "B,3,S,T", "B,T,3,4", ["MatMul", "Transpose", "Transpose"]),
        ("bxy,bd->bxyd", "B,3,4", "B,12", ["MatMul", "Reshape", "Reshape", "Reshape"]),
        ("bsd,bsd->bs", "B,S,12", "B,S,12", ["MatMul", "Reshape", "Reshape", "Reshape"]),
        ("d,d->", "12", "12", ["MatMul", "Reshape", "Reshape"]),
    ],
)
def test_a_product_of_two_operands(equation, a, b, wanted):
    text = f'g (float[{a}] a, float[{b}] b) => (float[P] y) {{ e = Einsum<equation = "{equation}">(a, b)  y = Neg(e) }}'
    before, after = parse(text), parse(text)
    apply((), after)
    assert ops(after) == sorted([*wanted, "Neg"])
    assert_same(before, after, {"B": 2, "S": 5, "T": 3})


def test_a_product_that_the_caller_reads_is_one_node():
    model = parse('g (float[B,S,12] a, float[12,6] b) => (float[B,S,6] y) { y = Einsum<equation = "bsd,de->bse">(a, b) }')
    apply((), model)
    assert ops(model) == ["MatMul"]
