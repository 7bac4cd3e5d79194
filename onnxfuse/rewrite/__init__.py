"""The rewriting engine: patterns, rules, facts about values, and the driver that applies rules.

    pattern   what a rule looks for, and how far a failed attempt came
    rule      Rule, Match, NoMatch and the builder that ``after`` uses
    facts     symbolic shapes and shape arithmetic
    laws      what each operator tells of its output; laws_int8 for those of int8 models
    driver    applies rules to a graph and keeps the Trace
    proof     runs the matched nodes and their replacement side by side
"""

from onnxfuse.rewrite import laws, laws_int8
from onnxfuse.rewrite.driver import Trace, rewrite
from onnxfuse.rewrite.facts import Dim, Facts
from onnxfuse.rewrite.proof import Prover
from onnxfuse.rewrite.rule import Match, NoMatch, Op, Rule

__all__ = ["Dim", "Facts", "Match", "NoMatch", "Op", "Prover", "Rule", "Trace", "laws", "laws_int8", "rewrite"]
