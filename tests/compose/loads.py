"""Loads: an example's records, sent by `bailiwick send` from inside a region, in parts, while things happen."""

import gzip
import re

from engine import Failed, tail
from images import REPOSITORY

STREAMS = {"payments": "card-fraud", "readings": "predictive-maintenance", "deliveries": "delivery-eta"}
SENT_WITHIN_SECONDS = 900


def lines(stream):
    """An example's data: the header, and the records."""
    with gzip.open(REPOSITORY / "examples" / STREAMS[stream] / "data.csv.gz", "rt") as file:
        header, *records = file.read().splitlines(keepends=True)
    return header, records


class Load:
    """One stream's records on their way to one gateway: all of them, or those between two shares of them."""

    def __init__(self, stack, region, gateway, stream, since=0.0, upto=1.0):
        self.name = f"{stream} to {gateway}"
        header, records = lines(stream)
        self.records = records[round(len(records) * since) : round(len(records) * upto)]
        # No earlier event time will come once the last record was sent.
        promise = ["--complete"] if upto == 1.0 else []
        self.process = stack.send(region, stream, gateway, "--format", "csv", "--batch", "32", *promise, "-")
        self.process.stdin.write(header)
        self.given = 0

    def give(self, share):
        """Hands over the records up to this share of them."""
        upto = round(len(self.records) * share)
        self.process.stdin.writelines(self.records[self.given : upto])
        self.process.stdin.flush()
        self.given = upto

    def finish(self):
        """Hands over the rest, waits until everything was answered, and gives the number of records that were accepted."""
        self.give(1.0)
        said, _ = self.process.communicate(timeout=SENT_WITHIN_SECONDS)
        found = re.search(r"([\d,]+) accepted", said)
        if self.process.returncode or not found:
            raise Failed(f"{self.name}: send ended with {self.process.returncode}: {tail(said)}")
        return int(found[1].replace(",", ""))
