"""What every simulated test starts with."""

from __future__ import annotations

import pytest

from tests.sim import ledger, notes


@pytest.fixture(autouse=True)
def clean_notes() -> None:
    """Nothing that another test has noted or heard."""
    notes.noted.clear()
    ledger.heard.clear()
