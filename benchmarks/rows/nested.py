"""What do tasks cost that tasks submit?"""

from __future__ import annotations

from ..harness import Bench, row

CLIENTS = 4
EACH = 1000


@row("tasks/s")
def multi_client_4x1000(bench: Bench) -> float:
    """How many tasks a second run when 4 tasks submit 1000 each and get the results?"""
    task, get = bench.small_value(), bench.runtime.get
    name = bench.runtime.__name__

    def submit() -> int:
        import importlib

        runtime = importlib.import_module(name)
        runtime.get([task.remote() for _ in range(EACH)])
        return EACH

    client = bench.runtime.remote(submit)
    return bench.rate(
        lambda: get([client.remote() for _ in range(CLIENTS)]), per_call=CLIENTS * EACH, bursts=1
    )
