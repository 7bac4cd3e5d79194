"""The rewriting engine: patterns, rules, what is known of values, and the driver that applies rules.

pattern     what a rule looks for, and how far a failed attempt came
rule        Rule, Match, NoMatch and the builder that ``after`` uses
analysis    what is known of each value: type, symbolic shape, content of shape arithmetic
shapes      shape functions: what operators make of it, where sizes are multiplied or content is followed
inference   what ONNX's shape inference says of every other operator
driver      applies rules to a graph and keeps the Trace
proof       runs the matched nodes and their replacement side by side

It imports no runtime: what it asks one comes as functions (``Compute``, ``Infer``).
"""

from onnxfuse.rewrite.analysis import Analysis, Dim
from onnxfuse.rewrite.driver import Trace, rewrite
from onnxfuse.rewrite.fusion import Alone, Fusion, Lowering
from onnxfuse.rewrite.inference import Infer
from onnxfuse.rewrite.pattern import Pattern, Term, Var
from onnxfuse.rewrite.proof import Compute, Prover
from onnxfuse.rewrite.rule import Learned, Match, NoMatch, Op, Rule

__all__ = [
    "Alone",
    "Analysis",
    "Compute",
    "Dim",
    "Fusion",
    "Infer",
    "Learned",
    "Lowering",
    "Match",
    "NoMatch",
    "Op",
    "Pattern",
    "Prover",
    "Rule",
    "Term",
    "Trace",
    "Var",
    "rewrite",
]
