"""The machine that a measurement is true of."""

from __future__ import annotations

import platform
from pathlib import Path

DECISIVE = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16")
"""CPU flags that decide which kernels a runtime takes."""


def cpu() -> str:
    """The processor's name and the instructions that decide the speed of products."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    analysis = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = analysis.get("flags", "").split()
    return f"{analysis.get('model name', platform.machine())} ({', '.join(flag for flag in DECISIVE if flag in flags)})"
