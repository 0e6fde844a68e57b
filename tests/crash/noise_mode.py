"""As `kill` and `syscall`, of two datasets with differential privacy, the windows of one of which overlap: noise is paid for
before it is drawn, drawn once, and all of it from one budget."""

import dataclasses
import functools
import json
import re
from collections import Counter, defaultdict
from datetime import datetime

import ledger
import modes
import syscalls
from deployment import DATASET, POLICY
from destinations import Files
from judge import Verdict
from run import Outcome
from workload import BASE_MICROS, CELL_RECORDS, GROUPS, WINDOW_MICROS

OVERLAPPING = "events_of_three_seconds"
# How many of the workload's windows are in one of a dataset. One begins with each of them.
WINDOWS = {DATASET: 1, OVERLAPPING: 3}
# With less, some of the cells had too few contributors with their noise.
RHO_PER_WINDOW = 0.02
# The standard deviation of the noise of a count of records, for each record that a contributor has in a cell.
NOISE = 20
FAR_IN_DEVIATIONS = 7
# A day pays for so many windows, and so many more for each fault: less than what a run sends. All windows of a run are of one day.
WINDOWS_PAID, WINDOWS_PER_FAULT = 6, 1
RHO_PER_DAY_MAX = 0.5
# So slow that a run sees many faults before the budget is spent.
RECORDS_PER_SECOND = 1_500.0
AGAIN = "again"

METRICS = re.compile(r"^metrics = \[.*?^\]\n", re.MULTILINE | re.DOTALL)
ACCEPTED = f'accepts = ["{DATASET}"]'
BOTH_ACCEPTED = f'accepts = ["{DATASET}", "{OVERLAPPING}"]'
COUNTED = f"""
release = "{{dataset}}"
metrics = [{{{{ name = "records", fn = "count" }}}}]

[datasets.{{dataset}}.privacy]
mechanism      = "discrete_gaussian"
rho_per_window = {RHO_PER_WINDOW}
rho_per_day    = {{per_day}}

[release.{{dataset}}]
records_per_contributor = {{windows}}
cells_per_contributor   = {len(GROUPS)}
"""
SECOND = f"""
[datasets.{OVERLAPPING}]
stream           = "events"
window           = {{ size = "PT{WINDOWS[OVERLAPPING]}S", every = "PT1S", grace = "PT1S" }}
min_contributors = 10
group_by         = [{{ field = "group", domain = {json.dumps(GROUPS)} }}]
"""
SECOND_PLACE = f"""
[destinations.{AGAIN}]
country = "IE"
{BOTH_ACCEPTED}
"""


async def noise(options):
    """Kills a gateway that adds noise: at random instants, then at system calls. Two destinations read the same releases, one after
    the other."""
    slow = dataclasses.replace(options, records_per_second=RECORDS_PER_SECOND, records=0)
    per_day = min(round(RHO_PER_WINDOW * (WINDOWS_PAID + WINDOWS_PER_FAULT * options.cycles), 2), RHO_PER_DAY_MAX)
    counted = {dataset: COUNTED.format(dataset=dataset, windows=windows, per_day=per_day) for dataset, windows in WINDOWS.items()}
    policy = METRICS.sub(lambda _: counted[DATASET].lstrip(), POLICY, count=1).replace(ACCEPTED, BOTH_ACCEPTED)
    policy += SECOND + counted[OVERLAPPING].lstrip() + SECOND_PLACE
    outcome = Outcome()
    for name, fault in (("noise", modes.kill), ("noise-syscall", syscalls.syscall)):
        more = Files("", AGAIN).toml(AGAIN, options.deck)
        outcome.add(await fault(slow, name, policy=policy, more=more, judge=functools.partial(Noisy, per_day)))
    return outcome


class Noisy:
    """Judges cells with noise: each says the same for ever and everywhere, and all together cost no more than a day has."""

    def __init__(self, per_day, run):
        self.per_day = per_day
        self.run = run
        self.destinations = {(name, dataset): Files(run.root, folder, dataset)
                             for name, folder in (("desk", "released"), (AGAIN, AGAIN)) for dataset in WINDOWS}
        self.told = {}  # by dataset, window and group: what was released first
        self.sent = None  # so many windows, when nothing more will come

    def expected(self, _windows):
        """Nobody knows how many windows will be paid for: the last stop waits for all that leaves."""
        return 0

    def cells_released(self):
        """How many different cells were released."""
        return len(self.told)

    def look(self):
        """Judges all that is released so far."""
        verdict = Verdict()
        for (name, dataset), destination in self.destinations.items():
            seen = set()
            for identity, read in destination.pieces().items():
                for line in read().splitlines():
                    self._cell(f"{identity} of {name}", dataset, json.loads(line), seen, verdict)
        windows = defaultdict(list)
        for (*window, _), line in self.told.items():
            windows[tuple(window)].append(line["records"])
        for window, told in windows.items():
            # What each cell lacks shows in their sum when the noise of one hides it.
            if len(told) == len(GROUPS):
                self._must_be_near(window, told, verdict)
        self._must_be_paid(windows.keys(), "were released", verdict)
        return verdict

    def _cell(self, file, dataset, line, seen, verdict):
        start = window_of(line["window_start"])
        cell = (dataset, start, GROUPS.index(line["group"]))
        line.pop("release")
        if cell in seen:
            verdict.duplicated += self._records(cell[:2])
            verdict.remarks.append(f"{file}: cell {cell} was released twice")
        seen.add(cell)
        first = self.told.setdefault(cell, line)
        if first != line:
            verdict.altered += 1
            verdict.remarks.append(f"{file}: cell {cell} was {first}, and is {line}")
        if window_of(line["window_end"]) != start + WINDOWS[dataset]:
            verdict.altered += 1
            verdict.remarks.append(f"{file}: cell {cell} is not of {WINDOWS[dataset]} s: {line}")
        self._must_be_near(cell[:2], [line["records"]], verdict)

    def _records(self, window):
        """How many records each cell of a window has."""
        dataset, start = window
        windows = WINDOWS[dataset]
        return CELL_RECORDS * (windows if self.sent is None else min(windows, self.sent - start))

    def _must_be_near(self, window, told, verdict):
        records = len(told) * self._records(window)
        if abs(sum(told) - records) > FAR_IN_DEVIATIONS * NOISE * WINDOWS[window[0]] * len(told) ** 0.5:
            verdict.altered += 1
            verdict.remarks.append(f"{len(told)} cells of window {window} have {records} records and say {sum(told)}")

    def _must_be_paid(self, windows, what, verdict):
        cost = RHO_PER_WINDOW * len(windows)
        if cost > self.per_day + 1e-9:
            verdict.altered += 1
            verdict.remarks.append(f"{len(windows)} windows {what}, which cost {cost:.2f}, and a day has {self.per_day}")

    def complete(self, windows):
        """The judgement of all, when `windows` windows were sent and nothing more will come: the ledger says of each what came of
        it, once, and of each that left that it was paid for."""
        self.sent = windows
        verdict = self.look()
        said = defaultdict(list)
        for entry in ledger.entries(self.run.gateway.command, self.run.deployment.disk / "journal" / "ledger", "privacy"):
            said[entry["dataset"], window_of(entry["window_start"])].append(entry)
        for window in sorted({(dataset, start) for dataset in WINDOWS for start in range(windows)} | said.keys()):
            costs = [entry["rho_billionths"] / 1e9 for entry in said[window]]
            right = [0 if entry["outcome"] == "spent" else RHO_PER_WINDOW for entry in said[window]]
            if len(costs) != 1 or costs != right or window[1] not in range(windows):
                verdict.altered += 1
                verdict.remarks.append(f"the ledger says of window {window}: {said[window]}")
        outcomes = {window: entries[0]["outcome"] for window, entries in said.items() if entries}
        noised = {window for window, outcome in outcomes.items() if outcome == "noised"}
        expected = {(*window, group) for window in noised for group in range(len(GROUPS))}
        unsaid, unreleased = sorted(self.told.keys() - expected), sorted(expected - self.told.keys())
        verdict.remarks += [f"cell {cell} left, and the ledger does not say that it got noise" for cell in unsaid]
        verdict.altered += len(unsaid)
        verdict.remarks += [f"cell {cell} got noise, and was never released" for cell in unreleased]
        verdict.lost += sum(self._records(cell[:2]) for cell in unreleased)
        self._must_be_paid({window for window, outcome in outcomes.items() if outcome != "spent"}, "were charged", verdict)
        came = Counter((dataset, outcome) for (dataset, _), outcome in outcomes.items())
        counts = (f"{count} windows of {dataset} {outcome}" for (dataset, outcome), count in sorted(came.items()))
        print(f"{self.run.name}: {', '.join(counts)}")
        if self.told and all(line["records"] == self._records(cell[:2]) for cell, line in self.told.items()):
            verdict.altered += 1
            verdict.remarks.append("no cell has noise")
        if missing := WINDOWS.keys() - {dataset for dataset, _, _ in self.told}:
            verdict.lost += 1
            verdict.remarks.append(f"nothing was released of {', '.join(sorted(missing))}: the run shows nothing")
        return verdict


def window_of(start):
    """The number of a window that begins at a time."""
    return round(datetime.fromisoformat(start).timestamp() * 1_000_000 - BASE_MICROS) // WINDOW_MICROS
