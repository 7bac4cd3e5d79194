"""Which rule made each node of the result, and which one took each node of the source.

A trace is a list of what went and what came. Read from its end, every node that came stands for what it became in the result:
what went with it became the same, and an operator that writes the same as before goes on being what it was. Names of values
outlive their nodes (what replaces a node takes its name), so each is looked at in its place in the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from onnxfuse.rewrite.driver import Application


@dataclass(frozen=True)
class Origins:
    """By the name of an output: the rule, and the node of the result.

    Args:
        made: of nodes of the result that a rule built, the last rule that touched it.
        taken: of nodes of the source that went, that of what they became.
        became: of these, the name of the node of the result; empty where it went altogether.
    """

    made: dict[str, str] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    became: dict[str, str] = field(default_factory=dict)


def origins(applications: Sequence[Application]) -> Origins:
    """What a trace says of the nodes of both graphs."""
    now = dict[str, tuple[str, str]]()  # by name, at a place in the list: the rule and the node that it became
    found = Origins()
    for each in reversed(applications):
        stayed = {(line.op, line.outputs) for line in each.before} & {(line.op, line.outputs) for line in each.after}
        came = [name for line in each.after if (line.op, line.outputs) not in stayed for name in line.outputs]
        main = now.get(each.value) or (each.rule, each.value)
        if each.value in came and now.pop(each.value, None) is None:
            found.made[each.value] = each.rule
        became = {each.value: main}
        for name in came:
            if name != each.value:
                known = now.pop(name, None)
                if known is None:
                    found.made[name] = each.rule
                became[name] = known or (each.rule, name)
        for line in (line for line in each.before if (line.op, line.outputs) not in stayed):
            for name in line.outputs:
                now[name] = became.get(name, main)
    found.taken.update({name: rule for name, (rule, _) in now.items()})
    found.became.update({name: at for name, (_, at) in now.items()})
    return found
