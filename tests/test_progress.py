"""The bar of `map(..., progress=True)`: live on a terminal, in a notebook as a widget, quiet in a log."""

from __future__ import annotations

import contextlib
import io
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from asyncray import aio, progress, util
from asyncray.testing import SimulatedCluster, simulate
from tests.sim.tasks import double

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest.importorskip("tqdm")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def log() -> io.StringIO:
    """A standard error that is no terminal."""
    return io.StringIO()


@pytest.fixture
def terminal() -> io.StringIO:
    """A standard error that is one."""
    return Terminal()


def watched(stream: io.StringIO, call: Callable[[], object]) -> str:
    """What a call shows."""
    with contextlib.redirect_stderr(stream):
        call()
    return stream.getvalue()


async def run(cluster: SimulatedCluster) -> None:
    assert [r async for r in aio.map(double, range(20), progress=True)] == list(range(0, 40, 2))


def test_a_terminal_gets_a_live_bar_with_rate_and_estimate(terminal: io.StringIO) -> None:
    drawn = watched(terminal, lambda: simulate(run)).split("\r")
    assert len(drawn) > 2
    assert "double:   0%" in drawn[1]
    assert "100%" in drawn[-1]
    assert "20/20" in drawn[-1]
    assert "calls/s" in drawn[-1]
    assert "<" in drawn[-1], "time left"


def test_an_unknown_number_of_items_has_a_rate_all_the_same(terminal: io.StringIO) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        assert [r async for r in aio.map(double, iter(range(20)), progress=True)]

    shown = watched(terminal, lambda: simulate(main))
    assert "double: 20 calls" in shown
    assert "calls/s" in shown


def test_a_log_gets_one_whole_line_for_a_short_run(log: io.StringIO) -> None:
    shown = watched(log, lambda: simulate(run))
    assert "\r" not in shown
    (line,) = shown.splitlines()
    assert "double: 100% 20/20" in line
    assert "calls/s" in line


def test_a_log_gets_a_line_now_and_then_for_a_long_run(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tqdm.std

    def clock() -> Iterator[float]:
        now = 0.0
        while True:
            yield now
            now += 1.0

    times = clock()
    monkeypatch.setattr(tqdm.std, "time", lambda: next(times))

    def show() -> None:
        bar = progress.new_bar("slow", 100, progress=True)
        for _ in range(100):
            bar.update()
        bar.close()

    lines = watched(log, show).splitlines()
    assert 3 <= len(lines) <= 8, lines
    assert all(line.startswith("slow: ") for line in lines)


def test_the_blocking_twin_has_it_too(log: io.StringIO) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        await cluster.run_blocking(lambda: list(util.map(double, range(20), progress=True)))

    assert "20/20" in watched(log, lambda: simulate(main))


def test_an_early_end_says_how_far_it_came(log: io.StringIO) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.map(double, range(20), progress=True) as results:
            await anext(results)

    assert "1/20" in watched(log, lambda: simulate(main))


def test_a_notebook_gets_the_bar_itself(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel))
    assert progress.in_notebook()
    assert "\r" in watched(log, lambda: progress.new_bar("cell", 10, progress=True).close())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not progress.in_notebook()


def test_without_it_nothing_is_shown_and_tqdm_is_not_needed(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)

    async def main(cluster: SimulatedCluster) -> None:
        assert [r async for r in aio.map(double, range(20))]

    assert watched(log, lambda: simulate(main)) == ""


@pytest.mark.parametrize("map_", [aio.map, util.map])
def test_without_tqdm_the_error_names_the_extra(map_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"pip install 'asyncray\[progress\]'"):
        map_(double, [1], progress=True)
