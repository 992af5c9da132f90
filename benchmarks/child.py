"""The process that holds one runtime: answers JSON lines on stdin with JSON lines on stdout, one each.

``{"do": "row", "name": ...}`` measures a row, ``{"do": "shutdown"}`` stops the runtime, end of input ends
the process. The first line out, unasked, says which versions run here.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from typing import TYPE_CHECKING, TextIO

from .life import Life, begin, end

if TYPE_CHECKING:
    from .harness import Bench, Row
    from .runtime import Runtime

BARE = "bare"


def take_stdout() -> TextIO:
    """Keep stdout for answers alone: what the runtime or a worker prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def measure(row: Row, bench: Bench) -> dict[str, object]:
    """Answer one row: its figure, or how it failed."""
    try:
        return {"value": row.measure(bench)}
    # The answer carries it: one row's failure must not cost the others.
    except Exception as error:  # noqa: BLE001
        return {"error": f"{type(error).__name__}: {error}"}


def serve(runtime: Runtime | None, life: Life | None, answers: TextIO) -> None:
    """Answer requests until stdin ends."""
    # Only now: what these import must not be a present to a runtime whose own imports were just timed.
    from .harness import Bench
    from .rows import by_name

    bench = Bench(runtime, life)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "row":
            reply = measure(by_name(request["name"]), bench)
        else:
            if runtime is not None and life is not None:
                end(runtime, life)
            reply = {"value": 0.0}
        print(json.dumps(reply), file=answers)


def main(name: str, store_bytes: str) -> None:
    """Hold the runtime called ``name``, with a store of that size; ``bare`` holds none."""
    answers = take_stdout()
    runtime, life = (None, None) if name == BARE else begin(name, int(store_bytes))
    version = "" if runtime is None else runtime.__version__
    hello = {"version": version, "python": platform.python_version()}
    print(json.dumps(hello), file=answers)
    serve(runtime, life, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
