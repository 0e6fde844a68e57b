"""As `kill` and `syscall`, with a second destination that gets a dataset of longer windows: each sum has the records of all its windows, once."""

import json
import math
from collections import Counter
from datetime import datetime

import modes
import syscalls
from deployment import DATASET, POLICY
from destinations import Files
from judge import Judge, Verdict
from run import Outcome
from workload import ALL_SLOTS, BASE_MICROS, GROUPS, WINDOW_MICROS, WINDOW_RECORDS, values

HUB, SUMS = "hub", "events_in_fives"
# So many windows are added up. The first window begins one of them.
WINDOWS = 5
assert BASE_MICROS % (WINDOWS * WINDOW_MICROS) == 0
ADDED_UP = f"""
[datasets.{SUMS}]
stream           = "events"
coarser_than     = "{DATASET}"
window           = {{ size = "PT{WINDOWS}S", grace = "PT1S" }}
min_contributors = 10
metrics = [
  {{ name = "records", fn = "count" }},
  {{ name = "value_sum", fn = "sum", field = "value" }},
]

[destinations.{HUB}]
country = "IE"
accepts = ["{SUMS}"]
"""


async def longer(options):
    """Kills a gateway that adds up rows over windows: at random instants, then at system calls."""
    outcome = Outcome()
    for name, fault in (("longer", modes.kill), ("longer-syscall", syscalls.syscall)):
        more = Files("", HUB).toml(HUB, options.deck)
        outcome.add(await fault(options, name, policy=POLICY + ADDED_UP, more=more, judge=Sums))
    return outcome


class Sums(Judge):
    """Judges the finer dataset as always, and the sums of what was sent in each longer window."""

    def __init__(self, run):
        super().__init__(run.deployment.destination)
        self.hub = Files(run.root, HUB, SUMS)
        self.sent = None  # so many windows, when nothing more will come

    def look(self):
        """Judges all that is released so far. What has left is whole, but for the last sum."""
        verdict, left = super().look(), Counter()
        for read in self.hub.pieces().values():
            for line in map(json.loads, read().splitlines()):
                first, judgement = self._judged(line)
                verdict.add(judgement)
                left[first] += 1
        for first, times in sorted(left.items()):
            if times > 1:
                verdict.duplicated += WINDOW_RECORDS * (times - 1)
                verdict.remarks.append(f"the sum from window {first} on left {times} times")
        missing = [first for first in range(0, self.sent or 0, WINDOWS) if first not in left]
        verdict.lost += WINDOW_RECORDS * len(missing)
        verdict.remarks += [f"the sum from window {first} on never left" for first in missing]
        return verdict

    def complete(self, windows):
        """The judgement of all, when `windows` windows were sent and nothing more will come."""
        self.sent = windows
        return super().complete(windows)

    def _judged(self, line):
        """The first window of a sum, and what is wrong with it."""
        start = datetime.fromisoformat(line["window_start"]).timestamp() * 1_000_000
        first, off_grid = divmod(round(start) - BASE_MICROS, WINDOW_MICROS)
        end = first + WINDOWS if self.sent is None else min(first + WINDOWS, self.sent)
        wanted, records = (end - first) * WINDOW_RECORDS, line["records"]
        total = sum(float(values(window, group, ALL_SLOTS).sum()) for window in range(first, end) for group in range(len(GROUPS)))
        verdict = Verdict(lost=max(wanted - records, 0), duplicated=max(records - wanted, 0))
        if off_grid or first % WINDOWS or (verdict.clean and not math.isclose(line["value_sum"], total, rel_tol=1e-9)):
            verdict.altered += 1
        if not verdict.clean:
            verdict.remarks.append(f"the sum from window {first} on is {line['value_sum']} of {records} records, not {total} of {wanted}")
        return first, verdict
