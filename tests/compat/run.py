"""Run programs on one library, and print what each returned: `python -m tests.compat.run LIBRARY [NAME...]`.

Each line on stdout is the JSON of one outcome: the program's name, and its value or its traceback. Without
names, all programs are run, in one process and one session with two CPUs.
"""

import importlib
import json
import logging
import os
import signal
import sys
import traceback
from types import FrameType

from tests.compat import harness

#: Seconds after which a program that hangs is given up, so that the others still run.
PATIENCE_S = 25.0


def give_up(_signal: int, _frame: FrameType | None) -> None:
    """End a program that hangs."""
    raise TimeoutError(f"the program did not end within {PATIENCE_S:g} s")


def outcome_of(program: harness.Program, ray: harness.Ray) -> dict[str, object]:
    """Run one program; returns its value, or else its traceback."""
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        return {"value": program(ray)}
    except Exception:  # noqa: BLE001 - an outcome like another: the test reports it
        return {"error": traceback.format_exc()}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main(library: str, *names: str) -> None:
    """Run the programs of these names on *library*, "asyncray" or "ray", in the order of the themes."""
    outcomes = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the library's own prints must not come between
    ray = importlib.import_module(library)
    importlib.import_module(f"{library}.util")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    signal.signal(signal.SIGALRM, give_up)
    for name, (program, _) in harness.all_programs().items():
        if name in names or not names:
            outcomes.write(json.dumps({"program": name, **outcome_of(program, ray)}) + "\n")
    ray.shutdown(**({"wait_for_processes": True} if library == "ray" else {}))
    outcomes.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
