"""The runtime context and the cluster's resources, seen from the program and from tasks."""

import os
from typing import Any

from tests.compat.harness import Ray, caught, expects


@expects([True, True, True])
def a_program_is_initialized_and_so_are_its_tasks(ray: Ray) -> object:
    @ray.remote
    def inside() -> bool:
        return ray.is_initialized()

    return [ray.is_initialized(), ray.get(inside.remote()), ray.is_initialized()]


@expects([["RuntimeError"], True])
def init_refuses_to_be_called_again_unless_told_to_ignore_that(ray: Ray) -> object:
    again = caught(RuntimeError, ray.init, num_cpus=2)
    ray.init(num_cpus=2, ignore_reinit_error=True)
    return [again, ray.is_initialized()]


@expects([True, True, 1, None])
def program_and_tasks_share_job_and_node(ray: Ray) -> object:
    @ray.remote
    def ids() -> tuple[str, str]:
        context = ray.get_runtime_context()
        return context.get_job_id(), context.get_node_id()

    here, (job_id, node_id) = ray.get_runtime_context(), ray.get(ids.remote())
    return [job_id == here.get_job_id(), node_id == here.get_node_id(), len(ray.nodes()), here.get_task_id()]


@expects([2, True, True])
def every_task_has_an_id_and_a_worker_of_its_own(ray: Ray) -> object:
    @ray.remote
    def ids() -> tuple[str, str, int]:
        context = ray.get_runtime_context()
        return context.get_task_id(), context.get_worker_id(), os.getpid()

    first, second = ray.get([ids.remote(), ids.remote()])
    outside = ray.get_runtime_context().get_worker_id()
    one_worker, one_process = first[1] == second[1], first[2] == second[2]
    return [len({first[0], second[0]}), one_worker == one_process, outside != first[1]]


@expects(["by name", True])
def a_task_knows_its_name(ray: Ray) -> object:
    @ray.remote
    def name() -> str:
        return str(ray.get_runtime_context().get_task_name())

    return [ray.get(name.options(name="by name").remote()), "name" in ray.get(name.remote())]


@expects([{"CPU": 1.0}, {"CPU": 0.5}, {}])
def a_task_knows_what_it_was_given(ray: Ray) -> object:
    @ray.remote
    def given() -> dict[str, float]:
        resources: dict[str, float] = ray.get_runtime_context().get_assigned_resources()
        return resources

    return [ray.get(f.remote()) for f in (given, given.options(num_cpus=0.5), given.options(num_cpus=0))]


@expects([2.0, 1, True, None, []])
def the_cluster_is_one_node_of_two_cpus(ray: Ray) -> object:
    nodes: list[dict[str, Any]] = ray.nodes()
    resources = ray.cluster_resources()
    return [resources["CPU"], len(nodes), nodes[0]["Alive"], resources.get("GPU"), ray.get_gpu_ids()]


@expects([None, []])
def a_task_without_gpus_has_none(ray: Ray) -> object:
    @ray.remote
    def gpus() -> object:
        return [ray.get_runtime_context().get_actor_id(), ray.get_gpu_ids()]

    return ray.get(gpus.remote())


@expects([True, None])
def what_a_program_knows_of_its_node(ray: Ray) -> object:
    import importlib

    context: Any = importlib.import_module(ray.__name__).get_runtime_context()
    return [
        context.get_node_labels()["ray.io/node-id"] == context.get_node_id(),
        context.get_placement_group_id(),
    ]
