#!/usr/bin/env python3
"""Shows that the harness notices bugs: runs a gateway with each of them planted until it is caught.

usage: planted.py --bin GATEWAY [--cycles N] [--seed N] [NAME ...]

The gateway is one that was built with the feature `planted-bugs`. First it is run without a bug, which must be good.
Exit code 1 if a bug is not caught, or caught as something else than the table says.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

CRASH = str(Path(__file__).with_name("crash.py"))
LINE = re.compile(r"^crashes (\d+) acked (\d+) lost (\d+) altered (\d+) duplicated (\d+)$", re.MULTILINE)
ANY = ("lost", "altered", "duplicated", "protocol")

# What is lost is only judged at the end, so the end has to come soon.
FEW = ["--cycles", "40"]

# Name: mode, more arguments, what it must be caught as (one of these is enough; "protocol" is whatever else the
# harness reports: a gateway that does not come back, refuses or answers wrongly).
# Not here, because no crash of a whole process shows them reliably; the journal's own tests catch these:
# reuse-poisoned-file, trust-torn-frame, truncate-recovery, unseeded-checksums, overwrite-newest-slot; and skip-dir-sync
# (one power loss in 43 when it was tried), rename-before-entries and trust-page-cache (none in 86),
# lose-queue-on-fsync-error (none in 120 faulty calls), let-go-too-much (one kill in 328). And noise-anew: what noise was
# drawn for the first time never left, so nobody outside can compare it; src/engine/noising/tests.rs sees each draw.
PLANTED = {
    # The ledger stands on the same log: whichever is judged first, a lost record or a release without its intent.
    "ack-before-fsync": ("powerloss", [], ("lost", "protocol")),
    "wrong-next-lsn": ("kill", FEW, ANY),
    "forget-open-windows": ("kill", FEW, ("lost",)),
    "replay-twice": ("kill", [], ("duplicated",)),
    "release-ahead-of-journal": ("powerloss", [], ANY),
    "cursor-before-file": ("kill", FEW, ("lost",)),
    "send-before-intent": ("kill", [], ("protocol",)),
    "no-dedup": ("network", [], ("duplicated",)),
    "charge-after": ("noise", ["--cycles", "20"], ("altered",)),
}


class Caught:
    """What a run with one bug came to."""

    def __init__(self, output, code, seconds):
        line = LINE.search(output)
        self.seconds = seconds
        self.finished = line is not None
        self.crashes, self.acked, *counts = map(int, line.groups()) if line else (0, 0, 0, 0, 0)
        self.kinds = [name for name, count in zip(ANY, counts, strict=False) if count]
        if self.finished and code != 0 and not self.kinds:
            self.kinds = ["protocol"]
        self.output = output


def crash(given, mode, arguments, plant):
    """One run of the harness."""
    command = [sys.executable, CRASH, mode, "--bin", given.bin, "--cycles", str(given.cycles), "--discard", *arguments]
    if given.seed is not None:
        command += ["--seed", str(given.seed)]
    began = time.monotonic()
    done = subprocess.run(command, env={**os.environ, "BAILIWICK_PLANT": plant}, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return Caught(done.stdout, done.returncode, time.monotonic() - began)


def main():
    """Runs the bugs named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.environ.get("BAILIWICK_BIN"), help="a gateway with planted bugs (BAILIWICK_BIN)")
    parser.add_argument("--cycles", type=int, default=300, help="the most faults until a bug must be caught")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--verbose", action="store_true", help="print what the harness said")
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    if not given.bin:
        parser.error("no gateway: give --bin or BAILIWICK_BIN")
    if unknown := set(given.names) - PLANTED.keys():
        parser.error(f"not in the table: {', '.join(sorted(unknown))}")
    missed = []
    none = crash(argparse.Namespace(bin=given.bin, cycles=min(given.cycles, 10), seed=given.seed), "kill", [], "")
    if not none.finished or none.kinds:
        print(f"without a bug it is not good: {none.output}")
        return 1
    print(f"{'planted':30} {'mode':10} {'caught as':24} {'crashes':>7} {'seconds':>7}")
    for name in given.names or PLANTED:
        mode, arguments, expected = PLANTED[name]
        caught = crash(given, mode, arguments, name)
        verdict = ", ".join(caught.kinds) or ("NOT CAUGHT" if caught.finished else "THE HARNESS FAILED")
        if caught.kinds and not set(caught.kinds) & set(expected):
            verdict += f" (NOT {'/'.join(expected)})"
        print(f"{name:30} {mode:10} {verdict:24} {caught.crashes:7} {caught.seconds:7.0f}", flush=True)
        is_caught = set(caught.kinds) & set(expected)
        if not is_caught:
            missed.append(name)
        if given.verbose or not is_caught:
            print("\n".join(f"    {line}" for line in caught.output.splitlines()[-15:]), flush=True)
    print(f"{len(given.names or PLANTED) - len(missed)} of {len(given.names or PLANTED)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
