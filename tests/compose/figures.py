"""What a gateway in its container takes, for docs/deploy.md."""

import json
import os
from datetime import datetime
from pathlib import Path

from engine import docker


def of(stack, gateway):
    """How long it took from its start until it served, its memory, and its processor time so far."""
    state = stack.inspect(gateway)["State"]
    began = datetime.fromisoformat(state["StartedAt"][:26].rstrip("Z") + "+00:00")
    served = until_served(stack, gateway, state["StartedAt"], began)
    memory = next(line for line in Path(f"/proc/{state['Pid']}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    times = Path(f"/proc/{state['Pid']}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    return f"{gateway}: served {served:.2f} s after its start, {int(memory.split()[1]) / 1024:.0f} MiB resident, {seconds:.2f} s of processor"


def until_served(stack, gateway, since, began):
    """The seconds from the start of the container until the log said that it serves."""
    done = docker("logs", "--since", since, stack.container(gateway), check=False)
    for line in done.stderr.splitlines():
        if line.startswith("{") and (said := json.loads(line)).get("message") == "serving":
            return (datetime.fromisoformat(said["time"]) - began).total_seconds()
    return float("nan")
