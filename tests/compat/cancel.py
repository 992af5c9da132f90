"""cancel: what it does to tasks that wait, run and are done.

Deliberate differences, which no program here touches:

- In asyncray a cancelled ref raises `TaskCancelledError` at once, also after `force=True`; a task that Ray
  kills by `force=True` while it runs raises `WorkerCrashedError`.
- In asyncray a running `time.sleep` is interrupted; in Ray it sleeps on.
- asyncray's `cancel` takes several refs; Ray's takes one.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.compat.harness import Ray, caught, expects, finished, pending


def _wait_for(path: Path) -> None:
    """Wait until a task has made the file at *path*."""
    while not path.exists():
        time.sleep(0.01)


@expects([["TaskCancelledError", "RayError"], ["TaskCancelledError", "RayError"]])
def a_task_that_waits_to_run_is_cancelled(ray: Ray) -> object:
    refs, errors = [pending(ray), pending(ray)], ray.exceptions
    ray.cancel(refs[0])
    ray.cancel(refs[1], force=True)
    return [caught((errors.TaskCancelledError, errors.RayError), ray.get, ref, timeout=20) for ref in refs]


@expects([1, 1])
def cancelling_what_is_done_changes_nothing(ray: Ray) -> object:
    (done,) = finished(ray, 1)
    ray.cancel(done)
    ray.cancel(done, force=True)
    return [ray.get(done), ray.get(done)]


@expects(["TaskCancelledError"])
def cancelling_twice_is_cancelling_once(ray: Ray) -> object:
    ref = pending(ray)
    ray.cancel(ref)
    ray.cancel(ref)
    return caught(ray.exceptions.TaskCancelledError, ray.get, ref, timeout=20)


@expects([1, ["TaskCancelledError"]])
def a_cancelled_task_counts_as_ready(ray: Ray) -> object:
    ref = pending(ray)
    ray.cancel(ref)
    ready, _ = ray.wait([ref], timeout=20)
    return [len(ready), caught(ray.exceptions.TaskCancelledError, ray.get, ref)]


@expects([["TypeError"]] * 3)
def only_a_ref_can_be_cancelled(ray: Ray) -> object:
    return [caught(TypeError, ray.cancel, value) for value in (1, "ref", None)]


@expects([["TaskCancelledError"], "still here"])
def a_running_task_is_interrupted_and_its_worker_goes_on(ray: Ray) -> object:
    @ray.remote
    def run_for_ever(path: str) -> None:
        Path(path).touch()
        while True:
            time.sleep(0.01)

    @ray.remote
    def answer() -> str:
        return "still here"

    with TemporaryDirectory() as folder:
        path = Path(folder, "running")
        ref = run_for_ever.remote(str(path))
        _wait_for(path)
        ray.cancel(ref)
        return [caught(ray.exceptions.TaskCancelledError, ray.get, ref, timeout=20), ray.get(answer.remote())]


@expects([["TaskCancelledError"], False])
def a_task_is_not_run_once_it_is_cancelled_while_it_waits_for_its_argument(ray: Ray) -> object:
    @ray.remote
    def touch(path: str, _: object) -> None:
        Path(path).touch()

    with TemporaryDirectory() as folder:
        path = Path(folder, "ran")
        argument = pending(ray)
        ref = touch.remote(str(path), argument)
        ray.cancel(ref)
        outcome = caught(ray.exceptions.TaskCancelledError, ray.get, ref, timeout=20)
        ray.cancel(argument)
        return [outcome, path.exists()]


@expects(["TaskCancelledError"])
def a_task_whose_argument_is_cancelled_is_cancelled_too(ray: Ray) -> object:
    @ray.remote
    def same(value: object) -> object:
        return value

    argument = pending(ray)
    ref = same.remote(argument)
    ray.cancel(argument)
    return caught(ray.exceptions.TaskCancelledError, ray.get, ref, timeout=20)


@expects([["TaskCancelledError"], True])
def the_children_of_a_task_are_cancelled_with_it(ray: Ray) -> object:
    @ray.remote
    def child(folder: str) -> None:
        Path(folder, "child runs").touch()
        try:
            while True:
                time.sleep(0.01)
        finally:
            Path(folder, "child ended").touch()

    @ray.remote
    def parent(folder: str) -> None:
        ray.get(child.remote(folder))

    with TemporaryDirectory() as folder:
        ref = parent.remote(folder)
        _wait_for(Path(folder, "child runs"))
        ray.cancel(ref)
        outcome = caught(ray.exceptions.TaskCancelledError, ray.get, ref, timeout=20)
        _wait_for(Path(folder, "child ended"))
        return [outcome, True]
