"""Whether the ledger said of everything that left, before it left, that it would."""

import json
import subprocess

from destinations import Files


class NotSaid(Exception):
    """Something left without an intent, or the ledger is not as it was signed."""


def entries(command, ledger, kind):
    """The entries of a kind that a ledger has."""
    shown = subprocess.run([*command, "ledger", "show", "--json", "--kind", kind, "--directory", str(ledger)],
                           capture_output=True, text=True, check=False)
    if shown.returncode != 0:
        raise NotSaid(f"the ledger is not as it was signed: {shown.stdout[-600:]}{shown.stderr[-600:]}")
    return json.loads(shown.stdout)["entries"]


def check(command, deployment):
    """Compares what is released so far with the ledger, which is read after it. Of files only: what a broker has is read
    too late to know what was there first."""
    if len(command) > 1 or not isinstance(deployment.destination, Files):
        return  # the stand-in has no ledger
    pieces = deployment.destination.pieces().values()
    released = {json.loads(line)["release"] for read in pieces for line in read().splitlines()}
    ledger = deployment.disk / "journal" / "ledger"
    if not released and not (ledger / "verifier").exists():
        return
    intended = {entry["release"] for entry in entries(command, ledger, "intent")}
    if missing := released - intended:
        raise NotSaid(f"{len(missing)} of {len(released)} releases left without an intent, such as {sorted(missing)[0]}")
