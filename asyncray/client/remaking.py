"""Objects that are lost are made again by running their tasks again.

    restore fails -> lost -> the record is pending again, its task queued -> whoever waits gets the value

Who reads finds the loss: a thread of this process by `Remade`, another process by an answer that comes later.
All that read the same wait for the one run. Arguments that nobody refers to any more get their records back
and are made first; one that is lost as well is found so by the worker that asks for it.

Rule 1: a run is a task like any other: it can be retried, cancelled, explained; only that it belongs to no
        scope, group, parent call or deadline of the first one. It is called for by whoever reads.
Rule 2: what a run makes besides what was lost is dropped: an object's value never changes.
Rule 3: the owner's lock is held, except where it says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ObjectReconstructionFailedError
from ..state.lineage import ACTOR, DISABLED, EVICTED, USED_UP, Spec
from ..state.objects import FAILED, PENDING, READY, UNREGISTERED, ObjectRecord
from ..state.tasks import Task
from ..wire.stored import Stored
from ..wire.values import Encoded
from .errors import encode_error
from .recalling import ItemSpec, Recall
from .recipes import ABSENT, Recipe, Source, spec_of
from .terms import terms_again

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..refs import ObjectRef
    from .owner import Owner
    from .session import Session
    from .streams import Stream

#: Why an object cannot be made again, after its task's name.
_REASONS: Final = {
    DISABLED: "the task {!r} made it, which has max_retries=0 and may not run again",
    USED_UP: "the task {!r} made it, whose retries are used up",
    EVICTED: (
        "the task {!r} made it, and how it was called was forgotten, because the specs of such tasks took "
        "more than max_lineage_bytes"
    ),
    ACTOR: "the actor's method {!r} made it, which has max_task_retries=0 and may not run again",
}
_PUT: Final = (
    "it was given by `put`, or as a large argument, and no task made it: what a task returns can be made "
    "again, and so can an argument whose reference is kept"
)
_FREED: Final = (
    "a task that has to run again needs an object that was freed, because nobody held a reference to it any "
    "more"
)
#: Number of records that stand for returns that are not lost: no object has it.
_NOBODY: Final = 0


class Remaking:
    """What one owner keeps and does for lost objects.

    Args:
        session: The session.
        owner: Its tables.
    """

    def __init__(self, session: Session, owner: Owner) -> None:
        self._session = session
        self._owner = owner
        self._lineage = owner.objects.lineage
        self._lineage.most_bytes = session.config.max_lineage_bytes
        #: Runs under way that make something again.
        self.running: dict[Task, Spec] = {}

    # --- what is kept ---------------------------------------------------------------------------------------

    def keep(self, task: Task, payloads: Sequence[Any]) -> None:
        """A task is about to end well, with values in the store."""
        if task in self.running:
            return
        numbers = [
            record.number for record, payload in zip(task.records, payloads, strict=True)
            if type(payload) is Stored
        ]  # fmt: skip
        self._drop(self._lineage.keep(self._spec(task, numbers), numbers))

    def _spec(self, task: Task, numbers: Sequence[int]) -> Spec:
        if task.retries:
            spec = spec_of(self._session, task)
            spec.attempt = task.attempt
            return spec
        descriptor = task.descriptor
        never = ACTOR if descriptor.group.actor else DISABLED
        kind = Spec if task.stream is None else ItemSpec
        return kind(descriptor.name, numbers, None, reason=USED_UP if descriptor.max_retries else never)

    def keep_items(self, stream: Stream, first: int, payloads: Sequence[Any]) -> None:
        """Items of a stream have come, and some are large."""
        task: Task | None = stream.record.task
        stored = {
            payload.start: place
            for place, payload in enumerate(payloads, first)
            if type(payload) is Stored
        }  # fmt: skip
        if not stored or task is None:
            return
        if stream.spec is None:
            # It is remembered as long as the generator is there, and then as its items in scope.
            end = [stream.record.number]
            stream.spec = self._spec(task, end)  # type: ignore[assignment]
            self._drop(self._lineage.keep(stream.spec, end))  # type: ignore[arg-type]
        stream.spec.unread.update(stored)  # type: ignore[union-attr]

    def took_item(self, spec: ItemSpec, number: int, payload: Stored) -> None:
        """An item was read. From any thread, without the lock."""
        with self._owner.lock:
            place = spec.unread.pop(payload.start, None)
            if place is not None:
                spec.put_back(number, place)
                self._lineage.hold(number, spec)

    def ended(self, task: Task, state: int, payloads: Sequence[Any]) -> None:
        """A run that makes something again has ended; its records have not been told."""
        spec = self.running.pop(task, None)
        if spec is None:
            return
        spec.running = None
        spec.retries, spec.attempt = task.retries, task.attempt
        if type(task.stream) is Recall:
            self._end_recall(task.stream, spec, payloads[0] if state == FAILED else None)
        elif state == FAILED:
            for record in task.records:
                self._drop(self._lineage.let_go(record.number))

    def _end_recall(self, recall: Recall, spec: Spec, failure: Any) -> None:
        late, rest = recall.late, recall.rest()
        recall.task = None  # type: ignore[assignment]
        if failure is None:
            text = f"the object was lost, and the generator {spec.name!r} did not yield it when it ran again"
            failure = encode_error(ObjectReconstructionFailedError(text))
        elif not recall.stopped:
            rest += late
            late = []
        for record in rest:
            self._drop(self._lineage.let_go(record.number))
            self._owner.complete(record, FAILED, failure)
        if late:
            self._session.call_soon(self._remake_all, late)

    def _remake_all(self, records: list[ObjectRecord]) -> None:
        """On the loop, without the lock."""
        links: list[Any] = []
        with self._owner.lock:
            for record in records:
                if record.state == PENDING:
                    links += self._remake(record, "the object was lost")
        for link in links:
            link.flush()
        self._session.deliver()

    def number_of(self, task: Task) -> int:
        """The number by which users know a task: that of its first return."""
        spec = self.running.get(task)
        return task.number if spec is None else spec.returns[0]

    def _drop(self, garbage: list[Any]) -> None:
        """Drop what is forgotten, outside the lock: it may be the last to hold a user's function."""
        if garbage:
            self._session.call_soon(garbage.clear)

    # --- what is lost ---------------------------------------------------------------------------------------

    def lost(self, record: ObjectRecord, value: Any, why: str) -> bool:
        """The value of an owned object cannot be had any more. From any thread, without the lock.

        Args:
            record: The object's record.
            value: What it held when that was found.
            why: What happened to it.

        Returns:
            Whether the record is pending, or has failed, or has another value by now. False when the session
            has ended and nothing can be made again; and for a destructor that has interrupted a guarded
            section: it could not wait.
        """
        if self._owner.lock._is_owned():  # type: ignore[attr-defined]
            self._session.call_soon(self.lost, record, value, why)
            return False
        with self._owner.lock:
            if record.value is not value or record.state != READY:
                return True  # others have found it before
            if self._session.failure is not None:
                return False
            links = self._remake(record, why)
        for link in links:
            link.flush()
        self._session.deliver()
        return True

    def _remake(self, record: ObjectRecord, why: str) -> list[Any]:
        """Begin to make an object again, first those that nobody holds any more; returns links to flush."""
        # The value stays until there is another one: who reads it without the lock finds it lost once more.
        record.state = PENDING
        lost = [record]
        begun: list[Task] = []
        while lost:
            record = lost.pop()
            spec = self._lineage.specs.get(record.number)
            reason = 0 if spec is not None and spec.running is not None else self._take_run(spec)
            if reason or spec is None:
                text = _PUT if spec is None else _REASONS[reason].format(spec.name)
                self._fail(record, f"{why}; it cannot be made again: {text}")
                why = _FREED
                continue
            why = _FREED
            if spec.running is None:
                spec.running = self._task(spec, lost)
                self.running[spec.running] = spec
                begun.append(spec.running)
            _join(spec, record)
        links: list[Any] = []
        for task in begun:
            links += self._owner.enter(task)
        return links

    def _take_run(self, spec: Spec | None) -> int:
        return 0 if spec is None else self._lineage.begin(spec)

    def _fail(self, record: ObjectRecord, text: str) -> None:
        self._drop(self._lineage.let_go(record.number))
        self._owner.complete(record, FAILED, encode_error(ObjectReconstructionFailedError(text)))

    # --- the task, once more --------------------------------------------------------------------------------

    def _task(self, spec: Spec, lost: list[ObjectRecord]) -> Task:
        """The task of a spec; what must be made for it first is added to *lost*."""
        recipe: Recipe = spec.call
        session = self._session
        arguments = self._filled(recipe.arguments, recipe.inside, lost)
        # A number of its own: a worker may still be at an earlier run that was cancelled.
        descriptor = recipe.descriptor(session)
        task = Task(self._owner.new_number(), descriptor, arguments)
        if recipe.light is not None:
            task.extras = {"light": recipe.light}
        task.retries, task.attempt = spec.retries, spec.attempt
        task.terms = terms_again(descriptor, recipe.carried, session.clock())
        if recipe.dependencies is not None:
            task.dependencies = [
                (place, self._argument(source, lost)) for place, source in recipe.dependencies
            ]
        records = [ObjectRecord(session.references, _NOBODY) for _ in spec.returns]
        for record in records:
            record.task = task
        task.records = tuple(records)
        if type(spec) is ItemSpec:
            task.stream = Recall(self._owner)
            task.stream.task, task.stream.record = task, records[0]
        return task

    def _filled(self, payload: Any, inside: Sequence[Source], lost: list[ObjectRecord]) -> Any:
        """A payload with its references."""
        if not inside:
            return payload
        return Encoded(payload.data, payload.buffers, [self._ref(source, lost) for source in inside])

    def _argument(self, source: Source, lost: list[ObjectRecord]) -> ObjectRef[Any]:
        """The reference to an argument.

        A small one becomes an object of its own. Its value went along with the first call, so that the
        reference which the user may still have cannot be found through its record.
        """
        if source.payload is ABSENT:
            return self._ref(source, lost)
        record = ObjectRecord(self._session.references, self._owner.new_number())
        self._owner.objects.owned[record.number] = record
        record.value = self._filled(source.payload, source.inside, lost)
        record.state = READY
        return self._owner.ref_to(record)

    def _ref(self, source: Source, lost: list[ObjectRecord]) -> ObjectRef[Any]:
        """The reference to what a task got; whoever has one had sent it then, so that it can be found."""
        process_id, _, number = source.address
        if process_id != self._session.identity.process_id:
            return self._borrowed(source, lost)
        record = self._owner.objects.owned.get(number)
        if record is None:
            record = self._owner.objects.owned[number] = ObjectRecord(self._session.references, number)
            if source.payload is not ABSENT:
                record.value = self._filled(source.payload, source.inside, lost)
                record.state = READY
            else:
                if source.spec is not None:
                    source.spec.put_back(number, source.place)
                    self._lineage.hold(number, source.spec)
                lost.append(record)
        return self._owner.ref_to(record)

    def _borrowed(self, source: Source, lost: list[ObjectRecord]) -> ObjectRef[Any]:
        ref = self._owner.borrow(source.address)
        record: Any = ref._record
        if record.state <= 0 and source.payload is not ABSENT:
            self._owner.complete(record, READY, self._filled(source.payload, source.inside, lost))
        elif record.borrowing == UNREGISTERED:
            # Let go when the first run had ended. If its owner still has it, it is to keep it for this one.
            self._session.call_soon(self._session.peers.borrowing.register, [ref], _nothing)
        return ref


def _nothing() -> None:
    """Nobody waits for that."""


def _join(spec: Spec, record: ObjectRecord) -> None:
    """Have a run make one more of its returns again."""
    task = spec.running
    assert task is not None
    record.task = task
    at = spec.place(record.number)
    if type(task.stream) is Recall:
        task.stream.want(at, record)
        return
    task.records = (*task.records[:at], record, *task.records[at + 1 :])
