"""What every test gets: a time limit, a temporary directory, a check that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import tempfile
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests import leaks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import AbstractContextManager
    from types import ModuleType

    from asyncray.testing import VirtualLoop

    Sharing = Callable[..., AbstractContextManager[ModuleType]]

#: Seconds after which a test that hangs fails.
TIMEOUT_S = 60

_TEMP_ROOT = pytest.StashKey[str]()
_SHARED_SESSION = pytest.StashKey[bool]()

# A machine at work on other things makes single examples slow; that says nothing about the code.
hypothesis.settings.register_profile("asyncray", deadline=None, print_blob=True)
hypothesis.settings.load_profile("asyncray")


def pytest_configure(config: pytest.Config) -> None:
    """Mark this run's processes, and give it a temporary directory that nobody else writes to."""
    os.environ[leaks.MARK] = uuid.uuid4().hex
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # pytest's own stay where they were
    config.stash[_TEMP_ROOT] = tempfile.mkdtemp(prefix="asyncray-tests-")
    os.environ["TMPDIR"] = tempfile.tempdir = config.stash[_TEMP_ROOT]
    _warm_up_uvloop()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the temporary directory."""
    tempfile.tempdir = None
    del os.environ["TMPDIR"]
    shutil.rmtree(config.stash[_TEMP_ROOT])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Limit the time of every test that sets no limit of its own."""
    if config.pluginmanager.hasplugin("timeout"):
        for item in items:
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take what was collected out of the garbage collector's sight.

    There are thousands of tests, and a full collection behind many of them: looking through all the others
    every time would take minutes.
    """
    _put_out_of_sight()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """After the last test of a file, take what pytest keeps of its tests out of sight likewise."""
    done = yield
    if nextitem is None or nextitem.path != item.path:
        _put_out_of_sight()
    return done


def _put_out_of_sight() -> None:
    gc.collect()
    gc.freeze()


def _warm_up_uvloop() -> None:
    """Let libuv open the pipe that it keeps for the life of the process, before anything is counted."""
    try:
        import uvloop
    except ImportError:
        return
    uvloop.new_event_loop().close()


@pytest.fixture(scope="session")
def leak_grace_s() -> float:
    """Seconds that what a test started may take to end after it."""
    return leaks.GRACE_S


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest, leak_grace_s: float) -> Iterator[None]:
    """Fail a test that leaves a process, thread, descriptor, task or named file behind.

    While a module's `shared_ray` is up, what that session owns may come and go; the session's own end is
    checked the same way.
    """
    if "_function_scoped_runner" in request.fixturenames:
        # The test's own loop must outlive this check: closing it would cancel the tasks that were left on it.
        request.getfixturevalue("_function_scoped_runner")
    before = leaks.take_stock()
    yield
    session_alive = request.config.stash.get(_SHARED_SESSION, False)
    left = leaks.settle(before, session_alive=session_alive, grace_s=leak_grace_s)
    _fail_if_any(left, session_alive=session_alive)


@pytest.fixture
def ray_session() -> Iterator[ModuleType]:
    """Give the test a session of its own with two CPUs; the value is the package."""
    import asyncray

    asyncray.init(num_cpus=2)
    try:
        yield asyncray
    finally:
        asyncray.shutdown()


@pytest.fixture(scope="session")
def sharing(request: pytest.FixtureRequest, leak_grace_s: float) -> Sharing:
    """Hold one session for several tests, in a fixture that yields inside of `sharing(num_cpus=2)`."""
    stash = request.config.stash

    @contextmanager
    def share(**options: Any) -> Iterator[ModuleType]:
        import asyncray

        before = leaks.take_stock()
        asyncray.init(**options)
        stash[_SHARED_SESSION] = True
        try:
            yield asyncray
        finally:
            asyncray.shutdown()
            stash[_SHARED_SESSION] = False
        _fail_if_any(leaks.settle(before, grace_s=leak_grace_s), session_alive=False)

    return share


@pytest.fixture(scope="module")
def shared_ray(sharing: Sharing, request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Give the tests of a module one session together, for speed; the value is the package.

    A module's SESSION has further options of it.
    """
    with sharing(num_cpus=2, **getattr(request.module, "SESSION", {})) as package:
        yield package


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Run the test once on each kind of loop: `with asyncio.Runner(loop_factory=loop_factory) as runner`."""
    if request.param == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory
    return asyncio.SelectorEventLoop


@pytest.fixture
def virtual_loop() -> Iterator[VirtualLoop]:
    """Give the test a loop on virtual time: `virtual_loop.run_until_complete(main())`."""
    from asyncray.testing import VirtualLoop

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        yield loop


def _fail_if_any(left: list[leaks.Leak], *, session_alive: bool) -> None:
    if not left:
        return
    if not session_alive:
        _end_session()  # or every later test would find it
    lines = "\n".join(f"  {leak}" for leak in left)
    pytest.fail(f"left behind after the test:\n{lines}", pytrace=False)


def _end_session() -> None:
    try:
        import asyncray
    except ImportError:
        return
    if asyncray.is_initialized():
        asyncray.shutdown()
