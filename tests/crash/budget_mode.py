"""As `kill` and `syscall`, with a second destination whose budget of bytes does not suffice: paid for first, and each release in
one form or none. What leaves as what has changed says the whole to who follows it."""

import dataclasses
import functools
import json
import math
import subprocess
import time
from collections import Counter, defaultdict

import ledger
import modes
import syscalls
from deployment import DATASET, POLICY
from destinations import Files
from judge import Judge, Verdict
from noise_mode import window_of
from workload import ALL_SLOTS, CELL_RECORDS, GROUPS, values

THRIFTY, ROUNDED = "thrifty", "events_rounded"
# The first windows leave whole, and others after pauses; between them some leave as what has changed, some with their largest
# row alone, and some are shed.
BYTES, PER_SECONDS = 20_000, 6
# The bytes are measured for this load: with a greater one, none are left for what has changed.
RECORDS_PER_SECOND, LOAD_MS = 30_000.0, 800
# So many windows need more bytes than come in meanwhile.
MANY_WINDOWS = 50
# Of so many some leave as what has changed, unless the gateway is killed right after each start.
MANY_TO_CHANGE = 200
# Of so few digits much stays as it is from a window to the next.
DIGITS = 2
ACCEPTED = f"""
[datasets.{ROUNDED}]
stream           = "events"
window           = {{ size = "PT1S", grace = "PT1S" }}
min_contributors = 10
group_by         = [{{ field = "group", domain = {json.dumps(GROUPS)} }}]
metrics = [
  {{ name = "records", fn = "count" }},
  {{ name = "value_sum", fn = "sum", field = "value", digits = {DIGITS} }},
]

[destinations.{THRIFTY}]
country = "IE"
accepts = ["{ROUNDED}"]

[[shown]]
conditions = ["data.anonymity_assessed"]
for        = {{ dataset = "{ROUNDED}" }}
by         = "nobody"
ref        = "a test"
"""
BUDGET = f"""
[destinations.{THRIFTY}.budget]
bytes      = {BYTES}
per        = "PT{PER_SECONDS}S"
when_short = ["on_change", "top", "shed"]
top        = {{ rows = 1, by = "records" }}
"""


async def budget(options):
    """Kills a gateway, one of whose destinations has too few bytes: at random instants, then at system calls."""
    # Always JSON lines: how many bytes there are is measured for them, and in other formats so few changes take no fewer.
    kinds = {"policy": POLICY + ACCEPTED, "more": Files("", THRIFTY).toml(THRIFTY, None) + BUDGET, "judge": Thrifty}
    load = {"records_per_second": min(options.records_per_second, RECORDS_PER_SECOND), "load_ms": min(options.load_ms, LOAD_MS)}
    options = dataclasses.replace(options, **load)
    outcome = await modes.kill(options, "budget", **kinds)
    outcome.add(await syscalls.syscall(options, "budget-syscall", **kinds))
    return outcome


class Follower:
    """Hears what a destination is told, and has nothing but that. In files it goes by `since`, not by their names."""

    def __init__(self, destination):
        self.destination = destination
        self.releases = {}  # by id: the lines of each, in order

    def look(self):
        """Reads all that is there, and what is wrong with it: each release says of each group what its window holds."""
        self.releases, windows = {}, Counter()
        for read in self.destination.pieces().values():
            of_piece = defaultdict(list)
            for line in map(json.loads, read().splitlines()):
                of_piece[line["release"]].append(line)
            self.releases.update(of_piece)
            windows.update(window_of(lines[0]["window_start"]) for lines in of_piece.values())
        verdict, tables = Verdict(), {}
        for window, times in windows.items():
            if times > 1:
                verdict.duplicated += CELL_RECORDS * len(GROUPS) * (times - 1)
                verdict.remarks.append(f"window {window} left {times} times for {THRIFTY}")
        for release, lines in self.releases.items():
            window, form = window_of(lines[0]["window_start"]), lines[0].get("degraded")
            table = self._table(release, tables)
            whole = {group: told(window, number) for number, group in enumerate(GROUPS)}
            wanted = {GROUPS[0]: whole[GROUPS[0]]} if form == "top" else whole
            if table is None:
                verdict.lost += CELL_RECORDS * len(GROUPS)
                verdict.remarks.append(f"window {window} left as what has changed since a release that {THRIFTY} does not have")
            elif table != wanted:
                verdict.altered += 1
                verdict.remarks.append(f"window {window} left for {THRIFTY} as {form}, and says {table} in the place of {wanted}")
        return verdict

    def _table(self, release, tables):
        """The table that a receiver has once it has heard of a release. None if it lacks the one that this is told since."""
        chain = []
        while release in self.releases and release not in tables:
            chain.append(release)
            release = self.releases[release][0].get("since")
        for release in reversed(chain):
            lines = self.releases[release]
            before = tables.get(lines[0]["since"]) if "since" in lines[0] else {}
            tables[release] = None if before is None else changed(before, lines)
        return tables[release]


def changed(table, lines):
    """A table with what a release says."""
    table = dict(table)
    for line in lines:
        if line.get("change") == "gone":
            del table[line["group"]]
        else:
            table[line["group"]] = (line["records"], line["value_sum"])
    return table


@functools.cache
def told(window, group):
    """What is told of a cell: how many records it has, and their sum to so many digits."""
    total = float(values(window, group, ALL_SLOTS).sum())
    unit = 10 ** (math.floor(math.log10(total)) + 1 - DIGITS)
    return CELL_RECORDS, float(round(total / unit) * unit)


class Thrifty(Judge):
    """Judges the destination without a budget as always, and of the other one: how many bytes left, of what, what a receiver makes
    of it, and what the ledger says of the rest."""

    def __init__(self, run):
        super().__init__(run.deployment.destination)
        self.run = run
        self.thrifty = Follower(Files(run.root, THRIFTY, ROUNDED))
        self.began = time.monotonic()

    def look(self):
        """Judges all that is released so far."""
        verdict = super().look()
        written = self._written()
        verdict.add(self.thrifty.look())
        if written > (most := self._most()):
            verdict.altered += 1
            verdict.remarks.append(f"{written} bytes left for {THRIFTY}, and there were {most:.0f} at most")
        return verdict

    def _written(self):
        """How many bytes left for the destination with the budget."""
        return sum(size for _, size, _ in self.thrifty.destination.pieces())

    def _most(self):
        """How many bytes have come into the bucket at most."""
        return BYTES + (time.monotonic() - self.began) * BYTES / PER_SECONDS

    def complete(self, windows):
        """The judgement of all, when `windows` windows were sent and nothing more will come: each left or the ledger says that it was
        shed, and what is left of the bytes was not sent."""
        verdict = super().complete(windows)
        command, journal = self.run.gateway.command, self.run.deployment.disk / "journal"
        forms = {}
        for read in self.thrifty.destination.pieces().values():
            for line in map(json.loads, read().splitlines()):
                forms.setdefault(window_of(line["window_start"]), []).append(line.get("degraded"))
        said = ledger.entries(command, journal / "ledger", "shed")
        shed = {window_of(entry["window_start"]) for entry in said if entry["destination"] == THRIFTY}
        for window in range(windows):
            lines = forms.get(window)
            if lines is None and window not in shed:
                verdict.lost += CELL_RECORDS * len(GROUPS)
                verdict.remarks.append(f"window {window} did not leave for {THRIFTY}, and the ledger does not say that it was shed")
            elif lines is not None and window in shed:
                verdict.altered += 1
                verdict.remarks.append(f"window {window} left for {THRIFTY}, and the ledger says that it was shed")
            elif lines is not None and not is_form(lines):
                verdict.altered += 1
                verdict.remarks.append(f"window {window} left for {THRIFTY} as {lines}")
        most = self._most()
        shown = subprocess.run([*command, "journal", "inspect", "--json", str(journal)], capture_output=True, text=True, check=True)
        [left] = [one["left_bytes"] for one in json.loads(shown.stdout)["budgets"]["destinations"] if one["destination"] == THRIFTY]
        if left + self._written() > most:
            verdict.altered += 1
            verdict.remarks.append(f"{left} bytes are left and {self._written()} have left, and there were {most:.0f} at most")
        left = Counter(lines[0] for lines in forms.values())
        print(f"{self.run.name}: {left[None]} windows left whole, {left['on_change']} as what has changed, {left['top']} as their "
              f"largest row, {len(shed)} were shed")
        if windows > MANY_WINDOWS and not (left["top"] or shed):
            verdict.lost += 1
            verdict.remarks.append("the bytes sufficed for all: the run shows nothing")
        if windows > MANY_TO_CHANGE and not left["on_change"] and self.run.name == "budget":
            verdict.lost += 1
            verdict.remarks.append("nothing left as what has changed: the run shows nothing of it")
        return verdict


def is_form(lines):
    """Whether a window has left in one form, by what its lines say of that."""
    is_changed = set(lines) == {"on_change"} and len(lines) < len(GROUPS)
    return is_changed or lines in ([None] * len(GROUPS), ["top"])
