"""The machine that a measurement is true of."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from onnxfuse.runtime.cores import cores

DECISIVE = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""CPU flags that decide which kernels a runtime takes."""


@dataclass(frozen=True)
class Machine:
    """Two of these that are equal are as fast. ``cpu``: as the function of that name gives it; ``cores``: that we may use."""

    cpu: str
    cores: int

    def __str__(self) -> str:
        return f"{self.cores} cores of {self.cpu}"


def here() -> Machine:
    """This one."""
    return Machine(cpu(), cores())


def cpu() -> str:
    """The processor's name and the instructions that decide the speed of products."""
    told = _told()
    if not told:
        return platform.processor() or platform.machine()
    return f"{told.get('model name', platform.machine())} ({', '.join(kind())})"


def kind() -> tuple[str, ...]:
    """The instructions that this machine has of those that decide which form of a model is the fastest."""
    return tuple(flag for flag in DECISIVE if flag in flags())


def flags() -> set[str]:
    """The processor's instruction sets, as Linux names them; none where it does not say."""
    return set(_told().get("flags", "").split())


def _told() -> dict[str, str]:
    """What Linux tells of the last processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
