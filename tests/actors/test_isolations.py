"""The same class behaves the same in a process of its own and as a light actor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.actor import exit_actor

if TYPE_CHECKING:
    from asyncray.actor import ActorClass, ActorHandle

pytestmark = pytest.mark.usefixtures("shared_ray")


class Make(Protocol):
    """Makes an actor with some options."""

    def __call__(self, cls: type[Any], *args: Any, **options: Any) -> ActorHandle[Any]: ...


@pytest.fixture(params=["process", "shared"])
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(isolation: str) -> Make:
    def made(cls: type[Any], *args: Any, **options: Any) -> ActorHandle[Any]:
        groups = options.pop("concurrency_groups", None)
        given: dict[str, Any] = {} if groups is None else {"concurrency_groups": groups}
        actor_class: ActorClass[Any] = ray.remote(**given)(cls) if given else ray.remote(cls)
        chosen: Any = {"isolation": isolation, **options}
        return actor_class.options(**chosen).remote(*args)

    return made


class Account:
    """Counts, waits and fails."""

    def __init__(self, balance: int = 0, broken: int = 0) -> None:
        if broken:
            raise ValueError("no such account")
        self.balance = balance
        self.opened = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.waiting = 0
        self.arrived = asyncio.Semaphore(0)

    async def add(self, amount: int = 1) -> int:
        self.balance += amount
        return self.balance

    def read(self) -> int:
        return self.balance

    async def wait(self) -> str:
        self.waiting += 1
        self.arrived.release()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "opened"

    async def arrivals(self, count: int) -> int:
        for _ in range(count):
            await self.arrived.acquire()
        return self.waiting

    async def open(self) -> int:
        self.opened.set()
        return self.waiting

    async def after_cancel(self) -> bool:
        return await self.cancelled.wait()

    async def fail(self) -> None:
        raise KeyError("gone")

    async def both(self, value: Any) -> tuple[Any, Any]:
        return value, value

    async def count(self, most: int) -> Any:
        for number in range(most):
            yield number

    def count_at_once(self, most: int) -> Any:
        yield from range(most)

    async def me(self) -> Any:
        return ray.get_runtime_context().current_actor

    async def about_me(self) -> list[Any]:
        context = ray.get_runtime_context()
        return [context.get_actor_name(), context.get_actor_id(), context.was_current_actor_reconstructed]

    async def remaining(self) -> Any:
        return ray.get_runtime_context().get_remaining_time()

    async def ask(self, other: list[Any], amount: int) -> int:
        return int(await other[0].add.remote(amount))

    async def leave(self) -> None:
        exit_actor()

    async def change(self, values: list[int]) -> list[int]:
        values.append(self.balance)
        return values


class Diary:
    """Writes its end down."""

    def __init__(self, book: Any) -> None:
        self.book = book

    async def hello(self) -> str:
        return "hello"

    async def on_stop(self) -> None:
        await self.book.add.remote(100)


def test_it_keeps_its_state_between_calls(make: Make) -> None:
    account = make(Account, 10)
    assert ray.get([account.add.remote(n) for n in range(4)]) == [10, 11, 13, 16]
    assert ray.get(account.read.remote()) == 16


def test_what_a_method_raises_hurts_only_its_call(make: Make) -> None:
    account = make(Account)
    with pytest.raises(KeyError, match="gone"):
        ray.get(account.fail.remote())
    assert ray.get(account.add.remote()) == 1


def test_what_the_constructor_raises_reaches_every_caller(make: Make) -> None:
    account = make(Account, 0, 1)
    for ref in (account.add.remote(), account.read.remote()):
        with pytest.raises(exceptions.ActorDiedError, match="no such account"):
            ray.get(ref)


def test_arguments_are_copies(make: Make) -> None:
    values = [1]
    account = make(Account, 7)
    assert ray.get(account.change.remote(values)) == [1, 7]
    assert values == [1]


def test_methods_return_several_values_and_streams(make: Make) -> None:
    account = make(Account)
    first, second = account.both.options(num_returns=2).remote("x")
    assert ray.get([first, second]) == ["x", "x"]
    assert [ray.get(ref) for ref in account.count.remote(5)] == list(range(5))
    assert [ray.get(ref) for ref in account.count_at_once.remote(5)] == list(range(5))


def test_large_arguments_and_results_go_through_the_store(make: Make) -> None:
    large = b"x" * (1 << 20)
    account = make(Account)
    result, again = ray.get(account.both.remote(large))
    assert result == large == again
    assert ray.get(account.both.remote(ray.put(large)))[0] == large


def test_references_as_arguments_are_waited_for(make: Make) -> None:
    account = make(Account)
    amount = account.add.remote(5)
    assert ray.get(account.add.remote(amount)) == 10
    late = make(Account, account.add.remote(0))
    assert ray.get(late.read.remote()) == 10


def test_a_running_call_is_cancelled(make: Make) -> None:
    account = make(Account)
    ref = account.wait.remote()
    ray.get(account.add.remote())
    ray.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        ray.get(ref)
    assert ray.get(account.after_cancel.remote())


def test_a_waiting_call_is_cancelled(make: Make) -> None:
    account = make(Account, max_concurrency=1)
    running, waiting = account.wait.remote(), account.wait.remote()
    ray.cancel(waiting)
    with pytest.raises(exceptions.TaskCancelledError):
        ray.get(waiting)
    ray.cancel(running)
    assert ray.get(account.open.remote()) <= 1


def test_max_concurrency_bounds_what_runs(make: Make) -> None:
    account = make(Account, max_concurrency=2, concurrency_groups={"doors": 1})
    refs = [account.wait.remote() for _ in range(4)]
    opening = account.open.remote()
    assert ray.get(account.arrivals.options(concurrency_group="doors").remote(2)) == 2
    assert ray.wait([opening], timeout=0.05)[0] == []
    ray.cancel(refs[0])
    ray.cancel(refs[1])
    ray.cancel(refs[2])
    assert ray.get(opening) >= 2
    assert ray.get(refs[3]) == "opened"


def test_it_is_explained_what_a_call_waits_for(make: Make) -> None:
    account = make(Account, max_concurrency=1)
    running, waiting = account.wait.remote(), account.wait.remote()
    while "has been running" not in str(ray.util.explain(running)):
        pass
    told = str(ray.util.explain(waiting))
    assert "queued at the worker" in told
    assert "'Account.wait' has been running there" in told
    ray.cancel(running)
    ray.cancel(waiting)


def test_groups_run_beside_each_other(make: Make) -> None:
    account = make(Account, max_concurrency=1, concurrency_groups={"doors": 1})
    waiting = account.wait.remote()
    assert ray.get(account.open.options(concurrency_group="doors").remote()) in (0, 1)
    assert ray.get(waiting) == "opened"


def test_pending_calls_are_bounded(make: Make) -> None:
    account = make(Account, max_pending_calls=2)
    waiting = [account.wait.remote() for _ in range(2)]
    with pytest.raises(exceptions.PendingCallsLimitExceeded):
        account.read.remote()
    ray.cancel(waiting[0])

    async def room() -> int:
        ref = await account.read.remote_async()
        return int(await ref)

    assert asyncio.run(room()) == 0
    ray.cancel(waiting[1])


def test_a_deadline_ends_a_call(make: Make) -> None:
    account = make(Account)
    with pytest.raises(exceptions.GetTimeoutError):
        ray.get(account.wait.options(timeout=0.1).remote())
    assert 0 < ray.get(account.remaining.options(timeout=60).remote()) <= 60
    assert ray.get(account.after_cancel.remote())


def test_it_knows_itself(make: Make) -> None:
    account = make(Account, name="me")
    assert ray.get(account.about_me.remote()) == ["me", account._actor_id.hex(), False]
    assert ray.get(account.me.remote()) == account
    ray.kill(account)


def test_names_are_found_and_freed(make: Make) -> None:
    account = make(Account, 3, name="found")
    assert ray.get(ray.get_actor("found").read.remote()) == 3
    with pytest.raises(exceptions.ActorAlreadyExistsError):
        make(Account, name="found")
    same = make(Account, name="found", get_if_exists=True)
    assert same == account
    ray.kill(account)
    again = make(Account, 4, name="found")
    assert ray.get(again.read.remote()) == 4
    ray.kill(again)


def test_a_killed_one_fails_its_calls(make: Make) -> None:
    account = make(Account)
    waiting = account.wait.remote()
    ray.get(account.add.remote())
    ray.kill(account)
    for ref in (waiting, account.read.remote()):
        with pytest.raises(exceptions.ActorDiedError, match="kill"):
            ray.get(ref)


def test_a_killed_one_starts_again_if_it_may(make: Make) -> None:
    account = make(Account, 5, max_restarts=1)
    assert ray.get(account.add.remote()) == 6
    ray.kill(account, no_restart=False)
    while not ray.get(account.about_me.options(max_task_retries=-1).remote())[2]:
        pass  # it has not been killed yet
    assert ray.get(account.add.remote()) == 6
    ray.kill(account, no_restart=False)
    with pytest.raises(exceptions.ActorDiedError):
        ray.get([account.wait.remote(), account.wait.options(max_task_retries=-1).remote()])


def test_it_leaves_by_itself(make: Make) -> None:
    account = make(Account)
    for method in (account.leave, account.read):
        with pytest.raises(exceptions.ActorDiedError, match="exit_actor"):
            ray.get(method.remote())


def test_it_is_asked_to_end(make: Make) -> None:
    account = make(Account)
    last = account.add.remote()
    with pytest.raises(exceptions.ActorDiedError, match="asked to end"):
        ray.get(account.__ray_terminate__.remote())
    assert ray.get(last) == 1


def test_the_built_in_methods(make: Make) -> None:
    account = make(Account, 2)
    assert ray.get(account.__ray_ready__.remote()) is True
    assert ray.get(account.__ray_call__.remote(lambda self, n: self.balance + n, 3)) == 5


def test_the_last_handle_gone_it_cleans_up(make: Make) -> None:
    book = make(Account)
    diary = make(Diary, book)
    assert ray.get(diary.hello.remote()) == "hello"
    del diary
    while ray.get(book.read.remote()) < 100:
        pass


def test_handles_travel_to_tasks_and_other_actors(make: Make) -> None:
    account, other = make(Account), make(Account)

    @ray.remote
    def task(handle: list[Any]) -> int:
        return int(ray.get(handle[0].add.remote(2)))

    assert ray.get(task.remote([account])) == 2
    assert ray.get(other.ask.remote([account], 3)) == 5


def test_an_actor_makes_others_of_its_own_class(isolation: str) -> None:
    class Parent:
        async def child(self) -> Any:
            self.kept = actor_class.remote()
            return await self.kept.name.remote()

        async def name(self) -> str:
            return type(self).__name__

    actor_class: Any = ray.remote(Parent).options(isolation=isolation)  # type: ignore[arg-type]
    assert ray.get(actor_class.remote().child.remote()) == "Parent"


def test_actors_are_made_by_tasks(isolation: str) -> None:
    @ray.remote
    def task() -> Any:
        options: Any = {"isolation": isolation}
        handle = ray.remote(Account).options(**options).remote(8)
        ray.get(handle.add.remote())
        return [handle]

    (handle,) = ray.get(task.remote())
    assert ray.get(handle.read.remote()) == 9


def test_a_detached_one_outlives_the_task_that_made_it(isolation: str) -> None:
    @ray.remote(max_calls=1)
    def task() -> None:
        options: Any = {"isolation": isolation, "lifetime": "detached", "name": "left", "num_cpus": 0}
        handle = ray.remote(Account).options(**options).remote(8)
        ray.get(handle.add.remote())

    ray.get(task.remote())
    handle = ray.get_actor("left")
    assert ray.get(handle.read.remote()) == 9
    ray.kill(handle)
