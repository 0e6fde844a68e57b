"""As `kill`, of a dataset with differential privacy: noise is paid for before it is drawn, and drawn once."""

import dataclasses
import json
import re
from collections import defaultdict
from datetime import datetime

import ledger
import modes
from deployment import DATASET, POLICY
from destinations import Files
from judge import Verdict
from workload import BASE_MICROS, CELL_RECORDS, GROUPS, WINDOW_MICROS

# A day pays for ten windows. All windows of a run are of one day.
RHO_PER_WINDOW, RHO_PER_DAY = 0.02, 0.2
# The noise of a count of records has a standard deviation of 20.
FAR_FROM_TRUTH = 200
# So slow that a run sees many kills before the budget is spent.
RECORDS_PER_SECOND = 3_000.0
AGAIN = "again"

METRICS = re.compile(r"^metrics = \[.*?^\]\n", re.MULTILINE | re.DOTALL)
NOISY = f"""
release = "bounded"
metrics = [{{ name = "records", fn = "count" }}]

[datasets.{DATASET}.privacy]
mechanism      = "discrete_gaussian"
rho_per_window = {RHO_PER_WINDOW}
rho_per_day    = {RHO_PER_DAY}

[release.bounded]
records_per_contributor = 1
cells_per_contributor   = {len(GROUPS)}

[destinations.{AGAIN}]
country = "IE"
accepts = ["{DATASET}"]
"""


async def noise(options):
    """Kills a gateway that adds noise. Two destinations read the same releases, one after the other."""
    slow = dataclasses.replace(options, records_per_second=RECORDS_PER_SECOND, records=0)
    policy = METRICS.sub(lambda _: NOISY.lstrip(), POLICY, count=1)
    return await modes.kill(slow, "noise", policy=policy, more=Files("", AGAIN).toml(AGAIN), judge=Noisy)


class Noisy:
    """Judges cells with noise: each says the same for ever and everywhere, and all together cost no more than a day has."""

    def __init__(self, run):
        self.run = run
        self.destinations = {"desk": run.deployment.destination, AGAIN: Files(run.root, AGAIN)}
        self.told = {}  # by window and group: what was released first

    def expected(self, _windows):
        """Nobody knows how many windows will be paid for: the last stop waits for all that leaves."""
        return 0

    def cells_released(self):
        """How many different cells were released."""
        return len(self.told)

    def look(self):
        """Judges all that is released so far."""
        verdict = Verdict()
        for name, destination in self.destinations.items():
            seen = set()
            for identity, read in destination.pieces().items():
                for line in read().splitlines():
                    self._cell(name, identity, json.loads(line), seen, verdict)
        windows = {window for window, _ in self.told}
        if len(windows) * RHO_PER_WINDOW > RHO_PER_DAY + 1e-9:
            verdict.altered += 1
            verdict.remarks.append(f"{len(windows)} windows were released, and a day pays for {RHO_PER_DAY / RHO_PER_WINDOW:.0f}")
        return verdict

    def _cell(self, name, identity, line, seen, verdict):
        cell = (window_of(line["window_start"]), GROUPS.index(line["group"]))
        line.pop("release")
        if cell in seen:
            verdict.duplicated += CELL_RECORDS
            verdict.remarks.append(f"{identity}: cell {cell} was released twice to {name}")
        seen.add(cell)
        first = self.told.setdefault(cell, line)
        if first != line:
            verdict.altered += 1
            verdict.remarks.append(f"{identity}: cell {cell} was {first}, and {name} has {line}")
        if abs(line["records"] - CELL_RECORDS) > FAR_FROM_TRUTH:
            verdict.altered += 1
            verdict.remarks.append(f"{identity}: cell {cell} of {CELL_RECORDS} records says {line['records']}")

    def complete(self, windows):
        """The judgement of all, when `windows` windows were sent and nothing more will come: the ledger says of each what came of
        it, once, and of each that left that it was paid for."""
        verdict = self.look()
        deployment = self.run.deployment
        said = defaultdict(list)
        for entry in ledger.entries(self.run.gateway.command, deployment.disk / "journal" / "ledger", "privacy"):
            said[window_of(entry["window_start"])].append(entry)
        wrong = [window for window in range(windows) if len(said[window]) != 1]
        verdict.altered += len(wrong)
        verdict.remarks += [f"the ledger says {len(said[window])} times what window {window} cost" for window in wrong]
        noised = {window for window, entries in said.items() if entries[0]["outcome"] == "noised"}
        expected = {(window, group) for window in noised for group in range(len(GROUPS))}
        verdict.remarks += [f"cell {cell} left, and the ledger does not say that it got noise" for cell in sorted(self.told.keys() - expected)]
        verdict.altered += len(self.told.keys() - expected)
        verdict.remarks += [f"cell {cell} got noise, and was never released" for cell in sorted(expected - self.told.keys())]
        verdict.lost += CELL_RECORDS * len(expected - self.told.keys())
        cost = sum(entry["rho_billionths"] for entries in said.values() for entry in entries) / 1e9
        if cost > RHO_PER_DAY + 1e-9:
            verdict.altered += 1
            verdict.remarks.append(f"the windows of a day cost {cost}, and it has {RHO_PER_DAY}")
        if self.told and all(line["records"] == CELL_RECORDS for line in self.told.values()):
            verdict.altered += 1
            verdict.remarks.append("no cell has noise")
        if not self.told:
            verdict.lost += 1
            verdict.remarks.append("nothing was released: the run shows nothing")
        return verdict


def window_of(start):
    """The number of a window that begins at a time."""
    return round(datetime.fromisoformat(start).timestamp() * 1_000_000 - BASE_MICROS) // WINDOW_MICROS
