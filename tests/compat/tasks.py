"""Tasks: how they are declared and called, what reaches them and what comes back.

Deliberate differences, which no program here touches:

- `async def` functions are tasks in asyncray; Ray refuses them with `ValueError`.
- `remote(5)` is a `TypeError` in asyncray; in Ray an `AssertionError`.
"""

from tests.compat.harness import Ray, Remote, caught, expects


@expects([3, 3, 12, [1, [2, 3], {"four": 4}]])
def arguments_arrive_by_position_name_and_default(ray: Ray) -> object:
    @ray.remote
    def add(a: int, b: int = 2) -> int:
        return a + b

    @ray.remote
    def all_kinds(a: int, *rest: int, **named: int) -> object:
        return [a, list(rest), dict(named)]

    refs = [add.remote(1), add.remote(b=1, a=2), add.remote(2, b=10), all_kinds.remote(1, 2, 3, four=4)]
    return ray.get(refs)


@expects([4, 4, 4])
def a_function_is_made_remote_bare_with_options_or_by_a_call(ray: Ray) -> object:
    def double(x: int) -> int:
        return 2 * x

    @ray.remote
    def bare(x: int) -> int:
        return 2 * x

    @ray.remote(num_cpus=1)
    def with_options(x: int) -> int:
        return 2 * x

    return [ray.get(f.remote(2)) for f in (bare, with_options, ray.remote(double))]


@expects([["TypeError"], 1])
def calling_a_remote_function_directly_is_refused(ray: Ray) -> object:
    @ray.remote
    def one() -> int:
        return 1

    return [caught(TypeError, one), ray.get(one.remote())]


@expects([["TypeError"]] * 3)
def arguments_that_do_not_fit_the_signature_are_refused_at_the_call(ray: Ray) -> object:
    @ray.remote
    def one(a: int) -> int:
        return a

    none, too_many = caught(TypeError, one.remote), caught(TypeError, one.remote, 1, 2)
    return [none, too_many, caught(TypeError, one.remote, b=1)]


@expects([None, [1, 2, 3], [1, 2, 3], [1]])
def num_returns_gives_as_many_refs(ray: Ray) -> object:
    @ray.remote(num_returns=3)
    def three() -> tuple[int, int, int]:
        return 1, 2, 3

    @ray.remote(num_returns=3)
    def three_in_a_list() -> list[int]:
        return [1, 2, 3]

    @ray.remote(num_returns=0)
    def none() -> int:
        return 5

    @ray.remote(num_returns=1)
    def one() -> list[int]:
        return [1]

    return [none.remote(), ray.get(three.remote()), ray.get(three_in_a_list.remote()), ray.get(one.remote())]


@expects([["ValueError"], ["ValueError"], ["TypeError"]])
def as_many_values_as_num_returns_must_be_returned(ray: Ray) -> object:
    @ray.remote(num_returns=2)
    def returns(value: object) -> object:
        return value

    values: list[object] = [(1, 2, 3), (1,), 1]
    return [caught((ValueError, TypeError), ray.get, returns.remote(value)) for value in values]


@expects([[1], [1, 2]])
def a_task_works_on_a_copy_of_its_argument(ray: Ray) -> object:
    @ray.remote
    def append(items: list[int]) -> list[int]:
        items.append(2)
        return items

    mine = [1]
    theirs = ray.get(append.remote(mine))
    return [mine, theirs]


@expects([11, 12, 11])
def a_closure_holds_what_it_held_when_first_called(ray: Ray) -> object:
    def adder(n: int) -> Remote:
        @ray.remote
        def add(x: int) -> int:
            return x + n

        return add

    ten, eleven = adder(10), adder(11)
    return [ray.get(add.remote(1)) for add in (ten, eleven, ten)]


@expects([1, 2])
def functions_of_one_name_are_kept_apart(ray: Ray) -> object:
    def make(n: int) -> Remote:
        if n == 1:

            @ray.remote
            def same() -> int:
                return 1
        else:

            @ray.remote
            def same() -> int:
                return 2

        return same

    return [ray.get(f.remote()) for f in (make(1), make(2))]


@expects([None, "", [], {}, 0, False])
def empty_values_come_back_as_they_are(ray: Ray) -> object:
    @ray.remote
    def same(value: object) -> object:
        return value

    empty: list[object] = [None, "", [], {}, 0, False]
    return [ray.get(same.remote(value)) for value in empty]


@expects(["Point", 3, True])
def instances_of_classes_made_on_the_spot_travel(ray: Ray) -> object:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    @ray.remote
    def move(point: Point) -> Point:
        return Point(point.x + 1)

    moved = ray.get(move.remote(Point(2)))
    return [type(moved).__name__, moved.x, isinstance(moved, Point)]


@expects(4950)
def many_small_tasks_all_come_back(ray: Ray) -> object:
    @ray.remote
    def same(value: int) -> int:
        return value

    return sum(ray.get([same.remote(i) for i in range(100)]))
