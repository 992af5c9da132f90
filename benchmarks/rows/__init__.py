"""All rows, in the order of the table. A new row is written in the file of its question and listed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import (
    actors,
    arguments,
    as_completed,
    bare,
    cancel,
    large_objects,
    light_actors,
    memory,
    nested,
    peers,
    small_objects,
    start,
    streams,
    task_batch,
    task_sync,
    wait,
)

if TYPE_CHECKING:
    from ..harness import Row

ROWS: tuple[Row, ...] = (
    start.import_package,
    start.init_and_first_task,
    memory.processes_after_init,
    memory.pss_after_init,
    memory.pss_of_further_idle_worker,
    task_sync.task_sync,
    task_batch.task_batch_1000,
    task_batch.task_batch_10000,
    small_objects.get_small,
    small_objects.put_small,
    arguments.task_ref_argument_1000,
    arguments.task_160kb_argument_100,
    arguments.task_chain_200,
    large_objects.put_100mb,
    large_objects.put_100mb_of_memcpy,
    large_objects.get_100mb,
    large_objects.task_100mb_ref,
    large_objects.result_100mb,
    large_objects.get_object_of_10000_refs,
    large_objects.task_10000_ref_arguments,
    large_objects.task_3000_returns,
    large_objects.store_after_puts,
    nested.multi_client_4x1000,
    wait.wait_1000,
    wait.wait_drain_10000_finished,
    wait.wait_drain_10000_finishing,
    as_completed.as_completed_1000,
    as_completed.as_completed_100000,
    streams.stream_items,
    streams.stream_items_async,
    cancel.cancel_known,
    cancel.cancel_frees_cpu,
    cancel.cancel_queued,
    cancel.cancel_coroutine,
    actors.actor_sync,
    actors.actor_batch_1000,
    actors.async_actor_sync,
    actors.async_actor_batch_1000,
    actors.actor_one_to_n,
    actors.actor_n_to_n,
    actors.actor_life,
    light_actors.light_actor_pss,
    light_actors.light_actor_creation,
    light_actors.light_actor_batch_1000,
    light_actors.light_actor_to_neighbour,
    peers.async_actor_gather_1000,
    peers.xoscar_gather_1000,
    start.shutdown,
    bare.bare_ping_pong,
    bare.bare_frames,
)


def by_name(name: str) -> Row:
    """The row called ``name``. Raises: KeyError: when there is none, with the names that there are."""
    for row in ROWS:
        if row.name == name:
            return row
    raise KeyError(f"no row is called {name!r}; there are {', '.join(row.name for row in ROWS)}")
