"""One run: a deployment, its gateway, its producers, and in the end the verdict. The modes bring the faults."""

import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

import canaries
import formats
import ledger
import protocol
from deployment import POLICY, Deployment
from destinations import Files
from gateway import DidNotComeBack, Gateway, until
from judge import Judge, Verdict
from producer import CountedWrongly, Producer, ProtocolBroken
from workload import share, window_start

PROGRESS_WITHIN_SECONDS = 120.0
DRAINED_WITHIN_SECONDS = 600.0
RELEASED_WITHIN_SECONDS = 600.0
NOTHING_NEW_SECONDS = 60.0
NOT_DURABLE = ("JOURNAL_FAILING", "OVERLOADED", "WINDOWS_FULL")
# Past the last window by more than its grace.
COMPLETE_WINDOWS_BEYOND = 5


@dataclass
class Options:
    """What a run is made of."""

    binary: str
    cycles: int = 50
    seed: int = 0
    producers: int = 3
    records_per_second: float = 30_000.0
    load_ms: int = 800
    new_epochs: bool = True
    durable: bool = True  # there is a journal
    segment_bytes: int = 1 << 20
    filesystems: tuple = ("ext4", "xfs")
    keep: bool = False
    records: int = 0  # go on with faults until so many are acked
    canaries: bool = False  # records hold canaries, which are searched for
    environment: dict = field(default_factory=dict)
    deck: formats.Deck = None  # deals the formats of files; JSON lines without one


@dataclass
class Outcome:
    """What came of one run or several."""

    crashes: int = 0
    acked: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    problems: list = field(default_factory=list)

    def add(self, other):
        """Takes in another run's."""
        self.crashes += other.crashes
        self.acked += other.acked
        self.verdict.add(other.verdict)
        self.problems += other.problems

    @property
    def good(self):
        """Whether everything held."""
        return self.verdict.clean and not self.problems

    def line(self):
        """The last line of the output."""
        verdict = self.verdict
        return f"crashes {self.crashes} acked {self.acked} lost {verdict.lost} altered {verdict.altered} duplicated {verdict.duplicated}"


def kernel_says():
    """The last lines of the kernel's log: why a file system was shut down, if it was."""
    said = subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout.splitlines()
    return " | ".join(said[-8:])


def skipped(mode, why):
    """Says loudly that nothing was tested."""
    print(f"SKIPPED: {mode}: {why}: nothing was tested", flush=True)
    return Outcome()


class Stopped(Exception):
    """Something was found: the run ends here."""


class Run:
    """`async with Run(...)` starts the gateway and the producers; `conclude` gives the outcome."""

    def __init__(self, name, options, *, destination=Files, disk=None, proxy=None, producer_class=Producer,
                 policy=POLICY, more="", judge=Judge.of):
        """`more` is added to gateway.toml; `judge` makes the judge of a run."""
        self.name, self.options = name, options
        self.rng = random.Random(f"{options.seed}/{name}")
        self.root = tempfile.mkdtemp(prefix=f"bailiwick-crash-{name}-")
        self.canaries = canaries.Canaries(self.root, formats.Deck(f"{options.seed}/{name}")) if options.canaries else None
        self.more_columns = canaries.columns if options.canaries else None
        with_canaries = {"fields": canaries.FIELDS, "policy_more": canaries.FEW_POLICY, "sealed": True} if options.canaries else {}
        more += self.canaries.gateway_toml if options.canaries else ""
        self.deployment = Deployment(self.root, destination(self.root), policy=policy, journal=options.durable,
                                     segment_bytes=options.segment_bytes, deck=options.deck, more=more, **with_canaries)
        self.disk, self.proxy = disk, proxy
        self.gateway = Gateway(options.binary, self.deployment, options.environment)
        self.judge = judge(self)
        self.durable, self.new_epochs = options.durable, options.new_epochs
        self.producers = []
        self._producer_class = producer_class
        self.crashes = 0
        self.outcome = None
        self._tasks = []

    @property
    def address(self):
        """Where producers connect."""
        return self.proxy.address if self.proxy else self.deployment.address

    async def __aenter__(self):
        try:
            if self.disk:
                self.disk.open(self.deployment.disk)
            self.pb, self.rows_pb2 = protocol.load(self.gateway.command, self.deployment.config)
            await self.gateway.start()
            if self.proxy:
                await self.proxy.open(self.deployment.port)
            self._add_producers()
            await self._first_acks()
        except BaseException:
            await self.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(self, _kind, error, _trace):
        await self._end_producers()
        await self.gateway.kill()
        if self.proxy:
            await self.proxy.close()
        self.deployment.destination.close()
        if self.disk:
            self.disk.close()
        failed = error is not None or (self.outcome is not None and not self.outcome.good)
        if self.options.keep and failed:
            print(f"{self.name}: kept for a look: {self.root}", flush=True)
        else:
            shutil.rmtree(self.root, ignore_errors=True)

    async def _end_producers(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _add_producers(self):
        options = self.options
        for number in range(options.producers):
            self.producers.append(self._producer_class(
                self, number, share(number, options.producers), random.Random(f"{options.seed}/{self.name}/{number}"),
                as_rows=number == 1, records_per_second=options.records_per_second / options.producers))

    async def _first_acks(self):
        """The producers send together only once the gateway knows all of them: a producer that it never heard of
        does not hold the watermark, so what it sends afterwards could come late."""
        for producer in self.producers:
            producer.last_window = 0
            self._tasks.append(asyncio.create_task(producer.produce()))
        await self.wait_for(lambda: all(producer.introduced for producer in self.producers), "every producer is known")
        for producer in self.producers:
            producer.last_window = None
        await self.under_load()

    def slowest_window(self):
        """How far the producer is that is behind."""
        return min(producer.window for producer in self.producers)

    def check(self):
        """Raises what was found so far."""
        for task in self._tasks:
            if task.done() and task.exception():
                raise task.exception()

    async def wait_for(self, holds, what, within=PROGRESS_WITHIN_SECONDS):
        """Waits for a condition; a broken protocol ends the wait."""

        def holds_or_broken():
            self.check()
            return holds()

        try:
            await until(holds_or_broken, what, within)
        except TimeoutError as error:
            refusals = {producer.name: dict(producer.refusals) for producer in self.producers}
            raise ProtocolBroken(f"{error}; refusals so far: {refusals}; log: {self.gateway.last_lines()}") from error

    async def under_load(self, within=PROGRESS_WITHIN_SECONDS):
        """Waits until the gateway took something new from every producer that may send."""
        before = [producer.fresh for producer in self.producers]

        def every_one_acked():
            self.must_be_up("under load")
            return all(producer.fresh > fresh for producer, fresh in zip(self.producers, before, strict=True))

        await self.wait_for(every_one_acked, "a new request of every producer is acked", within)

    def must_be_up(self, when):
        """Raises if the gateway went down by itself."""
        if not self.gateway.running:
            raise DidNotComeBack(f"the gateway went down by itself {when}: {self.gateway.last_lines()}")

    def refused(self):
        """How many requests were refused because nothing can be made durable."""
        return sum(producer.refusals[reason] for producer in self.producers for reason in NOT_DURABLE)

    async def random_load(self):
        """Goes on under load until a random instant."""
        await asyncio.sleep(self.rng.uniform(0, self.options.load_ms / 1000))
        if self.canaries:
            await self.canaries.offend(self)
            await self.canaries.add_few(self)
            await self.canaries.listen()

    def faults(self):
        """The numbers of the faults that there are to be: as many as were asked for, and on until as many records are acked."""
        number = 0
        while number < self.options.cycles or self.acked_records() < self.options.records:
            yield number
            number += 1

    def acked_records(self):
        """How many records were acked so far."""
        return sum(producer.acked_records for producer in self.producers)

    def count_crash(self):
        """One more; says how far it is from time to time."""
        self.crashes += 1
        if self.crashes % 25 == 0:
            print(f"{self.name}: {self.crashes} crashes, {self.acked_records()} records acked", flush=True)

    def look(self):
        """Ends the run if something is wrong with what is released already."""
        self.check()
        self.check_ledger()
        if self.canaries:
            self.canaries.look(self.root, self.deployment.destination)
        verdict = self.judge.look()
        if not verdict.clean:
            raise Stopped(f"stopped at {len(verdict.remarks)} findings in what is released so far")

    def check_ledger(self):
        """Ends the run if something left that the ledger did not say before."""
        if self.durable:
            ledger.check(self.gateway.command, self.deployment)

    async def conclude(self, cycles):
        """Runs the faults, then lets everything be released, and judges. Never raises for what was found."""
        began = time.monotonic()
        problems, remarks, windows = [], [], None
        try:
            await cycles(self)
            windows = await self._complete_all()
        except (Stopped, CountedWrongly) as found:
            remarks.append(str(found))
        except (ProtocolBroken, DidNotComeBack, ledger.NotSaid, canaries.Leaked, formats.Unreadable) as problem:
            problems.append(f"{self.name}: {type(problem).__name__}: {problem}")
        try:
            verdict = self.judge.look() if windows is None else self.judge.complete(windows)
        except (OSError, formats.Unreadable) as error:  # a disk of the harness's own can fail, too: what was found before is still said
            verdict = Verdict()
            problems.append(f"{self.name}: cannot read what left: {error}. The kernel says last: {kernel_says()}")
        verdict.lost += sum(producer.lost_records for producer in self.producers)
        verdict.duplicated += sum(producer.doubled_records for producer in self.producers)
        verdict.remarks[:0] = remarks
        problems += [f"{self.name}: the log says: {line}" for line in self.gateway.log_lines("panicked")[:3]]
        self.outcome = Outcome(self.crashes, self.acked_records(), verdict, problems)
        self._report(windows, time.monotonic() - began)
        return self.outcome

    async def _complete_all(self):
        """Ends the producers' series at the same window, completes all windows and waits for what they release."""
        windows = max(producer.window for producer in self.producers) + 1
        for producer in self.producers:
            producer.last_window = windows
        await self.wait_for(lambda: all(producer.drained for producer in self.producers), "everything is acked", DRAINED_WITHIN_SECONDS)
        for producer in self.producers:
            producer.complete_through = window_start(windows + COMPLETE_WINDOWS_BEYOND)
        completed = [producer.completed for producer in self.producers]
        await self.wait_for(lambda: all(event.is_set() for event in completed), "the promise that all is complete is taken")
        await self._all_released(windows)
        # Nothing may come out that came out before: neither after a crash nor at a stop.
        if self.durable:
            await self.gateway.kill()
            await self.gateway.start()
        self.check()
        # A stop waits half of its time for calls that are open, and a producer without records keeps its own.
        await self._end_producers()
        await self.gateway.stop()
        self.check_ledger()
        if self.canaries:
            self.canaries.look(self.root, self.deployment.destination, is_last=True)
        return windows

    async def _all_released(self, windows):
        """Waits until as many cells are released as were sent, or nothing new has come for a while."""
        expected = self.judge.expected(windows)
        seen, since, deadline = -1, time.monotonic(), time.monotonic() + RELEASED_WITHIN_SECONDS
        while time.monotonic() < deadline:
            self.judge.look()
            cells = self.judge.cells_released()
            if cells >= expected or time.monotonic() - since > NOTHING_NEW_SECONDS:
                return
            if cells != seen:
                seen, since = cells, time.monotonic()
            await asyncio.sleep(0.05)

    def _report(self, windows, seconds):
        outcome = self.outcome
        duplicates = sum(producer.duplicates for producer in self.producers)
        refusals = sum((producer.refusals for producer in self.producers), start=type(self.producers[0].refusals)())
        ready = sorted(self.gateway.seconds_to_ready) or [0.0]
        print(f"{self.name}: {outcome.line()}; {windows or 'unknown'} windows, {seconds:.0f} s, ready after {ready[len(ready) // 2]:.2f} s "
              f"(at most {ready[-1]:.2f} s), {duplicates} requests answered as duplicates, calls ended by {dict(refusals)}")
        if self.canaries and outcome.good:
            print(f"{self.name}: {self.canaries.line()}")
        errors = self.gateway.log_lines(" ERROR ")
        if errors:
            print(f"{self.name}: {len(errors)} ERROR lines in the gateway's log, the first: {errors[0][:300]}")
        for remark in [*outcome.problems, *outcome.verdict.remarks[:8]]:
            print(f"{self.name}: {remark}")
        sys.stdout.flush()
