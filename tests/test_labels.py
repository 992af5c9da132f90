"""What a task may ask of a node's labels."""

from __future__ import annotations

import pytest

from asyncray.labels import any_matches, matches

LABELS = {"zone": "a", "disk": "ssd"}


@pytest.mark.parametrize(
    "selector",
    [{}, {"zone": "a"}, {"zone": "!b"}, {"zone": "in(a, b)"}, {"zone": "!in(b,c)"}, {"none": "!x"}],
)
def test_labels_that_meet_every_condition_match(selector: dict[str, str]) -> None:
    assert matches(selector, LABELS)


@pytest.mark.parametrize(
    "selector",
    [{"zone": "b"}, {"zone": "!a"}, {"zone": "in(b,c)"}, {"zone": "!in(a,b)"}, {"none": "x"}],
)
def test_labels_that_miss_one_condition_do_not(selector: dict[str, str]) -> None:
    assert not matches({"disk": "ssd", **selector}, LABELS)


def test_a_selector_to_fall_back_on_is_as_good() -> None:
    assert any_matches({"zone": "b"}, [{"zone": "c"}, {"disk": "ssd"}], LABELS)
    assert not any_matches({"zone": "b"}, [{"zone": "c"}], LABELS)
