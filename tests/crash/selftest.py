#!/usr/bin/env python3
"""Tests the harness itself: what is right must pass, and what is planted must be reported as what it is.

usage: selftest.py [--bin GATEWAY] [NAME ...]

With --bin, the oracle is tried with a real gateway that needs no journal; all else runs against stand_in.py.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import disk_modes
import modes
import producer
import syscalls
from run import Options, Run
from workload import Batch

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


class Sabotage(producer.Producer):
    """A producer that sends one batch wrongly."""

    kind = None
    done = False

    def _next_request(self):
        if self.window < 3 or Sabotage.done or not self.parts:
            return super()._next_request()
        Sabotage.done = True
        if Sabotage.kind == "doubled":
            self.parts.insert(0, self.parts[0])
        elif Sabotage.kind == "left out":
            self.parts.popleft()
        elif Sabotage.kind == "altered":
            self.parts[0].columns = lambda batch=self.parts[0]: {**Batch.columns(batch), "value": Batch.columns(batch)["value"] + 1 / 1024}
        return super()._next_request()


async def sabotaged(kind, options):
    """A run without faults in which one batch is sent wrongly."""
    Sabotage.kind, Sabotage.done = kind, False

    async def cycles(run):
        await run.wait_for(lambda: run.slowest_window() > 6, "some windows are sent")

    async with Run(kind.replace(" ", "-"), options, producer_class=Sabotage) as run:
        return await run.conclude(cycles)


# Name: what to run, the stand-in's planted bug, what must be reported ("nothing": the run must be good).
TESTS = {
    "clean": (modes.clean, "", "nothing"),
    "a batch doubled": (lambda options: sabotaged("doubled", options), "", "duplicated"),
    "a batch left out": (lambda options: sabotaged("left out", options), "", "lost"),
    "a batch altered": (lambda options: sabotaged("altered", options), "", "altered"),
    "kill": (modes.kill, "", "nothing"),
    "recovery": (modes.recovery, "", "nothing"),
    "network": (modes.network, "", "nothing"),
    "syscall": (syscalls.syscall, "", "nothing"),
    "powerloss": (disk_modes.powerloss, "", "nothing"),
    "full": (disk_modes.full, "", "nothing"),
    "ack-before-fsync": (disk_modes.powerloss, "ack-before-fsync", "lost"),
    "trust-page-cache": (disk_modes.powerloss, "trust-page-cache", "lost"),
    "no-dedup": (modes.network, "no-dedup", "duplicated"),
    "outbox-after-send": (modes.kill, "outbox-after-send", "duplicated"),
    "forget-open-windows": (modes.kill, "forget-open-windows", "lost"),
    "replay-twice": (modes.kill, "replay-twice", "duplicated"),
    "lose-queue-on-fsync-error": (syscalls.syscall, "lose-queue-on-fsync-error", "protocol"),
}
WITHOUT_JOURNAL = ("clean", "a batch doubled", "a batch left out", "a batch altered")
# Enough for the planted bugs, and for a `syscall` run to come to the errors.
CYCLES = {"syscall": 15, "lose-queue-on-fsync-error": 15, "trust-page-cache": 60}


def reported(outcome):
    """What a run reports, in the words of the table."""
    verdict = outcome.verdict
    found = [name for name in ("lost", "altered", "duplicated") if getattr(verdict, name)]
    return found + (["protocol"] if outcome.problems else []) or ["nothing"]


def main():
    """Runs the tests named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", help="a real gateway instead of the stand-in, without a journal")
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    names = given.names or (WITHOUT_JOURNAL if given.bin else list(TESTS))
    wrong = []
    for name in names:
        mode, plant, expected = TESTS[name]
        options = Options(binary=os.path.abspath(given.bin or STAND_IN), cycles=CYCLES.get(name, 8), seed=7, durable=not given.bin,
                          records_per_second=10_000.0, load_ms=400, environment={"BAILIWICK_PLANT": plant})
        found = reported(asyncio.run(mode(options)))
        verdict = "as it must be" if expected in found else f"WRONG, expected {expected}"
        if expected not in found:
            wrong.append(name)
        print(f"=== {name}: reported {', '.join(found)}: {verdict}", flush=True)
    print(f"{len(names) - len(wrong)} of {len(names)} as they must be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
