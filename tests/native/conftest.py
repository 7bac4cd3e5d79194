"""The library that these tests run; ``make library`` builds it."""

import pytest

from onnxfuse import native


@pytest.fixture(scope="session")
def library() -> str:
    return native.path()
