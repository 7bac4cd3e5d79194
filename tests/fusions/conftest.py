"""What the tests of padding removal share."""

import pytest

from onnxfuse.fusions import dealing, packing


@pytest.fixture
def exact(monkeypatch):
    """Tokens and slots by one, so that small shapes show which of them run."""
    for module in (dealing, packing):
        monkeypatch.setattr(module, "STEP", 1)
