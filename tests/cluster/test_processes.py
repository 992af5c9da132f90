"""Options of tasks, and the processes that run them: how many there are, what they share, when they go."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from tests.cluster import processes
from tests.cluster.doors import Doors, stand_at
from tests.cluster.patience import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_LEASES_KEPT = {"lease_keep_s": 0}


@pytest.fixture(autouse=True)
def no_session_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """End what a failed test has left open, unless the module shares it."""
    yield
    if "shared_ray" not in request.fixturenames:
        ray.shutdown()


@ray.remote
def pid() -> int:
    return os.getpid()


def workers() -> set[int]:
    """The worker processes of the session."""
    return set(processes.children(processes.template_pid(processes.node_pid())))


class TestResources:
    def test_fractions_of_a_cpu_run_together_up_to_the_whole(self, doors: Doors) -> None:
        ray.init(num_cpus=1)
        door = doors.new()
        refs = [ray.remote(stand_at).options(num_cpus=0.25).remote(door.name) for _ in range(5)]
        together = {door.arrival() for _ in range(4)}
        assert len(together) == 4
        assert ray.available_resources().get("CPU", 0) == 0
        assert door.is_quiet()
        door.let_in()
        door.arrival()
        door.let_in(4)
        ray.get(refs)

    def test_the_smallest_fraction_is_counted_exactly(self, doors: Doors) -> None:
        ray.init(num_cpus=1)
        door = doors.new()
        ref = ray.remote(stand_at).options(num_cpus=0.0001).remote(door.name)
        door.arrival()
        assert ray.available_resources()["CPU"] == 0.9999
        door.let_in()
        ray.get(ref)

    def test_a_task_without_cpus_runs_while_all_are_taken(self, doors: Doors) -> None:
        ray.init(num_cpus=1)
        door = doors.new()
        ref = ray.remote(stand_at).remote(door.name)
        door.arrival()
        assert ray.get(pid.options(num_cpus=0).remote()) != os.getpid()
        door.let_in()
        ray.get(ref)

    @pytest.mark.parametrize(
        "options", [{"resources": {"widget": 1}}, {"memory": 600 << 20}], ids=["resources", "memory"]
    )
    def test_a_resource_bounds_how_many_run(self, options: Any, doors: Doors) -> None:
        ray.init(num_cpus=4, resources={"widget": 1}, object_store_memory=100 << 20)
        door = doors.new()
        if "memory" in options:
            options = {"memory": int(ray.cluster_resources()["memory"] * 0.6)}
        refs = [ray.remote(stand_at).options(**options).remote(door.name) for _ in range(2)]
        door.arrival()
        ray.available_resources()
        assert door.is_quiet()
        door.let_in()
        door.arrival()
        door.let_in()
        ray.get(refs)

    def test_what_no_node_has_stays_pending_with_one_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        ray.init(num_cpus=1)
        with caplog.at_level("WARNING", "asyncray"):
            refs = [pid.options(num_cpus=8).remote() for _ in range(3)]
            eventually(lambda: len(caplog.records), 1)
            assert ray.wait(refs, timeout=0) == ([], refs)
        assert "'pid' needs {'CPU': 8.0}" in caplog.text


class TestWorkers:
    @pytest.mark.parametrize("cpus", [1, 2, 50])
    def test_as_many_as_cpus_are_started_ahead_but_no_more_than_the_machine_has(self, cpus: int) -> None:
        ray.init(num_cpus=cpus)
        ray.get(pid.remote())
        eventually(lambda: len(workers()), min(cpus, len(os.sched_getaffinity(0))))

    def test_one_is_used_again_and_again(self) -> None:
        ray.init(num_cpus=1)
        assert len({ray.get(pid.remote()) for _ in range(20)}) == 1

    def test_more_are_started_when_more_can_run(self, doors: Doors) -> None:
        ray.init(num_cpus=1)
        door = doors.new()
        refs = [ray.remote(stand_at).options(num_cpus=0).remote(door.name) for _ in range(4)]
        together = {door.arrival() for _ in refs}
        assert len(together) == 4
        assert together <= workers()
        door.let_in(4)
        ray.get(refs)

    def test_those_beyond_the_cpus_retire_when_they_are_idle(self, doors: Doors) -> None:
        ray.init(num_cpus=1, _system_config={**NO_LEASES_KEPT, "worker_idle_s": 0.05})
        door = doors.new()
        refs = [ray.remote(stand_at).options(num_cpus=0).remote(door.name) for _ in range(4)]
        for _ in refs:
            door.arrival()
        door.let_in(4)
        ray.get(refs)
        eventually(lambda: len(workers()), 1)
        assert ray.get(pid.remote()) in workers()

    def test_one_that_owns_something_stays_until_that_is_let_go(self, doors: Doors) -> None:
        ray.init(num_cpus=1, _system_config={**NO_LEASES_KEPT, "worker_idle_s": 0.05})
        door = doors.new()
        name = door.name

        @ray.remote(num_cpus=0)
        def own(value: str) -> tuple[int, Any]:
            ref = ray.put(value)
            stand_at(name)
            return os.getpid(), ref

        refs = [own.remote(str(i)) for i in range(3)]
        for _ in refs:
            door.arrival()
        door.let_in(3)
        owners, kept = zip(*ray.get(refs), strict=True)
        others = [ray.remote(stand_at).options(num_cpus=0).remote(name) for _ in range(5)]
        for _ in others:
            door.arrival()
        door.let_in(5)
        ray.get(others)
        eventually(lambda: workers() - set(owners), set())
        assert workers() == set(owners)
        assert ray.get(list(kept)) == ["0", "1", "2"]
        del refs, kept
        eventually(lambda: len(workers()), 1)

    def test_one_whose_task_waits_for_another_makes_room_for_it(self) -> None:
        ray.init(num_cpus=1)

        @ray.remote
        def nested(depth: int) -> int:
            return 1 + ray.get(nested.remote(depth - 1)) if depth else 0

        assert ray.get(nested.remote(12)) == 12

    def test_waiting_makes_room_as_getting_does(self) -> None:
        ray.init(num_cpus=1)

        @ray.remote
        def outer() -> tuple[int, int]:
            ready, _ = ray.wait([pid.remote() for _ in range(3)], num_returns=3)
            return os.getpid(), ray.get(ready[0])

        first, second = ray.get(outer.remote())
        assert first != second

    def test_one_that_goes_on_after_waiting_has_its_cpu_again(self, doors: Doors) -> None:
        ray.init(num_cpus=1)
        door = doors.new()
        name = door.name

        @ray.remote
        def outer() -> None:
            ray.get(pid.remote())
            stand_at(name)

        ref = outer.remote()
        door.arrival()
        eventually(lambda: ray.available_resources().get("CPU", 0), 0)
        late = pid.remote()
        assert ray.wait([late], timeout=0) == ([], [late])
        door.let_in()
        ray.get([ref, late])

    def test_what_a_task_leaves_running_ends_with_the_session(self) -> None:
        ray.init(num_cpus=1)

        @ray.remote
        def leave() -> int:
            return subprocess.Popen(["sleep", "1000"]).pid

        left = ray.get(leave.remote())
        os.kill(left, 0)  # it is there
        ray.shutdown()
        assert processes.left_of([left], within_s=1) == []


class TestMaxCalls:
    @pytest.mark.parametrize("calls", [1, 3])
    def test_after_max_calls_the_worker_makes_room_for_a_new_one(self, calls: int) -> None:
        ray.init(num_cpus=1)
        task = ray.remote(max_calls=calls)(os.getpid)
        seen = [ray.get(task.remote()) for _ in range(3 * calls)]
        assert [seen.count(found) for found in dict.fromkeys(seen)] == [calls] * 3

    def test_max_calls_holds_for_calls_made_at_once_too(self) -> None:
        ray.init(num_cpus=2)
        task = ray.remote(max_calls=2)(os.getpid)
        seen = ray.get([task.remote() for _ in range(20)])
        assert max(seen.count(found) for found in seen) <= 2

    def test_a_worker_that_had_a_gpu_is_not_used_again(self) -> None:
        ray.init(num_cpus=1, num_gpus=1)
        task = pid.options(num_gpus=1)
        assert len({ray.get(task.remote()) for _ in range(3)}) == 3


class TestWhatWorkersShare:
    def test_random_numbers_differ_between_workers(self, doors: Doors) -> None:
        pytest.importorskip("numpy")
        ray.init(num_cpus=1, preload=["random", "numpy.random"])
        door = doors.new()
        name = door.name

        @ray.remote(num_cpus=0)
        def draw() -> tuple[int, int]:
            import random

            import numpy as np

            stand_at(name)
            return random.getrandbits(60), int(np.random.randint(2**60))  # noqa: NPY002 - the one that forks share

        refs = [draw.remote() for _ in range(4)]
        for _ in refs:
            door.arrival()
        door.let_in(4)
        drawn = [number for pair in ray.get(refs) for number in pair]
        assert len(set(drawn)) == 8

    def test_an_interrupt_of_an_idle_worker_changes_nothing(self) -> None:
        ray.init(num_cpus=1)
        idle = ray.get(pid.remote())
        for _ in range(3):
            os.kill(idle, signal.SIGINT)
            assert ray.get(pid.remote()) == idle

    def test_a_worker_holds_no_descriptor_of_another_process(self, tmp_path: Path, doors: Doors) -> None:
        inheritable = os.open(tmp_path, os.O_RDONLY)
        os.set_inheritable(inheritable, True)
        ray.init(num_cpus=2)
        os.close(inheritable)
        door = doors.new()
        refs = [ray.remote(stand_at).remote(door.name) for _ in range(2)]
        first, second = [without_doors(descriptors(door.arrival()), tmp_path) for _ in refs]
        door.let_in(2)
        ray.get(refs)
        node = processes.node_pid()
        template = descriptors(processes.template_pid(node))
        assert named(first) & named(template) == set()
        assert named(first) & named(second) == set()
        assert str(tmp_path) not in {*first, *template}
        # Nothing but its streams, its loop, its sockets and what wakes it up.
        assert {re.sub(r"\d+", "", target) for target in first} <= OWN
        assert len(first) < 20

    @pytest.mark.slow
    def test_a_further_idle_worker_adds_at_most_8_mb(self, doors: Doors) -> None:
        ray.init(num_cpus=1)
        door = doors.new()

        def with_workers(count: int) -> tuple[int, int]:
            refs = [ray.remote(stand_at).options(num_cpus=0).remote(door.name) for _ in range(count)]
            for _ in refs:
                door.arrival()
            door.let_in(count)
            ray.get(refs)
            below = processes.descendants(processes.node_pid())
            return len(below), sum(map(pss_bytes, [processes.node_pid(), *below]))

        few, with_few = with_workers(3)
        many, with_many = with_workers(9)
        assert many - few >= 5
        assert (with_many - with_few) / (many - few) <= 8e6


class TestReturns:
    def test_one_is_a_reference_and_several_are_a_list_of_them(self, shared_ray: Any) -> None:
        @ray.remote
        def pair() -> tuple[int, int]:
            return 1, 2

        assert ray.get(pair.remote()) == (1, 2)
        refs: Any = pair.options(num_returns=2).remote()
        assert ray.get(refs) == [1, 2]
        assert ray.get(pair.options(num_returns=1).remote()) == (1, 2)

    def test_none_is_nothing_to_wait_for(self, shared_ray: Any, tmp_path: Path) -> None:
        place = tmp_path / "place"
        os.mkfifo(place)

        @ray.remote(num_returns=0)
        def leave(text: str) -> str:
            place.write_text(text)
            return text

        assert leave.remote("done") is None
        assert place.read_text() == "done"

    def test_num_return_vals_is_the_old_name(self, shared_ray: Any) -> None:
        with pytest.warns(DeprecationWarning, match="num_returns"):
            pair = ray.remote(num_return_vals=2)(lambda: (1, 2))
        refs: Any = pair.remote()
        assert ray.get(refs) == [1, 2]

    def test_each_of_several_may_be_awaited_alone(self, shared_ray: Any) -> None:
        refs: Any = ray.remote(num_returns=2)(lambda: ("a", "b")).remote()
        first, second = refs
        assert ray.get(second) == "b"
        assert ray.get(first) == "a"

    def test_a_failure_is_that_of_every_one(self, shared_ray: Any) -> None:
        @ray.remote(num_returns=3)
        def fail() -> None:
            raise LookupError("none")

        refs: Any = fail.remote()
        assert len(refs) == 3
        for ref in refs:
            with pytest.raises(LookupError, match="none"):
                ray.get(ref)

    @pytest.mark.parametrize("value", [(1,), (1, 2, 3), 7])
    def test_another_number_of_values_is_an_error_that_tells_both(self, shared_ray: Any, value: Any) -> None:
        refs: Any = ray.remote(num_returns=2)(lambda: value).remote()
        for ref in refs:
            with pytest.raises((ValueError, TypeError), match="num_returns=2"):
                ray.get(ref)


class TestOtherOptions:
    @pytest.mark.parametrize(
        "options",
        [
            {"scheduling_strategy": "DEFAULT"},
            {"scheduling_strategy": "SPREAD"},
            {"_labels": {"team": "a"}},
            {"enable_task_events": False},
            {"max_retries": -1},
            {"name": "my task"},
        ],
        ids=str,
    )
    def test_it_is_accepted(self, shared_ray: Any, options: Any) -> None:
        assert ray.get(pid.options(**options).remote()) != os.getpid()
        assert ray.get(ray.remote(**options)(lambda: 1).remote()) == 1


class TestAWorker:
    def test_signals_are_as_in_a_new_process_but_for_interrupts(self, shared_ray: Any) -> None:
        @ray.remote
        def state() -> tuple[Any, ...]:
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, set())
            return blocked, signal.getsignal(signal.SIGCHLD), signal.getsignal(signal.SIGTERM)

        assert ray.get(state.remote()) == (set(), signal.SIG_DFL, signal.SIG_DFL)

    def test_a_terminals_interrupt_does_not_reach_a_worker(self, shared_ray: Any) -> None:
        @ray.remote
        def place() -> tuple[int, int, int]:
            return os.getpid(), os.getpgid(0), os.getsid(0)

        own, group, session = ray.get(place.remote())
        assert group == own
        assert session != os.getsid(0)
        assert os.getsid(processes.node_pid()) == session

    def test_a_worker_is_the_first_to_go_when_memory_runs_out(self, shared_ray: Any) -> None:
        found = ray.get(ray.remote(lambda: Path("/proc/self/oom_score_adj").read_text()).remote())
        assert int(found) == 1000

    def test_standard_input_is_empty(self, shared_ray: Any) -> None:
        assert ray.get(ray.remote(lambda: (sys.stdin.read(), os.read(0, 1))).remote()) == ("", b"")

    def test_processes_have_names_that_tell_what_they_are(self, shared_ray: Any) -> None:
        node = processes.node_pid()
        worker = ray.get(pid.remote())
        found = [processes.name(found) for found in (node, processes.template_pid(node), worker)]
        assert found == ["asyncray-node", "asyncray-templ", "asyncray-worker"]


class TestProcessesOfTasks:
    def test_a_task_may_run_a_program(self, shared_ray: Any) -> None:
        def run() -> tuple[str, int]:
            done = subprocess.run(
                ["sh", "-c", "echo out; exit 3"], capture_output=True, text=True, check=False
            )
            return done.stdout, done.returncode

        assert ray.get(ray.remote(run).remote()) == ("out\n", 3)

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_a_task_may_start_processes_by_multiprocessing(self, shared_ray: Any, method: str) -> None:
        def run() -> tuple[int | None, Any]:
            import multiprocessing

            context: Any = multiprocessing.get_context(method)
            queue = context.SimpleQueue()
            process = context.Process(target=put_pid, args=(queue,))
            process.start()
            child = queue.get()
            process.join()
            queue.close()
            return process.exitcode, child == process.pid

        assert ray.get(ray.remote(run).remote()) == (0, True)

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_a_task_may_use_a_pool_of_processes(self, shared_ray: Any, method: str) -> None:
        def run() -> list[int]:
            import multiprocessing

            with multiprocessing.get_context(method).Pool(2) as pool:
                return pool.map(square, range(5))

        assert ray.get(ray.remote(run).remote()) == [0, 1, 4, 9, 16]

    def test_a_coroutine_may_start_processes_too(self, shared_ray: Any) -> None:
        async def run() -> tuple[int | None, list[int]]:
            import asyncio
            from concurrent.futures import ProcessPoolExecutor

            process = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
            code = await process.wait()
            with ProcessPoolExecutor(1) as pool:
                loop = asyncio.get_running_loop()
                return code, list(
                    await asyncio.gather(*[loop.run_in_executor(pool, square, i) for i in (2, 3)])
                )

        assert ray.get(ray.remote(run).remote()) == (3, [4, 9])

    def test_a_child_has_no_session_and_the_task_keeps_its_own(self, shared_ray: Any) -> None:
        def run() -> tuple[bool, str, int]:
            import multiprocessing

            context = multiprocessing.get_context("fork")
            queue = context.SimpleQueue()
            process = context.Process(target=try_calling, args=(queue,))
            process.start()
            initialized, error = queue.get()
            process.join()
            queue.close()
            return initialized, error, ray.get(ray.put(7))

        initialized, error, own = ray.get(ray.remote(run).remote())
        assert not initialized
        assert "has no session" in error
        assert own == 7

    @pytest.mark.parametrize("how", ["exit", "system_exit", "return", "raise"])
    def test_a_child_that_a_task_forks_ends_without_a_trace_however_it_ends(
        self, shared_ray: Any, how: str
    ) -> None:
        def run() -> tuple[int, int]:
            child = os.fork()
            if child == 0:
                if how == "exit":
                    os._exit(0)
                if how == "system_exit":
                    sys.exit(0)
                if how == "raise":
                    raise LookupError("in the child")
                return 0, 0
            return os.getpid(), os.waitpid(child, 0)[1]

        tasks = [ray.remote(run).remote() for _ in range(3)]
        results = ray.get(tasks)
        assert all(found in workers() for found, _ in results)
        assert [status for _, status in results] == [256 if how == "raise" else 0] * 3
        assert ray.get(pid.remote()) in workers()

    def test_a_child_of_a_coroutine_ends_without_a_trace_too(self, shared_ray: Any) -> None:
        async def run() -> tuple[int, int]:
            child = os.fork()
            if child == 0:
                return 0, 0
            return os.getpid(), os.waitpid(child, 0)[1]  # noqa: ASYNC222 - it ends at once

        found, status = ray.get(ray.remote(run).remote())
        assert found in workers()
        assert status == 0


#: What a worker has: its streams, its sockets, its loop and what wakes that up, and its note of what it runs.
OWN = {
    "/dev/null",
    "pipe:[]",
    "socket:[]",
    "anon_inode:[eventpoll]",
    "anon_inode:[eventfd]",
    "anon_inode:[io_uring]",
    "/memfd:asyncray-mark (deleted)",
}


def descriptors(process: int) -> list[str]:
    """What the descriptors of a process point at."""
    folder = Path(f"/proc/{process}/fd")
    return [str(entry.readlink()) for entry in folder.iterdir()]


def without_doors(targets: list[str], folder: Path) -> list[str]:
    """Those among them that are not of the test's making."""
    return [target for target in targets if not target.startswith(f"{folder}/")]


def named(targets: list[str]) -> set[str]:
    """Those among them that name one thing in the whole machine."""
    return {target for target in targets if target.startswith(("pipe:", "socket:"))}


def pss_bytes(process: int) -> int:
    """The memory of a process, with its share of what it shares."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    return int(rollup.partition("\nPss:")[2].split()[0]) * 1024


def square(number: int) -> int:
    return number * number


def put_pid(queue: Any) -> None:
    queue.put(os.getpid())


def try_calling(queue: Any) -> None:
    try:
        ray.get(ray.put(1))
    except ray.exceptions.RaySystemError as error:
        queue.put((ray.is_initialized(), str(error)))
