"""What a session and its tasks are told of themselves: resources, GPUs, names."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio
from asyncray.node.gpus import visible_gpus
from tests.cluster import processes
from tests.cluster.doors import Doors, stand_at
from tests.cluster.patience import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: An owner keeps no lease of an idle worker: resources are free as soon as a task is over.
NO_LEASES_KEPT = {"lease_keep_s": 0}


@pytest.fixture(autouse=True)
def no_session_is_left() -> Iterator[None]:
    """End what a failed test has left open."""
    yield
    ray.shutdown()


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    made = Doors(tmp_path)
    yield made
    made.close()


def free() -> dict[str, float]:
    """What is available, without what depends on the machine."""
    return {name: value for name, value in ray.available_resources().items() if "memory" not in name}


class TestResources:
    def test_the_node_has_what_init_was_given(self) -> None:
        ray.init(
            num_cpus=3,
            num_gpus=2,
            resources={"widget": 1.5},
            labels={"zone": "a"},
            object_store_memory=100 << 20,
        )
        (node,) = ray.nodes()
        total = ray.cluster_resources()
        assert total == node["Resources"]
        assert {name: total[name] for name in ("CPU", "GPU", "widget")} == {"CPU": 3, "GPU": 2, "widget": 1.5}
        assert total["object_store_memory"] == 100 << 20
        assert total["memory"] > 0
        assert node["Alive"]
        assert node["Labels"] == {"zone": "a"}
        assert node["NodeID"] == ray.get_runtime_context().get_node_id()
        assert ray.available_resources() == total

    def test_without_keywords_it_has_the_cpus_of_this_process(self) -> None:
        ray.init()
        assert ray.cluster_resources()["CPU"] == len(os.sched_getaffinity(0))

    def test_a_running_task_holds_exactly_what_it_asked_for(self, doors: Doors) -> None:
        ray.init(num_cpus=4, resources={"widget": 2}, _system_config=NO_LEASES_KEPT)
        door = doors.new()
        hold = ray.remote(stand_at).options(num_cpus=1.25, resources={"widget": 0.5}, memory=1 << 20)
        before = ray.available_resources()
        refs = [hold.remote(door.name) for _ in range(2)]
        for _ in refs:
            door.arrival()
        assert free() == {"CPU": 1.5, "widget": 1}
        assert before["memory"] - ray.available_resources()["memory"] == 2 << 20
        door.let_in(2)
        ray.get(refs)
        eventually(ray.available_resources, before)

    def test_what_is_used_up_is_left_out(self, doors: Doors) -> None:
        ray.init(num_cpus=1, resources={"widget": 1}, _system_config=NO_LEASES_KEPT)
        door = doors.new()
        ref = ray.remote(stand_at).options(resources={"widget": 1}).remote(door.name)
        door.arrival()
        assert free() == {}
        door.let_in()
        ray.get(ref)
        eventually(free, {"CPU": 1, "widget": 1})

    def test_a_task_that_waits_lends_its_cpu_and_nothing_else(self, doors: Doors) -> None:
        ray.init(num_cpus=2, resources={"widget": 1}, _system_config=NO_LEASES_KEPT)
        inner_door, outer_door = doors.new(), doors.new()

        @ray.remote(num_cpus=2, resources={"widget": 1})
        def outer() -> None:
            ray.get(ray.remote(stand_at).options(num_cpus=0.5).remote(inner_door_name))
            stand_at(outer_door_name)

        inner_door_name, outer_door_name = inner_door.name, outer_door.name
        ref = outer.remote()
        inner_door.arrival()
        assert free() == {"CPU": 1.5}
        inner_door.let_in()
        outer_door.arrival()
        eventually(free, {})
        outer_door.let_in()
        ray.get(ref)
        eventually(free, {"CPU": 2, "widget": 1})

    def test_a_task_that_dies_gives_back_what_it_held(self, doors: Doors) -> None:
        ray.init(num_cpus=2, num_gpus=1, _system_config=NO_LEASES_KEPT)
        door = doors.new()
        ref = ray.remote(stand_at).options(num_gpus=1, max_retries=0).remote(door.name)
        processes.kill(door.arrival())
        with pytest.raises(ray.exceptions.WorkerCrashedError):
            ray.get(ref)
        eventually(free, {"CPU": 2, "GPU": 1})

    def test_a_task_that_raises_or_is_cancelled_gives_back_what_it_held(self, doors: Doors) -> None:
        ray.init(num_cpus=2, _system_config=NO_LEASES_KEPT)
        door = doors.new()

        @ray.remote
        def fail() -> None:
            raise LookupError

        with pytest.raises(LookupError):
            ray.get(fail.remote())
        ref = ray.remote(stand_at).remote(door.name)
        door.arrival()
        ray.cancel(ref)
        with pytest.raises(ray.exceptions.TaskCancelledError):
            ray.get(ref)
        eventually(free, {"CPU": 2})

    def test_a_task_can_ask_too(self) -> None:
        ray.init(num_cpus=2, labels={"zone": "a"})

        @ray.remote
        def ask() -> tuple[Any, ...]:
            return ray.cluster_resources(), ray.nodes(), ray.available_resources().get("CPU")

        resources, nodes, available = ray.get(ask.remote())
        assert resources == ray.cluster_resources()
        assert nodes == ray.nodes()
        assert available == 1

    def test_a_coroutine_can_ask_too(self) -> None:
        ray.init(num_cpus=2)

        @ray.remote
        async def ask() -> tuple[Any, ...]:
            return ray.cluster_resources(), (await aio.available_resources())["CPU"]

        assert ray.get(ask.remote()) == (ray.cluster_resources(), 1)


class TestGpus:
    def test_a_driver_has_none(self) -> None:
        ray.init(num_cpus=1, num_gpus=2)
        assert ray.get_gpu_ids() == []
        assert ray.get_runtime_context().get_accelerator_ids() == {"GPU": []}

    def test_a_task_has_those_that_it_asked_for(self) -> None:
        ray.init(num_cpus=1, num_gpus=4)
        seen = ray.get([gpus.options(num_gpus=count).remote() for count in (1, 2, 4)])
        assert [len(ids) for ids, _ in seen] == [1, 2, 4]
        assert all(visible == ",".join(map(str, ids)) for ids, visible in seen)
        assert set(seen[2][0]) == {0, 1, 2, 3}

    def test_a_task_that_asked_for_none_sees_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        ray.init(num_cpus=1, num_gpus=2)
        assert ray.get(gpus.remote()) == ([], "")

    def test_tasks_that_run_together_have_different_ones(self, doors: Doors) -> None:
        ray.init(num_cpus=4, num_gpus=3)
        door = doors.new()
        name = door.name

        @ray.remote(num_gpus=1)
        def hold() -> list[int | str]:
            stand_at(name)
            return ray.get_gpu_ids()

        refs = [hold.remote() for _ in range(3)]
        for _ in refs:
            door.arrival()
        door.let_in(3)
        assert sorted(ray.get(refs)) == [[0], [1], [2]]

    def test_fractions_share_one_and_leave_the_others_whole(self, doors: Doors) -> None:
        ray.init(num_cpus=4, num_gpus=2, _system_config=NO_LEASES_KEPT)
        door = doors.new()
        name = door.name

        @ray.remote(num_gpus=0.5)
        def hold() -> list[int | str]:
            stand_at(name)
            return ray.get_gpu_ids()

        refs = [hold.remote() for _ in range(2)]
        for _ in refs:
            door.arrival()
        assert free()["GPU"] == 1
        (whole,), _ = ray.get(gpus.options(num_gpus=1).remote())
        door.let_in(2)
        shared = ray.get(refs)
        assert shared[0] == shared[1] == [1 - int(whole)]

    @pytest.mark.parametrize(
        ("visible", "found"),
        [(None, ["0", "2", "11"]), ("11,0,7", ["11", "0"]), ("GPU-8a, MIG-3", ["GPU-8a", "MIG-3"]), ("", [])],
    )
    def test_those_of_the_machine_are_told_by_their_names(
        self, tmp_path: Path, visible: str | None, found: list[str]
    ) -> None:
        for name in ("nvidia0", "nvidia11", "nvidia2", "nvidiactl", "null"):
            (tmp_path / name).touch()
        environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        assert visible_gpus(environ, str(tmp_path)) == found

    def test_those_with_uuids_keep_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asyncray.client.node_process.visible_gpus", lambda: ["GPU-8a", "GPU-9b"])
        ray.init(num_cpus=1)
        assert ray.get(gpus.options(num_gpus=2).remote()) == (["GPU-8a", "GPU-9b"], "GPU-8a,GPU-9b")

    def test_a_variable_of_the_tasks_own_stands_where_no_gpu_was_asked_for(self) -> None:
        ray.init(num_cpus=1, num_gpus=2)
        env: Any = {"env_vars": {"CUDA_VISIBLE_DEVICES": "7"}}
        assert ray.get(gpus.options(runtime_env=env).remote()) == ([], "7")
        assert ray.get(gpus.options(runtime_env=env, num_gpus=2).remote()) == ([0, 1], "0,1")


@ray.remote
def gpus() -> tuple[list[int | str], str]:
    return ray.get_gpu_ids(), os.environ["CUDA_VISIBLE_DEVICES"]


class TestRuntimeContext:
    def test_a_driver_has_no_task(self) -> None:
        ray.init(num_cpus=1, namespace="mine")
        context = ray.get_runtime_context()
        assert context.get_task_id() is None
        assert context.get_task_name() is None
        assert context.get_task_function_name() is None
        assert context.get_actor_id() is None
        assert context.get_assigned_resources() == {}
        assert context.namespace == "mine"
        assert context.runtime_env == {}
        assert json.loads(context.get_runtime_env_string()) == {}
        assert not context.was_current_actor_reconstructed
        with pytest.raises(RuntimeError, match="driver"):
            context.is_canceled()

    @pytest.mark.parametrize("mode", ["sync", "async"])
    def test_a_task_knows_itself(self, mode: str) -> None:
        ray.init(num_cpus=2, num_gpus=1, resources={"widget": 1}, namespace="mine")

        def told() -> dict[str, Any]:
            context = ray.get_runtime_context()
            return {
                "task": context.get_task_id(),
                "name": context.get_task_name(),
                "function": context.get_task_function_name(),
                "worker": context.get_worker_id(),
                "node": context.get_node_id(),
                "job": context.get_job_id(),
                "session": context.get_session_name(),
                "resources": context.get_assigned_resources(),
                "accelerators": context.get_accelerator_ids(),
                "namespace": context.namespace,
                "cancelled": context.is_canceled(),
                "env": context.runtime_env,
            }

        async def told_async() -> dict[str, Any]:
            return told()

        function: Any = ray.remote(told if mode == "sync" else told_async)
        env: Any = {"env_vars": {"COLOUR": "blue"}}
        ref = function.options(
            name="my task", num_cpus=0.5, num_gpus=1, resources={"widget": 0.25}, runtime_env=env
        ).remote()
        seen: Any = ray.get(ref)
        driver = ray.get_runtime_context()
        assert seen.pop("worker") != driver.get_worker_id()
        assert seen.pop("function").endswith("told" if mode == "sync" else "told_async")
        assert seen == {
            "task": ref.task_id(),
            "name": "my task",
            "node": driver.get_node_id(),
            "job": driver.get_job_id(),
            "session": driver.get_session_name(),
            "resources": {"CPU": 0.5, "GPU": 1, "widget": 0.25},
            "accelerators": {"GPU": ["0"]},
            "namespace": "mine",
            "cancelled": False,
            "env": env,
        }

    def test_coroutines_that_share_a_worker_know_themselves_apart(self) -> None:
        ray.init(num_cpus=1)

        @ray.remote
        async def told() -> list[Any]:

            before = ray.get_runtime_context().get_task_id()
            await asyncio.sleep(0)
            context = ray.get_runtime_context()
            return [os.getpid(), before == context.get_task_id(), context.get_task_name(), before]

        seen = ray.get([told.options(name=f"task-{i}").remote() for i in range(10)])
        assert len({pid for pid, _, _, _ in seen}) == 1
        assert all(same for _, same, _, _ in seen)
        assert [name for _, _, name, _ in seen] == [f"task-{i}" for i in range(10)]
        assert len({task for _, _, _, task in seen}) == 10

    def test_the_hook_of_the_environment_is_told_by_its_name(self) -> None:
        ray.init(num_cpus=1, runtime_env={"worker_process_setup_hook": noop})
        assert json.loads(ray.get_runtime_context().get_runtime_env_string()) == {
            "worker_process_setup_hook": "noop"
        }

        @ray.remote
        def told() -> str:
            return ray.get_runtime_context().get_runtime_env_string()

        assert list(json.loads(ray.get(told.remote()))) == ["worker_process_setup_hook"]


def noop() -> None:
    pass
