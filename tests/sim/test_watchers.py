"""What the virtual loop does not see itself is asked in every turn, before time may move."""

from __future__ import annotations

import asyncio

import pytest

from asyncray.testing import DeadlockError, VirtualLoop


class Mailbox:
    """Ends a future, which the loop knows nothing of, after it was asked so many times."""

    def __init__(self, loop: VirtualLoop, looks: int) -> None:
        self.opened = loop.create_future()
        self._loop = loop
        self._looks = looks

    def look(self) -> bool:
        self._looks -= 1
        if self._looks == 0:
            self._loop.call_soon(self.opened.set_result, None)
        return self._looks == 0

    def blocked(self) -> list[str]:
        return ["the mailbox: nobody writes"]


def test_a_watcher_gives_the_loop_work_before_time_moves(virtual_loop: VirtualLoop) -> None:
    async def main() -> float:
        mailbox = Mailbox(virtual_loop, looks=1)
        virtual_loop.add_watcher(mailbox)
        virtual_loop.call_later(3600.0, lambda: None)
        await mailbox.opened
        virtual_loop.remove_watcher(mailbox)
        return virtual_loop.time()

    assert virtual_loop.run_until_complete(main()) == 0.0


def test_a_watcher_without_work_does_not_hold_time_up(virtual_loop: VirtualLoop) -> None:
    async def main() -> float:
        virtual_loop.add_watcher(Mailbox(virtual_loop, looks=0))
        await asyncio.sleep(3600.0)
        return virtual_loop.time()

    assert virtual_loop.run_until_complete(main()) == 3600.0


def test_a_deadlock_tells_what_waits_at_a_watcher(virtual_loop: VirtualLoop) -> None:
    mailbox = Mailbox(virtual_loop, looks=0)
    virtual_loop.add_watcher(mailbox)
    with pytest.raises(DeadlockError, match="the mailbox: nobody writes"):
        virtual_loop.run_until_complete(mailbox.opened)
