"""Errors: what a task raises is caught as what it is, and as RayTaskError."""

import threading
from typing import Any

from tests.compat.harness import Ray, caught, expects


@expects(["ValueError", "RayTaskError", "RayError"])
def an_error_is_caught_as_the_users_type_and_as_ray_task_error(ray: Ray) -> object:
    @ray.remote
    def fail() -> None:
        raise ValueError("three")

    errors = ray.exceptions
    return caught((ValueError, errors.RayTaskError, errors.RayError), ray.get, fail.remote())


@expects([["KeyError", "LookupError"], ["ZeroDivisionError"], ["AssertionError"], ["StopIteration"]])
def builtin_errors_keep_their_type(ray: Ray) -> object:
    @ray.remote
    def fail(how: int) -> object:
        if how == 0:
            return dict[str, int]()["missing"]
        if how == 1:
            return 1 / 0
        if how == 2:
            raise AssertionError
        return next(iter(()))

    kinds = [(KeyError, LookupError), (ZeroDivisionError,), (AssertionError,), (StopIteration,)]
    return [caught(kinds[how], ray.get, fail.remote(how)) for how in range(4)]


@expects([True, True, True])
def the_text_tells_message_function_and_type(ray: Ray) -> object:
    @ray.remote
    def fail_with_a_story() -> None:
        raise ValueError("the message")

    try:
        ray.get(fail_with_a_story.remote())
    except ValueError as error:
        return [part in str(error) for part in ("the message", "fail_with_a_story", "ValueError")]
    return "nothing raised"


@expects([True, "NotEnoughError", [3, 5]])
def an_exception_of_ones_own_keeps_its_type_and_attributes(ray: Ray) -> object:
    class NotEnoughError(Exception):
        def __init__(self, have: int, need: int) -> None:
            super().__init__(have, need)
            self.have, self.need = have, need

    @ray.remote
    def fail() -> None:
        raise NotEnoughError(3, 5)

    try:
        ray.get(fail.remote())
    except NotEnoughError as error:
        cause: Any = getattr(error, "cause", None)
        kept = [type(cause).__name__, [cause.have, cause.need]]
        return [isinstance(error, ray.exceptions.RayTaskError), *kept]
    return "nothing raised"


@expects([["ValueError", "RayTaskError"]] * 2)
def an_error_can_be_fetched_again(ray: Ray) -> object:
    @ray.remote
    def fail() -> None:
        raise ValueError("twice")

    ref = fail.remote()
    return [caught((ValueError, ray.exceptions.RayTaskError), ray.get, ref) for _ in range(2)]


@expects(["ValueError", "RayTaskError"])
def an_error_comes_through_a_task_that_was_waiting_for_it(ray: Ray) -> object:
    @ray.remote
    def fail() -> None:
        raise ValueError("inside")

    @ray.remote
    def outer() -> None:
        ray.get(fail.remote())

    return caught((ValueError, ray.exceptions.RayTaskError), ray.get, outer.remote())


@expects(["caught", "fine"])
def a_task_can_catch_the_error_of_another(ray: Ray) -> object:
    @ray.remote
    def fail(*, really: bool) -> str:
        if really:
            raise ValueError("inside")
        return "fine"

    @ray.remote
    def outer(*, really: bool) -> str:
        try:
            return str(ray.get(fail.remote(really=really)))
        except ValueError:
            return "caught"

    return ray.get([outer.remote(really=True), outer.remote(really=False)])


@expects([["ValueError"], ["ValueError"], 1])
def each_of_several_returns_raises_the_error(ray: Ray) -> object:
    @ray.remote(num_returns=2)
    def fail() -> tuple[int, int]:
        raise ValueError("both")

    refs = fail.remote()
    return [*(caught(ValueError, ray.get, ref) for ref in refs), ray.get(ray.put(1))]


@expects([["TypeError"]] * 3)
def what_cannot_be_pickled_is_refused(ray: Ray) -> object:
    lock = threading.Lock()

    @ray.remote
    def same(value: object) -> object:
        return value

    @ray.remote
    def locked() -> bool:
        return lock.locked()

    return [
        caught(TypeError, same.remote, lock),
        caught(TypeError, ray.put, lock),
        caught(TypeError, locked.remote),
    ]


@expects(["TypeError", "RayTaskError"])
def a_result_that_cannot_be_pickled_is_an_error_of_the_task(ray: Ray) -> object:
    @ray.remote
    def lock() -> object:
        return threading.Lock()

    return caught((TypeError, ray.exceptions.RayTaskError), ray.get, lock.remote())


@expects([["RayTaskError"], True, True])
def an_exception_that_cannot_be_pickled_still_arrives(ray: Ray) -> object:
    class LockedError(Exception):
        def __init__(self) -> None:
            super().__init__("no way out")
            self.lock = threading.Lock()

    @ray.remote
    def fail() -> None:
        raise LockedError

    ref, task_error = fail.remote(), ray.exceptions.RayTaskError
    try:
        ray.get(ref)
    except task_error as error:
        texts = [part in str(error) for part in ("no way out", "LockedError")]
        return [caught(task_error, ray.get, ref), *texts]
    return "nothing raised"
