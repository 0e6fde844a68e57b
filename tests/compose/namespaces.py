"""docker-compose.yml without Docker: each service in namespaces of its own, with the networks, files, user, environment, health and
order that the file says. What Docker alone gives is not there: limits of memory and processor, and the procedures of
docs/operations.md, which are commands of Docker."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import declared
from engine import CannotStart, Failed, run, tail, until
from images import REPOSITORY
from networks import Networks
from trees import Trees

HEALTHY_WITHIN_SECONDS = 300.0
STOP_WITHIN_SECONDS = 120.0
PAUSE_SECONDS = 0.1


class Namespaces:
    """The services of docker-compose.yml. The same steps run on it as on stack.Stack."""

    THIS, NEXT = "this", "next"

    def __init__(self, program, kafka_home, scratch):
        if os.geteuid():
            raise CannotStart("network namespaces need root")
        for needed in ("ip", "tcpdump"):
            if shutil.which(needed) is None:
                raise CannotStart(f"there is no `{needed}` (scripts/setup netns)")
        self.prefix, self.scratch = f"bailiwick-{os.getpid()}", scratch
        self.root = scratch / "deployment"
        for folder in ("deploy", "examples"):
            shutil.copytree(REPOSITORY / folder, self.root / folder)
        prometheus = os.environ.get("BAILIWICK_TEST_PROMETHEUS")
        if not prometheus:
            raise CannotStart("there is no Prometheus (BAILIWICK_TEST_PROMETHEUS; scripts/setup tests)")
        self.text = (REPOSITORY / "docker-compose.yml").read_text()
        self.services = declared.services(self.text)
        self.trees = Trees(program, kafka_home, prometheus, scratch, self.root)
        self.logs = scratch / "logs"
        self.logs.mkdir()
        self.running, self.networks = {}, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.down()

    def up(self, *services):
        """Starts services, and what they wait for."""
        if self.networks is None:
            self.lay()
        for name in services:
            service = self.services[name]
            if name in self.running:
                continue
            for other, condition in service.waits_for.items():
                self.up(other)
                {"service_healthy": self.healthy, "service_completed_successfully": self.ended}[condition](other)
            self.start(name)

    def lay(self):
        """Lays the networks, and makes the trees."""
        self.networks = Networks(self.prefix, declared.networks(self.text))
        on = {name: [network for network in service.networks if network in self.networks.names] for name, service in self.services.items()}
        for name, networks in on.items():
            self.networks.add(name, networks)
        for name, networks in on.items():
            here = [(self.networks.address(other, network), other) for other in on for network in networks if network in on[other]]
            hosts = "".join(f"{address} {other}\n" for address, other in [("127.0.0.1", "localhost"), *here])
            self.trees.make(self.services[name], hosts)

    def start(self, name):
        """Starts one service."""
        service = self.services[name]
        command = self.inside(name, [*service.entrypoint, *service.command])
        self.running[name] = Process(command, self.logs / name, service.is_restarted)

    def inside(self, name, command, environment=()):
        """The command line that runs a command as a service would."""
        return [*self.networks.inside(name), *self.trees.command(self.services[name], command, environment)]

    def stop(self, *services):
        """Stops services as a person would: the code that each ended with."""
        return {name: self.running.pop(name).stop() for name in services}

    def down(self):
        """Stops everything and removes it. What is in volumes stays."""
        for name in [*self.running]:
            self.stop(name)
        if self.networks is not None:
            self.networks.close()
            self.networks = None

    def roll(self, name, build):
        """Stops a service and starts it from another build, as an upgrade does."""
        self.stop(name)
        hosts = (self.scratch / "trees" / name / "etc/hosts").read_text()
        self.trees.make(self.services[name], hosts, build)
        self.start(name)
        self.healthy(name)
        runs = Path(f"/proc/{self.running[name].process.pid}/exe")
        if not os.path.samefile(runs, self.trees.gateways[build] / "usr/bin/bailiwick"):
            raise Failed(f"{name} does not run the build `{build}`")

    def healthy(self, *services):
        """Waits until the services are healthy, as their images' or compose's healthcheck says."""
        for name in services:
            def is_healthy(name=name):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return run(*self.inside(name, self.services[name].health), check=False, timeout=30).returncode == 0
                return False
            try:
                until(is_healthy, f"{name} is healthy", HEALTHY_WITHIN_SECONDS)
            except Failed as error:
                raise Failed(f"{error}: {tail(self.log(name))}") from error

    def ended(self, name):
        """Waits for a service that does one thing and ends. Raises Failed when it failed."""
        code = self.running[name].ended(HEALTHY_WITHIN_SECONDS)
        if code:
            raise Failed(f"{name} ended with {code}: {tail(self.log(name))}")

    def kill(self, name):
        """SIGKILL, as a crash."""
        os.kill(self.running[name].process.pid, signal.SIGKILL)

    def restarts(self, name):
        """How often it was started again."""
        return self.running[name].restarts

    def cut(self, name, network):
        """Pulls the service's plug out of a network."""
        self.networks.plug(name, network, False)

    def join(self, name, network):
        """Puts it in again."""
        self.networks.plug(name, network, True)

    def addresses(self, name):
        """All network addresses of a service."""
        return self.networks.addresses(name)

    def tcpdump(self, network):
        """What captures everything on a network."""
        return ["ip", "netns", "exec", self.networks.switch, "tcpdump", "-i", network]

    def execute(self, name, *command):
        """Runs a command beside a service that runs: what it printed, whatever it ended with."""
        return run(*self.inside(name, command), check=False).stdout

    def once(self, name, *command, environment=()):
        """Runs a command in the place of a service: what it printed."""
        return run(*self.inside(name, command, environment))

    def send(self, region, *arguments):
        """Starts a load of one region that reads records from its stdin."""
        return subprocess.Popen(self.inside(f"{region}-load", ["load", *arguments]), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def process(self, name):
        """A service's process: its id, and when it was started."""
        running = self.running[name]
        return running.process.pid, running.began

    def log(self, name):
        """All of a service's log since its tree was made."""
        return (self.logs / name).read_text(errors="replace")


class Process:
    """A service's process, started again when it ends, if it is to be. A thread sees to it, and lives as long: the process ends
    with the thread."""

    def __init__(self, command, log, is_restarted):
        self.command, self.log, self.is_restarted = command, log, is_restarted
        self.process = self.began = self.code = None
        self.restarts, self.is_ending = 0, False
        self.lock, self.has_begun = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self.keep, daemon=True)
        self.thread.start()
        self.has_begun.wait()

    def keep(self):
        """Starts it, and again when it ends."""
        while self.begin():
            self.has_begun.set()
            self.code = self.process.wait()
            if not self.is_restarted:
                return
            time.sleep(PAUSE_SECONDS)

    def begin(self):
        """Starts it, unless it is to end."""
        with self.lock:
            if self.is_ending:
                return False
            self.restarts += self.process is not None
            with self.log.open("ab") as out:
                self.began = datetime.now(timezone.utc)
                self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            return True

    def stop(self):
        """SIGTERM; SIGKILL when that takes too long. The code that it ended with."""
        with self.lock:
            self.is_ending = True
            self.process.terminate()
        try:
            self.code = self.process.wait(STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.thread.join()
        return self.code

    def ended(self, within):
        """Waits for its end: the code."""
        self.thread.join(within)
        if self.thread.is_alive():
            raise Failed(f"not within {within:g} s: {self.log.name} has ended")
        return self.code
