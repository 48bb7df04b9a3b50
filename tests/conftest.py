"""What tests of all five packages share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with `data/` and `models/`: `PRUNING_DATA`, else `../shared` beside the repository root."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("PRUNING_DATA", beside))
    if not ((folder / "data").is_dir() and (folder / "models").is_dir()):
        pytest.skip("no folder with data/ and models/: set PRUNING_DATA")
    return folder
