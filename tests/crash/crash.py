#!/usr/bin/env python3
"""Crashes a gateway under load and counts what became of the records that it acked. See README.md.

The last line is `crashes N acked N lost N altered N duplicated N`; the exit code is 1 unless all of the last three
are 0, the gateway came back every time and kept to its protocol.
"""

import argparse
import asyncio
import dataclasses
import os
import random
import signal
import sys

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import budget_mode
import disk_modes
import formats
import kafka_mode
import longer_mode
import modes
import noise_mode
import release_mode
import syscalls
from run import Options, Outcome

MODES = {
    "clean": (modes.clean, "no fault"),
    "kill": (modes.kill, "SIGKILL at random instants, sometimes again during recovery"),
    "recovery": (modes.recovery, "SIGKILL during recovery, five times over"),
    "network": (modes.network, "connections cut between the durable write and the answer"),
    "syscall": (syscalls.syscall, "killed at the Kth system call of a kind; calls that fail (strace)"),
    "release": (release_mode.release, "killed before and after each step of a release, all of them once (strace)"),
    "powerloss": (disk_modes.powerloss, "power losses on ext4 and XFS (root)"),
    "full": (disk_modes.full, "the journal's disk is full for a while (root)"),
    "noise": (noise_mode.noise, "as kill and syscall, of cells with noise, of windows that overlap: paid for first, everywhere the same"),
    "budget": (budget_mode.budget, "as kill and syscall, with a destination of few bytes: paid for first, in one form or none"),
    "longer": (longer_mode.longer, "as kill and syscall, with a dataset of longer windows: each sum whole, and once"),
    "kafka": (kafka_mode.kafka, "as kill, released to a real Kafka (KAFKA_HOME)"),
}

# How many cycles of each mode go with 50 kills. Not many of `noise`, whose records come slowly.
SHARES = {"kill": 50, "recovery": 3, "network": 10, "syscall": 15, "full": 3, "noise": 5, "budget": 5, "longer": 5}


async def process(options):
    """All modes that need neither a broker nor a power loss, one after the other, in their shares."""
    outcome = Outcome()
    fast = sum(share for mode, share in SHARES.items() if mode != "noise")
    for mode, share in SHARES.items():
        cycles = max(1, round(options.cycles * share / SHARES["kill"]))
        records = round(options.records * share / fast)
        outcome.add(await MODES[mode][0](dataclasses.replace(options, cycles=cycles, records=records)))
    # One sweep, however many cycles there are: it is the same with canaries.
    if not options.canaries:
        outcome.add(await release_mode.release(options))
    return outcome


MODES["process"] = (process, f"with --cycles 50: {', '.join(f'{mode} {share}' for mode, share in SHARES.items())}; then release, but not with --canaries")


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(f"{name:10} {about}" for name, (_, about) in MODES.items()))
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--bin", default=os.environ.get("BAILIWICK_BIN"), help="the gateway (BAILIWICK_BIN)")
    parser.add_argument("--cycles", type=int, default=50, help="how many faults")
    parser.add_argument("--records", type=int, default=0, help="go on with faults until so many records are acked")
    parser.add_argument("--canaries", action="store_true",
                        help="records hold canaries, the journal is sealed, and all else is searched for them")
    parser.add_argument("--seed", type=int, help="replays the schedule, as far as time allows")
    parser.add_argument("--producers", type=int, default=3)
    parser.add_argument("--rate", type=float, default=30_000.0, help="records per second of all producers together")
    parser.add_argument("--load-ms", type=int, default=800, help="the longest time under load before a fault")
    parser.add_argument("--segment-bytes", type=int, default=1 << 20)
    parser.add_argument("--filesystems", default="ext4,xfs", help="of mode powerloss")
    parser.add_argument("--same-epoch", action="store_true", help="producers never begin a new series")
    parser.add_argument("--no-journal", action="store_true", help="leave [journal] out and expect nothing durable (mode clean)")
    parser.add_argument("--discard", action="store_true", help="delete the deployment of a failed run too")
    given = parser.parse_args()
    if not given.bin:
        parser.error("no gateway: give --bin or BAILIWICK_BIN")
    if given.canaries and given.no_journal:
        parser.error("--canaries needs the journal, whose records are sealed: not with --no-journal")
    return given


async def interruptible(mode, options):
    """Runs a mode; SIGTERM cleans up like Ctrl-C."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    return await mode(options)


def main():
    """Runs one mode."""
    given = arguments()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"mode {given.mode} seed {seed}", flush=True)
    options = Options(binary=os.path.abspath(given.bin), cycles=given.cycles, seed=seed, producers=given.producers,
                      records_per_second=given.rate, load_ms=given.load_ms, new_epochs=not given.same_epoch,
                      durable=not given.no_journal, segment_bytes=given.segment_bytes,
                      filesystems=tuple(given.filesystems.split(",")), keep=not given.discard,
                      records=given.records, canaries=given.canaries, deck=formats.Deck(seed))
    try:
        outcome = asyncio.run(interruptible(MODES[given.mode][0], options))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted")
        return 130
    if formats.READ:
        print(f"files read, by format: {', '.join(f'{name} {formats.READ[name]} times' for name in formats.OF_FILES)}")
    if missing := options.deck.missing():
        outcome.problems.append(f"no file was read in the formats {', '.join(missing)}, although each was configured")
        print(outcome.problems[-1])
    print(outcome.line())
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
