"""The gateway as a process: started, waited for, killed."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

READY_WITHIN_SECONDS = 180.0
STOP_WITHIN_SECONDS = 120.0
STOPPED_WITHIN_SECONDS = 60.0


class DidNotComeBack(Exception):
    """The gateway did not get ready, or went down by itself."""


async def until(holds, what, within, every=0.005):
    """Waits until a condition holds. Raises TimeoutError, naming it, when it does not in time."""
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s: {what}")
        await asyncio.sleep(every)


class Gateway:
    """One gateway at a time, of one deployment. Its log is kept in the deployment's `gateway.log`."""

    def __init__(self, binary, deployment, environment=None):
        self.command = [sys.executable, binary] if binary.endswith(".py") else [binary]
        self.deployment = deployment
        self.environment = {**os.environ, "NO_COLOR": "1", **(environment or {})}
        self.process = None
        self.ready = asyncio.Event()
        self.seconds_to_ready = []
        self._reader = None

    async def spawn(self, wrapper=()):
        """Starts it, perhaps under a wrapper such as strace. Does not wait."""
        self.ready.clear()
        arguments = [*wrapper, *self.command, "run", "-c", str(self.deployment.config), "--log-format", "text"]
        started = time.monotonic()
        self.process = await asyncio.create_subprocess_exec(
            *arguments, env=self.environment, start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
        self._reader = asyncio.create_task(self._read_log(self.process, started))

    async def start(self, wrapper=()):
        """Starts it and waits until it serves."""
        await self.spawn(wrapper)
        await self.until_ready()

    async def until_ready(self):
        """Waits until it serves."""
        try:
            await until(lambda: self.ready.is_set() or not self.running, "the gateway is ready", READY_WITHIN_SECONDS)
        except TimeoutError as error:
            raise DidNotComeBack(str(error)) from error
        if not self.ready.is_set():
            raise DidNotComeBack(f"the gateway ended with {self.process.returncode}: {self.last_lines()}")

    @property
    def running(self):
        """Whether the process is there."""
        return self.process is not None and self.process.returncode is None

    async def kill(self):
        """SIGKILL, to the gateway itself and then to what it was started under."""
        if self.process is None:
            return
        for pid in [*descendants(self.process.pid), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        await self.ended()

    async def freeze(self):
        """SIGSTOP; waits until no thread of it can do anything any more. One that waits for the disk (D) stops too
        before it comes back from the kernel."""
        if not self.running:
            return
        self.process.send_signal(signal.SIGSTOP)
        pid, stopped = self.process.pid, set("TtDZX")
        await until(lambda: thread_states(pid) <= stopped, "every thread is stopped", STOPPED_WITHIN_SECONDS, every=0.0005)

    async def stop(self):
        """SIGTERM; waits until it has ended by itself."""
        self.process.terminate()
        try:
            await asyncio.wait_for(self.ended(), STOP_WITHIN_SECONDS)
        except TimeoutError as error:
            raise DidNotComeBack(f"the gateway did not stop within {STOP_WITHIN_SECONDS:g} s") from error
        if self.process.returncode != 0:
            raise DidNotComeBack(f"the gateway ended a stop with {self.process.returncode}: {self.last_lines()}")

    async def ended(self):
        """Waits until the process has ended and its log is read."""
        await self.process.wait()
        await self._reader

    def last_lines(self, count=6):
        """The end of its log."""
        return " | ".join(self.deployment.log.read_text(errors="replace").splitlines()[-count:])

    def log_lines(self, *words):
        """The lines of its log that hold any of the words."""
        if not self.deployment.log.exists():
            return []
        with self.deployment.log.open(errors="replace") as log:
            return [line.rstrip() for line in log if any(word in line for word in words)]

    async def _read_log(self, process, started):
        with self.deployment.log.open("ab", buffering=0) as log:
            async for line in process.stderr:
                log.write(line)
                if b"address=" in line and not self.ready.is_set():
                    self.seconds_to_ready.append(time.monotonic() - started)
                    self.ready.set()


def thread_states(pid):
    """The states of a process's threads, as /proc names them."""
    states = set()
    for status in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.add(status.read_text().rpartition(")")[2].split()[0])
        except OSError:
            continue
    return states


def descendants(pid):
    """The processes below a process, the lowest first."""
    children = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(status.parent.name))
    found = []
    for child in children.get(pid, []):
        found += [*descendants(child), child]
    return found
