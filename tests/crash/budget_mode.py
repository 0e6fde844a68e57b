"""As `kill` and `syscall`, with a second destination whose budget of bytes does not suffice: paid for first, and each release in one form or none."""

import json
import subprocess
import time

import ledger
import modes
import syscalls
from deployment import DATASET, POLICY
from destinations import Files
from judge import Judge
from noise_mode import window_of
from workload import CELL_RECORDS, GROUPS

THRIFTY = "thrifty"
# The first windows leave whole, some with their largest row alone, and most are shed.
BYTES, PER_SECONDS = 30_000, 60
# So many windows need more bytes than come in meanwhile.
MANY_WINDOWS = 50
ACCEPTED = f"""
[destinations.{THRIFTY}]
country = "IE"
accepts = ["{DATASET}"]
"""
BUDGET = f"""
[destinations.{THRIFTY}.budget]
bytes      = {BYTES}
per        = "PT{PER_SECONDS}S"
when_short = ["top", "shed"]
top        = {{ rows = 1, by = "records" }}
"""


async def budget(options):
    """Kills a gateway, one of whose destinations has too few bytes: at random instants, then at system calls."""
    kinds = {"policy": POLICY + ACCEPTED, "more": Files("", THRIFTY).toml(THRIFTY) + BUDGET, "judge": Thrifty}
    outcome = await modes.kill(options, "budget", **kinds)
    outcome.add(await syscalls.syscall(options, "budget-syscall", **kinds))
    return outcome


class Thrifty(Judge):
    """Judges the destination without a budget as always, and of the other one: how many bytes left, of what, and what the ledger
    says of the rest."""

    def __init__(self, run):
        super().__init__(run.deployment.destination)
        self.run = run
        self.thrifty = Judge(Files(run.root, THRIFTY))
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
            elif lines not in (None, [None] * len(GROUPS), ["top"]):
                verdict.altered += 1
                verdict.remarks.append(f"window {window} left for {THRIFTY} as {lines}")
        most = self._most()
        shown = subprocess.run([*command, "journal", "inspect", "--json", str(journal)], capture_output=True, text=True, check=True)
        [left] = [one["left_bytes"] for one in json.loads(shown.stdout)["budgets"]["destinations"] if one["destination"] == THRIFTY]
        if left + self._written() > most:
            verdict.altered += 1
            verdict.remarks.append(f"{left} bytes are left and {self._written()} have left, and there were {most:.0f} at most")
        whole, smaller = (sum(lines == form for lines in forms.values()) for form in ([None] * len(GROUPS), ["top"]))
        print(f"{self.run.name}: {whole} windows left whole, {smaller} smaller, {len(shed)} were shed")
        if windows > MANY_WINDOWS and not (smaller or shed):
            verdict.lost += 1
            verdict.remarks.append("the bytes sufficed for all: the run shows nothing")
        return verdict
