"""The records, as a function of their id (window, group, slot), so that every one can be found again in what comes out.

A cell (window, group) gets exactly one record per slot, each of another contributor, and is released with a
histogram that has a bucket per slot. Buckets are merged until k contributors are in each, so the number of records of some
neighbouring slots is right, too small (lost) or too large (doubled). `value` differs from
record to record, so the sums tell whether a record was altered or counted in a wrong cell.
"""

import numpy as np
import pyarrow

STREAM = "events"
GROUPS = tuple(f"g{number}" for number in range(8))
SLOTS = 256
CELL_RECORDS = SLOTS
WINDOW_RECORDS = SLOTS * len(GROUPS)
WINDOW_MICROS = 1_000_000
BASE_MICROS = 1_704_067_200_000_000  # 2024-01-01T00:00:00Z, the start of window 0
# A record's event time is never the start of a window, which leaves.
OFF_GRID_MICROS = 13
VALUE_MAX = 1024.0
# How many slots a batch may span: small batches for many commits, large ones for full segments.
BATCH_SLOTS = (2, 8, 32, 86)

CONTRIBUTORS = np.array([f"c{slot}" for slot in range(SLOTS)])
ALL_SLOTS = np.arange(SLOTS)


def window_start(window):
    """The window's first event time, in microseconds since the Unix epoch."""
    return BASE_MICROS + window * WINDOW_MICROS


def offset_micros(slots):
    """How far from the window's start the event times of slots are."""
    return slots * (WINDOW_MICROS // SLOTS) + OFF_GRID_MICROS


def values(window, group, slots):
    """The field `value` of records: multiples of 1/1024 below 1024, so that sums of them are exact."""
    mixed = (np.asarray(slots, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= np.uint64((window * 0xBF58476D1CE4E5B9 + group * 0x94D049BB133111EB) & 0xFFFF_FFFF_FFFF_FFFF)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(44)).astype(np.float64) / 1024.0


class Batch:
    """All groups' records of some slots of one window, in the order of their event times. `more` gives further columns of the
    slots, or others in the place of the usual ones; `stray` among them is not declared, and only Arrow can hold it."""

    def __init__(self, window, slots, more=None):
        self.window = window
        self.slots = slots
        self.more = more
        self.rows = len(slots) * len(GROUPS)

    def columns(self):
        """The records as columns, by name."""
        slot = np.repeat(self.slots, len(GROUPS))
        group = np.tile(np.arange(len(GROUPS)), len(self.slots))
        value = np.stack([values(self.window, number, self.slots) for number in range(len(GROUPS))], axis=1).reshape(-1)
        return {
            "at": window_start(self.window) + offset_micros(slot),
            "contributor": CONTRIBUTORS[slot],
            "country": np.full(self.rows, "DE"),
            "group": np.array(GROUPS)[group],
            "slot": slot,
            "value": value,
            **(self.more(self.slots, len(GROUPS)) if self.more else {}),
        }

    def arrow_ipc(self):
        """The records as Arrow IPC stream bytes."""
        arrays = {name: pyarrow.array(column) for name, column in self.columns().items()}
        arrays["at"] = arrays["at"].cast(pyarrow.timestamp("us", tz="UTC"))
        record_batch = pyarrow.RecordBatch.from_pydict(arrays)
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, record_batch.schema) as writer:
            writer.write_batch(record_batch)
        return sink.getvalue().to_pybytes()

    def rows_message(self, rows_pb2):
        """The records as an encoded `Rows` message of the stream."""
        return self._message(rows_pb2, self._records())

    def single_messages(self, rows_pb2):
        """The records as encoded `Rows` messages of one record each."""
        return [self._message(rows_pb2, [record]) for record in self._records()]

    def _records(self):
        columns = {name: column for name, column in self.columns().items() if name != "stray"}
        for values in zip(*(column.tolist() for column in columns.values()), strict=True):
            yield dict(zip(columns, values, strict=True))

    def _message(self, rows_pb2, records):
        message = rows_pb2.Rows()
        for record in records:
            at = record.pop("at")
            message.rows.add(**record).at.FromMicroseconds(at)
        return message.SerializeToString()


def share(producer, producers):
    """The slots that one of the producers sends: together they send every slot once."""
    return ALL_SLOTS[producer::producers]


def batches(window, slots, rng, more=None):
    """Cuts a producer's share of a window into batches of random size; event times ascend."""
    parts, start = [], 0
    while start < len(slots):
        length = rng.choice(BATCH_SLOTS)
        parts.append(Batch(window, slots[start : start + length], more))
        start += length
    return parts
