"""Judges everything that was released: every cell whole, right, and there once."""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from workload import ALL_SLOTS, BASE_MICROS, CELL_RECORDS, GROUPS, SLOTS, WINDOW_MICROS, values


@dataclass
class Verdict:
    """Records lost and counted twice; cells, lines or files that are not what was sent."""

    lost: int = 0
    altered: int = 0
    duplicated: int = 0
    remarks: list = field(default_factory=list)

    def add(self, other):
        """Takes in another verdict."""
        self.lost += other.lost
        self.altered += other.altered
        self.duplicated += other.duplicated
        self.remarks += other.remarks

    @property
    def clean(self):
        """Whether nothing was found."""
        return not (self.lost or self.altered or self.duplicated)


class Judge:
    """Reads what is released piece by piece and keeps its judgement of each piece. A piece that vanishes again, as
    a file can whose directory was not synced before a power loss, takes its judgement with it."""

    def __init__(self, destination):
        self.destination = destination
        self.cells = {}  # of each piece
        self.faults = {}  # of each piece that has some
        self.released = Counter()  # how often each (window, group) was

    @classmethod
    def of(cls, run):
        """The judge of a run."""
        return cls(run.deployment.destination)

    def look(self):
        """Judges the pieces that are new since the last look. What is missing is not judged yet."""
        pieces = self.destination.pieces()
        for gone in self.cells.keys() - pieces.keys():
            self.released.subtract(self.cells.pop(gone))
            self.faults.pop(gone, None)
        for identity in pieces.keys() - self.cells.keys():
            self.cells[identity], verdict = judge_piece(identity, pieces[identity]())
            self.released.update(self.cells[identity])
            if not verdict.clean:
                self.faults[identity] = verdict
        verdict = Verdict()
        for fault in self.faults.values():
            verdict.add(fault)
        if self.released.total() > self.cells_released():
            for cell, times in sorted(self.released.items()):
                if times > 1:
                    verdict.duplicated += CELL_RECORDS * (times - 1)
                    verdict.remarks.append(f"cell {cell} was released {times} times")
        return verdict

    def expected(self, windows):
        """How many cells there will be when so many windows were sent."""
        return windows * len(GROUPS)

    def cells_released(self):
        """How many different cells were released."""
        return len(+self.released)

    def complete(self, windows):
        """The judgement of all, when `windows` windows were sent and nothing more will come."""
        self.cells.clear()
        self.faults.clear()
        self.released.clear()
        verdict = self.look()
        expected = {(window, group) for window in range(windows) for group in range(len(GROUPS))}
        missing = sorted(expected - self.released.keys())
        verdict.lost += CELL_RECORDS * len(missing)
        verdict.remarks += [f"cell {cell} was never released" for cell in missing]
        beyond = sorted(self.released.keys() - expected)
        verdict.altered += len(beyond)
        verdict.remarks += [f"cell {cell} was released, but nothing was sent for it" for cell in beyond]
        return verdict


def judge_piece(identity, content):
    """The cells in a piece, and what is wrong with them."""
    cells, verdict = [], Verdict()
    if not content.endswith(b"\n"):
        verdict.altered += 1
        verdict.remarks.append(f"{identity}: the last line is torn")
    for number, line in enumerate(content.splitlines(), 1):
        try:
            cell, judgement = judge_line(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            verdict.altered += 1
            verdict.remarks.append(f"{identity}: line {number} is not a cell: {error!r}")
            continue
        cells.append(cell)
        verdict.add(judgement)
    return cells, verdict


def judge_line(line):
    """Which (window, group) a released cell is, and what is wrong with it."""
    start = datetime.fromisoformat(line["window_start"]).timestamp() * 1_000_000
    window, off_grid = divmod(round(start) - BASE_MICROS, WINDOW_MICROS)
    group = GROUPS.index(line["group"])
    verdict = Verdict()
    counts = slot_counts(line["slots"])
    if off_grid or counts is None:
        raise ValueError("a window off the grid, or another histogram than was asked for")
    lost = [slots for slots, times in counts if times < len(slots)]
    doubled = [slots for slots, times in counts if times > len(slots)]
    verdict.lost = sum(max(len(slots) - times, 0) for slots, times in counts)
    verdict.duplicated = sum(max(times - len(slots), 0) for slots, times in counts)
    if lost or doubled:
        verdict.remarks.append(f"cell {(window, group)}: lost from slots {brief(lost)}, counted more than once in {brief(doubled)}")
    # Against the histogram, not against the full cell: a lost record is not an altered one as well. Which one of some slots it
    # is, nobody tells, and so not what is left of the values.
    count = sum(times for _, times in counts)
    total = line["value_sum"] if lost or doubled else float(values(window, group, ALL_SLOTS).sum())
    expected = {"records": count, "value_sum": total, "value_mean": total / count if count else None}
    for name, want in expected.items():
        if want is None or not math.isclose(line[name], want, rel_tol=1e-9, abs_tol=1e-9):
            verdict.altered += 1
            verdict.remarks.append(f"cell {(window, group)}: {name} is {line[name]}, not {want}")
    return (window, group), verdict


def slot_counts(histogram):
    """How many records there are of which slots. Slots of too few contributors stand in the one before (None). None for anything
    that is no such histogram."""
    if len(histogram) != SLOTS or not isinstance(histogram[0], int):
        return None
    counts = []
    for slot, times in enumerate(histogram):
        if times is None:
            counts[-1][0].append(slot)
        elif isinstance(times, int) and times >= 0:
            counts.append(([slot], times))
        else:
            return None
    return counts


def brief(slots):
    """A list of groups of slots, cut short."""
    return f"{len(slots)}: {slots[:6]}{'...' if len(slots) > 6 else ''}" if slots else "none"
