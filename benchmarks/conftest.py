"""Options of `bench_kernels.py`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where and for which layers."""
    parser.addoption("--kernel-device", default="cpu", help="torch device of the twins")
    parser.addoption("--kernel-shapes", default="1024x4096,4096x1024", help="OUTxIN,OUTxIN of the layers")
