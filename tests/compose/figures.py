"""What a gateway of the stack takes, for docs/deploy.md."""

import json
import os
from datetime import datetime
from pathlib import Path


def of(stack, gateway):
    """How long it took from its start until it served, its memory, and its processor time so far."""
    pid, began = stack.process(gateway)
    memory = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    return (f"{gateway}: served {until_served(stack.log(gateway), began):.2f} s after its start, {int(memory.split()[1]) / 1024:.0f} MiB "
            f"resident, {seconds:.2f} s of processor")


def until_served(log, began):
    """The seconds from the start of the process until the log said that it serves."""
    for line in log.splitlines():
        if line.startswith("{") and (said := json.loads(line)).get("message") == "serving":
            seconds = (datetime.fromisoformat(said["time"]) - began).total_seconds()
            if seconds >= 0:
                return seconds
    return float("nan")
