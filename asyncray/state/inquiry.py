"""Finding out why something is not done: who is asked what, in which order, and when that is enough.

    explore(addresses) -> rounds of questions -> Findings

The exploration is a generator: it yields the questions of one round, is sent their answers in the same order,
and returns what was found. Who sends them, and how long it waits, is not known here.

    objects:  asked of an owner; what it knows of some of its objects
    calls:    asked of a worker; what it runs, and what that waits for
    survey:   asked of any process; both, of everything
    waiting:  asked of the node; its resources, who holds them, who wants them

Rule 1: an exploration ends: every object is asked for once, and there is a limit to their number.
Rule 2: a process that has not answered is noted, and not asked again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from ..refs import RefAddress

#: An object or a task: its owner's process id, its number there.
Key: TypeAlias = tuple[bytes, int]
#: Process id and address.
Place: TypeAlias = tuple[bytes, str]
#: What is noted of a node that has not answered.
NODE: Final[Place] = (b"", "")
#: Objects that one exploration asks for at most.
_MOST_OBJECTS: Final = 2000
#: Steps from an object to what it waits for.
_DEEPEST: Final = 200
#: Holders of resources that are asked what they run, for one object.
_MOST_HOLDERS: Final = 16


class Question(NamedTuple):
    """Something to ask a process."""

    place: Place
    what: str
    argument: Any


class Silent(NamedTuple):
    """Instead of an answer: why there is none, as the end of a sentence."""

    why: str


Asking: TypeAlias = "Generator[list[Question], list[Any], None]"


class Findings:
    """What an exploration has found, by the words of those who were asked."""

    __slots__ = ("calls", "left_out", "node", "objects", "running", "silent")

    def __init__(self) -> None:
        #: What owners say of objects.
        self.objects: dict[Key, dict[str, Any]] = {}
        #: What workers say of calls that run.
        self.calls: dict[Key, dict[str, Any]] = {}
        #: The calls that each worker runs, where all of them are known.
        self.running: dict[bytes, list[Key]] = {}
        #: What the node says; None when it was not asked, or has not answered.
        self.node: dict[str, Any] | None = None
        #: Why a process has not answered.
        self.silent: dict[bytes, str] = {}
        #: Whether there were more objects than are asked for.
        self.left_out = False

    def name_of(self, key: Key) -> str:
        """The name of the task that makes an object; empty where nobody knows it."""
        return str(self.objects.get(key, {}).get("name", ""))

    def task_of(self, key: Key) -> Key | None:
        """The task that makes an object, while there is one."""
        task = self.objects.get(key, {}).get("task")
        return None if task is None else (key[0], task)

    def call_of(self, key: Key) -> dict[str, Any] | None:
        """What a worker says of the task that makes an object; None unless it runs."""
        task = self.task_of(key)
        return None if task is None else self.calls.get(task)

    def demand_of(self, key: Key) -> list[Any] | None:
        """What the owner of a queued task wants of the node: [owner, class, name, count, units]."""
        number = self.objects[key].get("class")
        demands = [] if self.node is None else self.node["demands"]
        return next((demand for demand in demands if demand[:2] == [key[0], number]), None)

    def lacking(self, demand: list[Any]) -> list[str]:
        """The resources of which less is free than a demand wants."""
        free = {} if self.node is None else self.node["free"]
        return [name for name, units in demand[4].items() if units > free.get(name, 0)]

    def before(self, worker: bytes, fact: dict[str, Any]) -> list[Key]:
        """The calls that a worker runs, of those behind which the call of a fact may have to wait."""
        keys = self.running.get(worker, [])
        light = fact.get("light")
        return keys if light is None else [key for key in keys if self.calls[key]["light"] == light]

    def holders_of(self, names: Iterable[str]) -> list[list[Any]]:
        """Who holds any of some resources: [worker's process id, lease, name, units by resource]."""
        wanted = set(names)
        holders = [] if self.node is None else self.node["holders"]
        return [holder for holder in holders if wanted.intersection(holder[3])]


class Exploration:
    """One way through the processes of a session.

    Args:
        stack: Whether workers are asked where their calls stand.
    """

    def __init__(self, *, stack: bool = False) -> None:
        self.findings = Findings()
        self._stack = stack
        self._asked_objects: set[Key] = set()
        self._asked_workers: set[tuple[bytes, Any]] = set()
        self._places: dict[bytes, Place] = {}

    def of(self, addresses: Iterable[RefAddress]) -> Generator[list[Question], list[Any], Findings]:
        """Find out what some objects wait for."""
        yield from self._follow(list(addresses))
        return self.findings

    def of_everything(self, *, objects: bool) -> Generator[list[Question], list[Any], Findings]:
        """Find out what all running calls wait for; with *objects*, all unfinished objects, too."""
        yield from self._ask_node()
        processes = [] if self.findings.node is None else self.findings.node["processes"]
        places = [(process_id, address) for process_id, address, _ in processes]
        answers = yield [Question(place, "survey", objects) for place in places]
        frontier: list[RefAddress] = []
        for place, answer in zip(places, answers, strict=True):
            if isinstance(answer, Silent):
                self.findings.silent[place[0]] = answer.why
                continue
            self.findings.left_out |= bool(answer["more"])
            frontier += self._take_calls(place[0], answer["calls"], complete=True)
            self._asked_workers.add((place[0], None))
            for fact in answer["objects"]:
                self._asked_objects.add((place[0], fact["number"]))
                frontier += self._take_object(place[0], fact)
        yield from self._ask_workers(list(self.findings.objects))
        yield from self._follow(frontier)
        return self.findings

    def _follow(self, frontier: list[RefAddress]) -> Asking:
        for _ in range(_DEEPEST):
            fresh = self._fresh(frontier)
            if not fresh:
                return
            places = list(dict.fromkeys(address[:2] for address in fresh))
            numbers = [[number for *place, number in fresh if tuple(place) == where] for where in places]
            questions = self._unasked(
                [Question(place, "objects", of) for place, of in zip(places, numbers, strict=True)]
            )
            answers = yield questions
            frontier = []
            for question, answer in zip(questions, answers, strict=True):
                if self._has_answered(question, answer):
                    for fact in answer:
                        frontier += self._take_object(question.place[0], fact)
            keys = [(process_id, number) for process_id, _, number in fresh]
            frontier += yield from self._ask_workers(keys)
        self.findings.left_out = True

    def _fresh(self, frontier: list[RefAddress]) -> list[RefAddress]:
        fresh: dict[Key, RefAddress] = {}
        for process_id, address, number in frontier:
            if (process_id, number) not in self._asked_objects:
                fresh[process_id, number] = (process_id, address, number)
        room = _MOST_OBJECTS - len(self._asked_objects)
        self.findings.left_out |= len(fresh) > room
        chosen = list(fresh)[: max(0, room)]
        self._asked_objects.update(chosen)
        return [fresh[key] for key in chosen]

    def _ask_workers(self, keys: list[Key]) -> Generator[list[Question], list[Any], list[RefAddress]]:
        """Ask the workers that have the tasks, and what holds others up; returns what those wait for."""
        objects = self.findings.objects
        at: dict[Place, list[list[Any]]] = {}
        for key in keys:
            fact = objects.get(key, {})
            if fact.get("worker") is not None:
                at.setdefault(tuple(fact["worker"][:2]), []).append([key[0], fact["task"]])
        found = yield from self._ask_calls({place: pairs for place, pairs in at.items() if pairs})
        queued = [key for key in keys if objects.get(key, {}).get("state") == "queued"]
        if not queued:
            return found
        yield from self._ask_node()
        holders: dict[Place, None] = {}
        for key in queued:
            demand = self.findings.demand_of(key)
            if demand is not None:
                rows = self.findings.holders_of(self.findings.lacking(demand))
                holders.update((place, None) for place in self._places_of(rows[:_MOST_HOLDERS]))
        return found + (yield from self._ask_calls(dict.fromkeys(holders)))

    def _places_of(self, holders: list[list[Any]]) -> list[Place]:
        return [self._places[row[0]] for row in holders if row[0] in self._places]

    def _ask_calls(self, at: Any) -> Generator[list[Question], list[Any], list[RefAddress]]:
        questions = [
            Question(place, "calls", [pairs, self._stack])
            for place, pairs in at.items()
            if (place[0], None) not in self._asked_workers
        ]
        questions = self._unasked(questions)
        if not questions:
            return []
        found: list[RefAddress] = []
        answers = yield questions
        for question, answer in zip(questions, answers, strict=True):
            if self._has_answered(question, answer):
                complete = question.argument[0] is None or answer["complete"]
                found += self._take_calls(question.place[0], answer["calls"], complete=complete)
                if question.argument[0] is None:
                    self._asked_workers.add((question.place[0], None))
        return found

    def _ask_node(self) -> Asking:
        if self.findings.node is not None or NODE[0] in self.findings.silent:
            return
        question = Question(NODE, "waiting", None)
        (answer,) = yield [question]
        if self._has_answered(question, answer):
            self.findings.node = answer
            processes = answer["processes"]
            self._places = {process_id: (process_id, address) for process_id, address, _ in processes}

    def _unasked(self, questions: list[Question]) -> list[Question]:
        return [question for question in questions if question.place[0] not in self.findings.silent]

    def _has_answered(self, question: Question, answer: Any) -> bool:
        if isinstance(answer, Silent):
            self.findings.silent[question.place[0]] = answer.why
            return False
        return True

    def _take_object(self, owner: bytes, fact: dict[str, Any]) -> list[RefAddress]:
        self.findings.objects[owner, fact["number"]] = fact
        return [tuple(address) for address in fact.get("for", ())]

    def _take_calls(self, worker: bytes, calls: list[dict[str, Any]], *, complete: bool) -> list[RefAddress]:
        found: list[RefAddress] = []
        keys: list[Key] = []
        for call in calls:
            key = (call["owner"], call["number"])
            keys.append(key)
            self.findings.calls[key] = call
            found += [tuple(address) for wait in call["waits"] for address in wait["for"]]
        if complete:
            # A host of light actors tells of one after the other.
            known = self.findings.running.get(worker, ())
            self.findings.running[worker] = list(dict.fromkeys([*known, *keys]))
        return found
