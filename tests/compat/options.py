"""Options: which are taken, which are refused, and what they do."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.compat.harness import Ray, Remote, caught, expects


def _one() -> int:
    return 1


def _declare(ray: Ray, options: dict[str, object]) -> Remote:
    declared: Remote = ray.remote(**options)(_one)
    return declared


def _count_runs(make: Callable[[str], object]) -> int:
    """Let *make* run tasks that add a byte to the file it is given, and return how many did."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "runs")
        make(str(path))
        return path.stat().st_size


@expects([[1, 2], [1, 2], None])
def options_change_one_call_and_not_the_function(ray: Ray) -> object:
    @ray.remote
    def pair() -> tuple[int, int]:
        return 1, 2

    as_two = pair.options(num_returns=2)
    return [ray.get(as_two.remote()), ray.get(pair.remote()), pair.options(num_returns=0).remote()]


@expects([1] * 7)
def known_options_are_taken(ray: Ray) -> object:
    options: list[dict[str, object]] = [
        {"num_cpus": 0.5},
        {"num_cpus": 0},
        {"num_cpus": 2, "max_retries": 0},
        {"max_retries": -1, "retry_exceptions": [ValueError]},
        {"name": "one", "resources": {}},
        {"scheduling_strategy": "SPREAD"},
        {"memory": 1_000_000, "num_returns": 1},
    ]
    return [ray.get(ray.remote(**given)(_one).remote()) for given in options]


@expects([["ValueError"]] * 2)
def an_unknown_option_is_refused(ray: Ray) -> object:
    remote = ray.remote(_one)
    return [
        caught(ValueError, _declare, ray, {"num_cpu": 1}),
        caught(ValueError, remote.options, num_cpu=1),
    ]


@expects([["ValueError"]] * 16)
def an_impossible_value_is_refused_by_the_decorator_and_by_options(ray: Ray) -> object:
    remote = ray.remote(_one)
    impossible: list[dict[str, object]] = [
        {"num_cpus": -1},
        {"num_gpus": -1},
        {"num_returns": -1},
        {"max_retries": -2},
        {"memory": -1},
        {"resources": {"CPU": 1}},
        {"resources": {"GPU": 1}},
        {"resources": {"thing": -1}},
    ]

    def call_with(given: dict[str, object]) -> None:
        remote.options(**given).remote()

    decorated = [caught(ValueError, _declare, ray, given) for given in impossible]
    return decorated + [caught(ValueError, call_with, given) for given in impossible]


@expects(["ValueError"])
def an_unknown_scheduling_strategy_is_refused_by_the_call_at_the_latest(ray: Ray) -> object:
    def call() -> None:
        _declare(ray, {"scheduling_strategy": "NOWHERE"}).remote()

    return caught(ValueError, call)


@expects([["TypeError"]] * 8)
def a_value_of_the_wrong_type_is_refused(ray: Ray) -> object:
    mistyped: list[dict[str, object]] = [
        {"num_cpus": "1"},
        {"num_gpus": "1"},
        {"max_retries": "1"},
        {"max_retries": 1.5},
        {"num_returns": 1.5},
        {"resources": [1]},
        {"name": 1},
        {"retry_exceptions": "ValueError"},
    ]
    return [caught(TypeError, _declare, ray, given) for given in mistyped]


@expects(["ValueError"])
def max_calls_belongs_to_the_function_and_not_to_a_call(ray: Ray) -> object:
    remote = ray.remote(_one)
    return caught(ValueError, remote.options, max_calls=1)


@expects(3)
def max_calls_gives_a_new_process_after_so_many(ray: Ray) -> object:
    @ray.remote(max_calls=1)
    def pid() -> int:
        return os.getpid()

    return len({ray.get(pid.remote()) for _ in range(3)})


@expects([1, 3, 3, 1])
def an_error_is_retried_only_where_retry_exceptions_says_so(ray: Ray) -> object:
    @ray.remote(max_retries=2)
    def fail(path: str) -> None:
        with open(path, "ab") as runs:  # noqa: PTH123 - one byte a run
            runs.write(b".")
        raise ValueError("again")

    def fail_with(retry_exceptions: object) -> Callable[[str], object]:
        failing = fail.options(retry_exceptions=retry_exceptions)
        return lambda path: caught(ValueError, ray.get, failing.remote(path))

    return [_count_runs(fail_with(retried)) for retried in (False, True, [ValueError], [KeyError])]


@expects([1, 2])
def a_task_whose_worker_dies_is_retried_max_retries_times(ray: Ray) -> object:
    @ray.remote
    def die(path: str) -> None:
        with open(path, "ab") as runs:  # noqa: PTH123 - one byte a run
            runs.write(b".")
        os._exit(1)

    def die_with(max_retries: int) -> Callable[[str], object]:
        dying = die.options(max_retries=max_retries)
        return lambda path: caught(ray.exceptions.WorkerCrashedError, ray.get, dying.remote(path))

    return [_count_runs(die_with(max_retries)) for max_retries in (0, 1)]


@expects([["WorkerCrashedError", "RayError"], "still here"])
def a_worker_that_exits_is_an_error_and_the_others_live(ray: Ray) -> object:
    @ray.remote(max_retries=0)
    def leave() -> None:
        os._exit(3)

    @ray.remote
    def stay() -> str:
        return "still here"

    errors = ray.exceptions
    outcome = caught((errors.WorkerCrashedError, errors.RayError), ray.get, leave.remote())
    return [outcome, ray.get(stay.remote())]


@expects(["set", None])
def env_vars_are_set_in_the_task_and_in_no_other(ray: Ray) -> object:
    @ray.remote
    def read() -> str | None:
        return os.environ.get("COMPAT_EXAMPLE")

    there = read.options(runtime_env={"env_vars": {"COMPAT_EXAMPLE": "set"}})
    return [ray.get(there.remote()), ray.get(read.remote())]
