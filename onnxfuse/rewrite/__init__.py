"""The rewriting engine: patterns, rules, facts about values, and the driver that applies rules.

pattern    what a rule looks for, and how far a failed attempt came
rule       Rule, Match, NoMatch and the builder that ``after`` uses
facts      symbolic shapes and shape arithmetic
laws       what operators tell of their output where sizes are multiplied or content is followed
inference  what ONNX's shape inference tells of every other operator
driver     applies rules to a graph and keeps the Trace
proof      runs the matched nodes and their replacement side by side
"""

from onnxfuse.rewrite import laws
from onnxfuse.rewrite.analysis import Analysis, Dim
from onnxfuse.rewrite.driver import Trace, rewrite
from onnxfuse.rewrite.proof import Prover
from onnxfuse.rewrite.rule import Match, NoMatch, Op, Rule

__all__ = ["Analysis", "Dim", "Match", "NoMatch", "Op", "Prover", "Rule", "Trace", "laws", "rewrite"]
