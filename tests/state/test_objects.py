"""An object lives while any process holds it, and is freed when none does: in any order of messages."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncray.state.objects import (
    FAILED,
    PENDING,
    READY,
    REGISTERED,
    REGISTERING,
    REMOTE,
    ObjectRecord,
    ObjectTable,
    Released,
    unregistered,
)

Key = tuple[bytes, int]
HOME = (b"owner", "address", 1)


def owned(table: ObjectTable, number: int = 1, state: int = READY) -> ObjectRecord:
    record = ObjectRecord(cast(Any, None), number)
    record.local, record.state, record.value = 1, state, f"value {number}"
    table.owned[number] = record
    return record


def borrowed(table: ObjectTable, home: tuple[bytes, str, int] = HOME) -> ObjectRecord:
    record = ObjectRecord(cast(Any, None), home[2])
    record.local, record.home = 1, home
    table.borrowed[home[0], home[2]] = record
    return record


# ---- an owned object ----


def test_an_object_is_freed_with_its_last_reference() -> None:
    table, released = ObjectTable(), Released()
    record = owned(table)
    record.local = 2
    table.drop_local(record, released)
    assert (table.owned, released.garbage) == ({1: record}, [])
    table.drop_local(record, released)
    assert (table.owned, released.garbage) == ({}, ["value 1"])
    assert released.notices == []


def test_an_object_that_is_not_made_yet_is_freed_when_it_is() -> None:
    table, released = ObjectTable(), Released()
    record = owned(table, state=PENDING)
    table.drop_local(record, released)
    assert table.owned == {1: record}
    table.validate()
    record.state = FAILED
    table.finished(record, released)
    assert table.owned == {}
    table.finished(record, released)
    assert len(released.garbage) == 1


def test_a_borrower_keeps_an_object() -> None:
    table, released = ObjectTable(), Released()
    record = owned(table)
    assert not table.held_by_others()
    assert table.add_borrower(1, b"a")
    assert table.add_borrower(1, b"a")
    assert table.add_borrower(1, b"b")
    table.drop_local(record, released)
    table.remove_borrower(1, b"a", 2, released)
    assert table.held_by_others()
    table.validate()
    table.remove_borrower(1, b"b", 1, released)
    assert table.owned == {}
    assert not table.held_by_others()


def test_a_borrower_that_was_noted_again_before_it_let_go_stays() -> None:
    table, released = ObjectTable(), Released()
    record = owned(table)
    table.add_borrower(1, b"a")
    table.add_borrower(1, b"a")
    table.drop_local(record, released)
    table.remove_borrower(1, b"a", 1, released)
    assert table.owned == {1: record}
    table.remove_borrower(1, b"a", 1, released)
    assert table.owned == {}


def test_repeated_and_unknown_notices_change_nothing() -> None:
    table, released = ObjectTable(), Released()
    record = owned(table)
    table.remove_borrower(1, b"a", 1, released)
    table.remove_borrower(2, b"a", 1, released)
    table.add_borrower(1, b"a")
    table.drop_local(record, released)
    table.remove_borrower(1, b"b", 1, released)
    assert table.owned == {1: record}
    assert not table.add_borrower(2, b"a")


def test_a_dead_borrower_holds_nothing() -> None:
    table, released = ObjectTable(), Released()
    records = [owned(table, number) for number in (1, 2, 3)]
    for number in (1, 2):
        table.add_borrower(number, b"a")
    table.add_borrower(2, b"b")
    for record in records[:2]:
        table.drop_local(record, released)
    assert table.process_gone(b"a", released) == []
    assert sorted(table.owned) == [2, 3]
    assert released.garbage == ["value 1"]


def test_what_a_dead_process_owned_is_returned() -> None:
    table = ObjectTable()
    lost, other = borrowed(table), borrowed(table, (b"other", "", 1))
    assert table.process_gone(b"owner", Released()) == [lost]
    assert table.process_gone(b"other", Released()) == [other]


# ---- a borrowed object ----


@pytest.mark.parametrize(("notes", "notices"), [(0, []), (1, [(HOME, 1)]), (3, [(HOME, 3)])])
def test_only_an_owner_that_knows_is_told(notes: int, notices: list[Any]) -> None:
    table, released = ObjectTable(), Released()
    record = borrowed(table)
    for _ in range(notes):
        table.lent(record)
    table.drop_local(record, released)
    assert table.borrowed == {}
    assert released.notices == notices


def test_what_is_dropped_while_it_registers_is_let_go_when_it_has() -> None:
    table, released = ObjectTable(), Released()
    record = borrowed(table)
    record.borrowing = REGISTERING
    table.drop_local(record, released)
    assert list(table.borrowed.values()) == [record]
    table.validate()
    table.registered(record, released)
    assert table.borrowed == {}
    assert released.notices == [(HOME, 1)]


def test_what_is_lent_while_it_registers_is_noted_twice() -> None:
    table, released = ObjectTable(), Released()
    record = borrowed(table)
    record.borrowing = REGISTERING
    table.lent(record)
    assert record.borrowing == REGISTERING
    table.registered(record, released)
    table.drop_local(record, released)
    assert released.notices == [(HOME, 2)]


def test_what_comes_back_while_it_registers_stays() -> None:
    table, released = ObjectTable(), Released()
    record = borrowed(table)
    record.borrowing = REGISTERING
    table.drop_local(record, released)
    record.local += 1
    table.registered(record, released)
    assert list(table.borrowed.values()) == [record]
    assert record.borrowing == REGISTERED
    assert released.notices == []


def test_only_what_is_borrowed_held_and_unknown_has_to_be_registered() -> None:
    table = ObjectTable()
    fresh, known, under_way, dropped = (borrowed(table, (b"owner", "", number)) for number in range(4))
    known.borrowing, under_way.borrowing, dropped.local = REGISTERED, REGISTERING, 0
    assert unregistered([owned(table), fresh, known, under_way, dropped]) == [fresh]


def test_a_state_tells_whether_an_object_is_done_and_whether_it_is_here() -> None:
    assert PENDING == 0
    assert all(state > 0 for state in (READY, FAILED))
    assert REMOTE < 0


# ---- several processes ----


def test_a_note_that_is_read_late_belongs_to_the_reference_that_is_there_then() -> None:
    owner, reader, released = ObjectTable(), ObjectTable(), Released()
    owner.drop_local(owned(owner, state=PENDING), released)
    first = borrowed(reader)
    # It asks for the value twice, and lets go when the first answer has come.
    assert owner.add_borrower(HOME[2], b"reader")
    assert owner.add_borrower(HOME[2], b"reader")
    reader.lent(first)
    reader.drop_local(first, released)
    # Another process sends the reference again; then the second answer comes, and it need not register.
    again = borrowed(reader)
    reader.lent(again)
    assert again.borrowing == REGISTERED
    owner.owned[HOME[2]].state = READY
    [(_, notes)] = released.notices
    owner.remove_borrower(HOME[2], b"reader", notes, released)
    assert HOME[2] in owner.owned
    reader.drop_local(again, released)
    owner.remove_borrower(HOME[2], b"reader", released.notices[1][1], released)
    assert owner.owned == {}


class Node:
    """One process: its table, the references its user holds, and those it holds for others."""

    def __init__(self, name: str) -> None:
        self.process_id = name.encode()
        self.alive = True
        self.table = ObjectTable()
        self.refs: list[ObjectRecord] = []
        #: Number of a sent reference -> what it is, and for whom it is held.
        self.holds: dict[int, tuple[ObjectRecord, Node]] = {}
        #: References that came, whose senders wait: record, sender, number.
        self.unanswered: list[tuple[ObjectRecord, Node, int]] = []
        self.registering: dict[int, list[ObjectRecord]] = {}
        self.dead: set[bytes] = set()

    def key(self, record: ObjectRecord) -> Key:
        return (record.home[0], record.home[2]) if record.home else (self.process_id, record.number)


class Borrowing(RuleBasedStateMachine):
    """Processes that pass references on; messages between two of them keep their order, others do not."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = [Node(name) for name in "abcd"]
        self.by_id = {node.process_id: node for node in self.nodes}
        self.channels: dict[tuple[bytes, bytes], deque[tuple[Any, ...]]] = {
            (a.process_id, b.process_id): deque() for a, b in itertools.permutations(self.nodes, 2)
        }
        self.count = itertools.count(1)
        #: Objects of which a sender died before its receiver had registered: they may be gone too early.
        self.excused: set[Key] = set()

    # --- what processes do ---

    def living(self) -> list[Node]:
        return [node for node in self.nodes if node.alive]

    @rule(data=st.data(), state=st.sampled_from([READY, READY, PENDING]))
    def make(self, data: st.DataObject, state: int) -> None:
        node = self.pick(data)
        node.refs.append(owned(node.table, next(self.count), state))

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.finish_all(self.pick(data))

    def finish_all(self, node: Node) -> None:
        for record in [record for record in node.table.owned.values() if record.state == PENDING]:
            released = Released()
            record.state = READY
            node.table.finished(record, released)
            self.follow(node, released)

    @precondition(lambda self: any(node.refs for node in self.living()))
    @rule(data=st.data())
    def send_a_reference(self, data: st.DataObject) -> None:
        sender = data.draw(st.sampled_from([node for node in self.living() if node.refs]))
        receiver = data.draw(
            st.sampled_from([node for node in self.living() if node is not sender] or [sender])
        )
        if sender is receiver:
            return
        record = data.draw(st.sampled_from(sender.refs))
        number = next(self.count)
        record.local += 1
        sender.holds[number] = (record, receiver)
        home = record.home or (sender.process_id, "address", record.number)
        self.send(sender, receiver.process_id, "REF", home, number)
        if data.draw(st.booleans()):  # it arrives and begins to register at once
            while self.on_its_way(sender, receiver):
                self.deliver_one((sender.process_id, receiver.process_id))
            self.register_all(receiver)

    @precondition(lambda self: any(node.refs for node in self.living()))
    @rule(data=st.data())
    def drop_a_reference(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from([node for node in self.living() if node.refs]))
        self.drop(node, node.refs.pop(data.draw(st.integers(0, len(node.refs) - 1))))

    @rule(data=st.data())
    def register(self, data: st.DataObject) -> None:
        self.register_all(self.pick(data))

    @precondition(lambda self: any(node.table.borrowed for node in self.living()))
    @rule(data=st.data())
    def ask_for_a_value(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from([node for node in self.living() if node.table.borrowed]))
        process_id, number = data.draw(st.sampled_from(sorted(node.table.borrowed)))
        self.send(node, process_id, "GET", number)

    @precondition(lambda self: any(self.channels.values()))
    @rule(data=st.data(), count=st.integers(1, 4))
    def deliver(self, data: st.DataObject, count: int) -> None:
        filled = sorted(pair for pair, channel in self.channels.items() if channel)
        pair = data.draw(st.sampled_from(filled))
        for _ in range(min(count, len(self.channels[pair]))):
            self.deliver_one(pair)

    @precondition(lambda self: len(self.living()) > 2)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        node = self.pick(data)
        kept = data.draw(st.integers(0, 3))
        for record, receiver in node.holds.values():
            known = receiver.table.borrowed.get(node.key(record))
            if known is None or known.borrowing != REGISTERED or self.on_its_way(node, receiver):
                self.excused.add(node.key(record))
        node.alive = False
        for other in self.nodes:
            if other is not node:
                self.channels[other.process_id, node.process_id].clear()
                sent = self.channels[node.process_id, other.process_id]
                while len(sent) > kept:
                    sent.pop()
                if other.alive:
                    sent.append(("GONE",))

    @rule()
    def settle(self) -> None:
        """When all has arrived, owners know exactly who holds their objects."""
        self.quiet()
        for node in self.living():
            assert not node.holds
            for number, record in node.table.owned.items():
                key = (node.process_id, number)
                holders = {other.process_id for other in self.living() if key in other.table.borrowed}
                assert (record.borrowers or {}).keys() == holders
                assert record.local == node.refs.count(record)

    # --- how they do it ---

    def pick(self, data: st.DataObject) -> Node:
        return data.draw(st.sampled_from(self.living()))

    def on_its_way(self, sender: Node, receiver: Node) -> bool:
        return any(message[0] == "REF" for message in self.channels[sender.process_id, receiver.process_id])

    def send(self, sender: Node, process_id: bytes, *message: Any) -> None:
        if self.by_id[process_id].alive:
            self.channels[sender.process_id, process_id].append(message)

    def drop(self, node: Node, record: ObjectRecord) -> None:
        released = Released()
        node.table.drop_local(record, released)
        self.follow(node, released)

    def follow(self, node: Node, released: Released) -> None:
        """Do what follows from references that went away, and answer senders that need wait no more."""
        for home, notes in released.notices:
            self.send(node, home[0], "RELEASE", home[2], notes)
        waiting, node.unanswered = node.unanswered, []
        for record, sender, number in waiting:
            there = node.table.borrowed.get(node.key(record)) is record
            if there and record.borrowing != REGISTERED:
                node.unanswered.append((record, sender, number))
            else:
                self.send(node, sender.process_id, "UNPIN", number)

    def register_all(self, node: Node) -> None:
        by_home: dict[bytes, list[ObjectRecord]] = {}
        for record in unregistered(node.table.borrowed.values()):
            record.borrowing = REGISTERING
            by_home.setdefault(node.key(record)[0], []).append(record)
        for process_id, records in by_home.items():
            request = next(self.count)
            node.registering[request] = records
            if process_id in node.dead:
                self.on_borrowed(node, self.by_id[process_id], request)
            else:
                self.send(node, process_id, "BORROW", request, [record.number for record in records])

    def deliver_one(self, pair: tuple[bytes, bytes]) -> None:
        sender, receiver = (self.by_id[process_id] for process_id in pair)
        kind, *fields = self.channels[pair].popleft()
        getattr(self, f"on_{kind.lower()}")(receiver, sender, *fields)

    def on_ref(self, node: Node, sender: Node, home: tuple[bytes, str, int], number: int) -> None:
        if home[0] == node.process_id:
            record = node.table.owned.get(home[2])
            assert record is not None or (home[0], home[2]) in self.excused, "a reference to what was freed"
            if record is not None:
                record.local += 1
                node.refs.append(record)
            self.send(node, sender.process_id, "UNPIN", number)
            return
        record = node.table.borrowed.get((home[0], home[2]))
        if record is None:
            record = borrowed(node.table, home)
        else:
            record.local += 1
        node.refs.append(record)
        node.unanswered.append((record, sender, number))
        self.follow(node, Released())

    def on_borrow(self, node: Node, sender: Node, request: int, numbers: list[int]) -> None:
        for number in numbers:
            there = node.table.add_borrower(number, sender.process_id)
            assert there or (node.process_id, number) in self.excused, "freed before it was registered"
        self.send(node, sender.process_id, "BORROWED", request)

    def on_borrowed(self, node: Node, sender: Node, request: int) -> None:
        released = Released()
        for record in node.registering.pop(request, ()):
            node.table.registered(record, released)
        self.follow(node, released)

    def on_release(self, node: Node, sender: Node, number: int, notes: int) -> None:
        released = Released()
        node.table.remove_borrower(number, sender.process_id, notes, released)
        self.follow(node, released)

    def on_get(self, node: Node, sender: Node, number: int) -> None:
        if node.table.add_borrower(number, sender.process_id):
            self.send(node, sender.process_id, "VALUE", number)

    def on_value(self, node: Node, sender: Node, number: int) -> None:
        """A value has come with its place, and so with a note."""
        record = node.table.borrowed.get((sender.process_id, number))
        if record is None:
            self.send(node, sender.process_id, "RELEASE", number, 1)
        else:
            node.table.lent(record)
            self.follow(node, Released())

    def on_unpin(self, node: Node, sender: Node, number: int) -> None:
        record, _ = node.holds.pop(number)
        self.drop(node, record)

    def on_gone(self, node: Node, sender: Node) -> None:
        released = Released()
        node.dead.add(sender.process_id)
        for record in node.table.process_gone(sender.process_id, released):
            record.state = FAILED
        self.follow(node, released)
        for request, records in list(node.registering.items()):
            if node.key(records[0])[0] == sender.process_id:
                self.on_borrowed(node, sender, request)
        for number, (_, receiver) in list(node.holds.items()):
            if receiver is sender:
                self.on_unpin(node, sender, number)

    def quiet(self) -> None:
        """Deliver and register until nothing is on its way."""
        while True:
            for node in self.living():
                self.register_all(node)
            filled = [pair for pair, channel in self.channels.items() if channel]
            if not filled:
                return
            for pair in filled:
                self.deliver_one(pair)

    # --- what must hold ---

    @invariant()
    def what_is_held_is_there(self) -> None:
        for node in self.living():
            for key, record in node.table.borrowed.items():
                owner = self.by_id[key[0]]
                if record.local and owner.alive and key not in self.excused:
                    assert key[1] in owner.table.owned, f"{node.process_id!r} holds {key}, which was freed"

    @invariant()
    def every_table_is_sound(self) -> None:
        for node in self.living():
            node.table.validate()

    def teardown(self) -> None:
        """When everybody lets go of everything, nothing is left."""
        for node in self.living():
            self.finish_all(node)
            while node.refs:
                self.drop(node, node.refs.pop())
        self.quiet()
        for node in self.living():
            while node.refs:  # those that were on their way
                self.drop(node, node.refs.pop())
        self.quiet()
        for node in self.living():
            assert node.table.owned == {}
            assert node.table.borrowed == {}
            assert not node.holds
            assert not node.unanswered
            assert not node.registering


TestBorrowing = Borrowing.TestCase
TestBorrowing.settings = settings(max_examples=200, stateful_step_count=40)
