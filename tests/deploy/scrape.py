#!/usr/bin/env python3
"""Measures what a scrape costs a gateway: processor time of its thread for health and metrics, bytes, series.

usage: scrape.py PROGRAM [--streams N] [--scrapes N]
"""

import argparse
import os
import re
import statistics
import tempfile
import time
from pathlib import Path

from watched import Failed, Gateway, get, records

# It makes its metrics anew at most five times a second.
EVERY_SECONDS = 0.25


def declare(gateway, streams):
    """Declares as many streams as these, each like the one of `bailiwick init`, with a dataset of its own."""
    file = gateway.folder / "policies" / "policy.toml"
    tables = re.split(r"(?m)^(?=\[+(?:streams\.events|datasets|\[shown|destinations)[^\n]*\]$)", file.read_text())
    head, tables = tables[0], tables[1:]
    each = [table for table in tables if not table.startswith("[destinations")]
    (destination,) = (table for table in tables if table.startswith("[destinations"))
    copies, datasets = [], []
    for number in range(streams):
        copy = re.sub(r"\bstreams\.events\b", f"streams.events_{number}", "".join(each).replace("events_by_country", f"counts_{number}"))
        copies.append(re.sub(r'(?m)^(stream +=) "events"', rf'\1 "events_{number}"', copy))
        datasets.append(f'"counts_{number}"')
    file.write_text(head + "".join(copies) + destination.replace('"events_by_country"', ", ".join(datasets)))


def thread(pid, name):
    """The folder of the process's thread of this name."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == name:
            return task
    raise Failed(f"there is no thread `{name}`")


def cpu_seconds(task):
    """The processor time of a thread."""
    return int((task / "schedstat").read_text().split()[0]) / 1e9


def measure(gateway, scrapes):
    """One line about scrapes of a gateway that runs."""
    task, cpu, took = thread(gateway.process.pid, "http"), [], []
    for _ in range(scrapes):
        time.sleep(EVERY_SECONDS)
        before, began = cpu_seconds(task), time.monotonic()
        code, text = get(gateway.http, "/metrics")
        took.append(time.monotonic() - began)
        # The thread has written the answer before it sleeps again.
        time.sleep(EVERY_SECONDS / 5)
        cpu.append(cpu_seconds(task) - before)
        if code != 200:
            raise Failed(f"a scrape was answered with {code}")
    series = sum(not line.startswith("#") for line in text.splitlines())
    return (f"{series:,} series, {len(text):,} bytes, {statistics.median(cpu) * 1e3:.2f} ms of processor time, "
            f"answered in {statistics.median(took) * 1e3:.1f} ms (median of {scrapes})")


def main():
    """Measures a gateway with one stream, and one with many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--scrapes", type=int, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bailiwick-scrape-") as root:
        for streams in (1, given.streams):
            with Gateway(os.path.abspath(given.program), None, Path(root), f"streams-{streams}") as gateway:
                declare(gateway, streams)
                gateway.start()
                gateway.send("office", records(3, 200), "--complete", stream="events_0")
                print(f"streams: {streams}: {measure(gateway, given.scrapes)}", flush=True)
                gateway.stop()


if __name__ == "__main__":
    main()
