"""The mode `release`: the gateway is killed before and after each step of a release, every one of them in every run.

strace is attached to the thread that does the step, kills the gateway at the Kth call of a kind or holds the thread after it, and
its output tells which step that was. K goes up until each step of that kind was come to.
"""

import asyncio
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tracing
from deployment import DESTINATION
from disks import missing
from gateway import until
from run import Run, skipped

# It suffices for all, so that each release is paid for and leaves.
BUDGET = f"""
[destinations.{DESTINATION}.budget]
bytes = 1_000_000_000
per   = "PT1S"
"""
BEFORE, AFTER = "before", "after"
HELD_SECONDS = 60
# Of two or three calls that take turns, each is come to.
ATTEMPTS = 16
# After so many in a row at which no call comes in this time, none will.
IN_VAIN = 2
REACHED_WITHIN_SECONDS = 4.0
TRACED = "pwritev,fdatasync,unlink,fchmod,rename"
# What says that nothing follows, in the logs: a frame without an entry.
EMPTY_FRAME = "iov_len=40}"

CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)$")
ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
WRITTEN = re.compile(r'iov_base="((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Call:
    """A system call as strace tells of it."""

    name: str
    told: str  # with its texts in hex
    plain: str  # with its texts as they are

    @property
    def written(self):
        """The bytes that it writes."""
        return b"".join(bytes.fromhex(found.replace("\\x", "")) for found in WRITTEN.findall(self.told))


def of_outbox(call, _earlier):
    """The steps of a thread that writes the outbox."""
    return ["the release in the outbox"] if EMPTY_FRAME not in call.plain else []


def of_ledger(call, earlier):
    """The steps of a thread that writes the ledger: what it writes, or what it wrote last and makes durable."""
    writes = [one for one in [*earlier, call] if one.name == "pwritev" and EMPTY_FRAME not in one.plain]
    written = writes[-1].written if writes else b""
    return [step for step, kind in (("the intent", b'"kind":"intent"'), ("what was sent", b'"kind":"sent"')) if kind in written]


def of_destination(call, earlier):
    """The steps of the destination's thread."""
    if "/budgets/" in call.plain:
        return ["the payment"]
    if "/cursors/" in call.plain:
        writes = [one for one in [*earlier, call] if one.name == "pwritev"]
        # The last numbers of a cursor: through where files are written, and through where the next one will be.
        last = writes[-1].written[-16:] if writes else b""
        return [] if len(last) < 16 else ["the cursor"] if last[:8] == last[8:] else ["what the next file will hold"]
    return ["the file"] if "/released/" in call.plain else []


@dataclass(frozen=True)
class Site:
    """Where a release comes by: a thread or all, a kind of call, perhaps at some files only, and the steps that there are to be."""

    thread: str | None
    call: str
    steps: tuple
    of: object
    files: str = ""


OUTBOX, LEDGER = "disk/journal/outbox/*.segment", "disk/journal/ledger/log/*.segment"
CURSOR, PAID = f"disk/journal/cursors/{DESTINATION}", f"disk/journal/budgets/{DESTINATION}"
TO = f"to-{DESTINATION}"
SITES = (
    *(Site(None, call, ("the release in the outbox",), of_outbox, OUTBOX) for call in ("pwritev", "fdatasync")),
    *(Site(TO, call, ("what the next file will hold", "the cursor"), of_destination, CURSOR) for call in ("pwritev", "fdatasync")),
    *(Site(TO, call, ("the payment",), of_destination, PAID) for call in ("pwritev", "fdatasync")),
    *(Site(None, call, ("the intent", "what was sent"), of_ledger, LEDGER) for call in ("pwritev", "fdatasync")),
    # One each for a file, while its directories are made durable again and again: what is left of an earlier one is removed, then it
    # is there; it is written, then durable; it has its name, then that is durable.
    *(Site(TO, call, ("the file",), of_destination) for call in ("unlink", "fchmod", "rename")),
)


async def release(options):
    """One sweep over all steps."""
    if why := missing("strace"):
        return skipped("release", why)
    if not await tracing.works():
        return skipped("release", "strace may not trace here")
    reached = Counter()

    async def cycles(run):
        for site in SITES:
            for moment in (BEFORE, AFTER):
                await sweep(run, site, moment, reached)

    async with Run("release", options, more=BUDGET) as run:
        outcome = await run.conclude(cycles)
    wanted = {(moment, site.call, step) for site in SITES for moment in (BEFORE, AFTER) for step in site.steps}
    print(f"release: killed before or after {len(wanted & reached.keys())} of {len(wanted)} steps, in {outcome.crashes} kills")
    # What ended early has said why.
    for moment, call, step in sorted(wanted - reached.keys()) if outcome.good else ():
        outcome.problems.append(f"release: not once killed {moment} the {call} of {step}")
        print(outcome.problems[-1])
    return outcome


async def sweep(run, site, moment, reached):
    """Kills it at one call after the other of a kind, until each of its steps was come to."""
    left, in_vain = set(site.steps), 0
    for attempt in range(ATTEMPTS):
        await run.under_load()
        steps = await killed(run, site, moment, attempt + 1)
        run.count_crash()
        run.check_ledger()
        await run.gateway.start()
        run.look()
        in_vain = in_vain + 1 if steps is None else 0
        left -= set(steps or ())
        reached.update((moment, site.call, step) for step in steps or ())
        if not left or in_vain == IN_VAIN:
            return


async def killed(run, site, moment, when):
    """Kills it at the next call but so many of a kind. Which steps that was in; None if it was not come to."""
    out = run.deployment.root / "strace.out"
    out.write_text("")
    how = "signal=KILL" if moment == BEFORE else f"delay_exit={HELD_SECONDS}s"
    try:
        # The first release makes some of the files.
        await until(lambda: not site.files or files(run, site), f"{site.files} is there", REACHED_WITHIN_SECONDS)
    except TimeoutError:
        await run.gateway.kill()
        return None
    traced = [argument for path in files(run, site) for argument in ("-P", str(path))]
    pid = thread_of(run.gateway.process.pid, site.thread) if site.thread else run.gateway.process.pid
    tracer = await asyncio.create_subprocess_exec(
        "strace", *([] if site.thread else ["-f"]), "-qq", "-y", "-xx", "-s", "65536", "-o", str(out), "-e", "signal=none",
        "-e", f"trace={TRACED}", *traced, "-e", f"inject={site.call}:{how}:when={when}", "-p", str(pid),
        stderr=asyncio.subprocess.DEVNULL)
    try:
        await until(lambda: not run.gateway.running or "(DELAYED)" in out.read_text(), "the call is come to", REACHED_WITHIN_SECONDS)
    except TimeoutError:
        return None
    finally:
        # What is held by its tracer dies only without it.
        if run.gateway.running:
            run.gateway.process.kill()
        if tracer.returncode is None:
            tracer.kill()
        await tracer.wait()
        await run.gateway.kill()
    calls = [Call(found[1], found[2], plain(found[2])) for found in map(CALL.match, out.read_text().splitlines()) if found]
    at = max((number for number, call in enumerate(calls) if call.name == site.call), default=None)
    return [] if at is None else site.of(calls[at], calls[:at])


def files(run, site):
    """The files of a site that are there."""
    return list(run.deployment.root.glob(site.files)) if site.files else []


def thread_of(pid, name):
    """The thread of a process that has a name."""
    return next(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text().strip() == name)


def plain(told):
    """What strace tells, with its texts as they are."""
    return ESCAPED.sub(lambda found: chr(int(found[1], 16)), told)
