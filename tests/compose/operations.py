"""Runs the commands of docs/operations.md, as they stand there, against a gateway of the stack."""

import re
import subprocess

from pandas import Timestamp

import images
from engine import Failed, client, tail, until
from hub import TOPICS, cells, expect, holds
from loads import Load
from stack import Stack

PAGE = images.REPOSITORY / "docs" / "operations.md"
# How many windows the readings are in.
WINDOWS = 24
GATEWAY, REGION = "eu-1", "eu"
# Runs before each block: `docker compose` is the Compose that is here, with the images of CI.
SHIM = """
set -euo pipefail
docker() {{
    if [ "$1" = compose ]; then shift; {compose} "$@"; else command {docker} "$@"; fi
}}
"""
# Of a field that ONNX does not use, so that the model is another file and scores as before.
DOC_STRING = b"\x32\x04next"


class Procedures:
    """The procedures, by their headings."""

    def __init__(self, stack: Stack, say):
        self.stack, self.say = stack, say
        section = PAGE.read_text().partition("\n## Procedures\n")[2]
        self.blocks = dict(re.findall(r"^### ([^\n]+)\n.*?```sh\n(.*?)```", section, re.MULTILINE | re.DOTALL))
        self.done = set()

    def run(self, name, healthy=True):
        """Runs one; what it printed."""
        text = self.blocks[name].replace("bailiwick:next", images.NEXT).replace("bailiwick_", f"{self.stack.project}_")
        shim = SHIM.format(compose=" ".join(self.stack.command), docker=client())
        done = subprocess.run(["bash", "-c", shim + text], check=False, capture_output=True, cwd=self.stack.root,
                              env=self.stack.environment, stdin=subprocess.DEVNULL, timeout=900)
        said = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
        if done.returncode:
            raise Failed(f"docs/operations.md, {name}: ended with {done.returncode}: {tail(said)}")
        if healthy:
            self.stack.healthy(GATEWAY)
        self.done.add(name)
        self.say(f"docs/operations.md: {name}")
        return said

    def all(self, example_of, sent_before):
        """Every procedure of the page, while readings and deliveries stream in to a gateway that had none of them before."""
        # Each part ends at the beginning of a window, which a silence of some minutes does not close. Nothing is sent between the
        # backup and the restoring: it would be lost, as the page says.
        parts = [(5.2, ["Back up", "Restore or move"]), (10.2, ["Change a key of the journal"]), (15.2, ["Upgrade and roll back"])]
        since, accepted = 0.0, 0
        for windows, names in parts:
            accepted += self.send("readings", since, windows / WINDOWS)
            since = windows / WINDOWS
            for name in names:
                self.run(name)
        self.policy()
        accepted += self.send("readings", since, 1.0)
        expected = expect(example_of["readings"], GATEWAY)
        if accepted != expected.records:
            raise Failed(f"{GATEWAY} accepted {accepted} readings, and {expected.records} are its own")
        holds(self.stack, "readings", [*sent_before, expected])
        self.window()
        self.model()
        said = self.run("Remove a gateway", healthy=False)
        if "\n0\n" not in f"\n{said}":
            raise Failed(f"a gateway that was removed did not release everything: {tail(said)}")
        if missed := self.blocks.keys() - self.done:
            raise Failed(f"docs/operations.md: nothing runs {', '.join(sorted(missed))}")

    def send(self, stream, since, upto):
        """Sends a part of an example's records: how many were accepted."""
        return Load(self.stack, REGION, GATEWAY, stream, since=since, upto=upto).finish()

    def policy(self):
        """Another policy comes into force without a stop; a crash after it is still mended by Docker."""
        policy = self.stack.root / "deploy" / REGION / "policies" / "policy.toml"
        policy.write_text(policy.read_text().replace("producers/watch\"]", "producers/watch\", \"spiffe://eu.bailiwick.test/producers/other\"]"))
        self.run("Change a policy")
        until(lambda: "other policies are in force" in self.log(), "other policies are in force")
        before = self.stack.restarts(GATEWAY)
        self.stack.kill(GATEWAY)
        until(lambda: self.stack.restarts(GATEWAY) > before, f"{GATEWAY} is started again after a SIGHUP and a crash")
        self.stack.healthy(GATEWAY)

    def window(self):
        """The windows of deliveries are half as long from then on, and the open ones have left."""
        self.send("deliveries", 0.0, 0.4)
        self.run("Change a window")
        self.send("deliveries", 0.4, 1.0)

        def lengths():
            own = [cell for cell in cells(self.stack, TOPICS["deliveries"]) if cell["gateway"] == GATEWAY]
            return {hours(cell) for cell in own} == {24.0, 12.0}

        until(lengths, f"{GATEWAY} releases windows of 24 and of 12 hours")

    def model(self):
        """Another file of a model, with its hash in the policy."""
        old = (self.stack.root / "examples" / "delivery-eta" / "model.onnx").read_bytes()
        (self.stack.root / "model-next.onnx").write_bytes(old + DOC_STRING)
        self.run("Change a model")

    def log(self):
        """All of the gateway's log."""
        return self.stack.compose("logs", "--no-color", GATEWAY)


def hours(cell):
    """How long a cell's window is."""
    return (Timestamp(cell["window_end"]) - Timestamp(cell["window_start"])).total_seconds() / 3600
