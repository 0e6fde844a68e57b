"""docker-compose.yml, brought up for real under a project name of its own. namespaces.py does the same without Docker."""

import json
import os
import shutil
import signal
import subprocess
from datetime import datetime

from engine import Failed, docker, run, until
from images import GATEWAY, NEXT, REPOSITORY, TOOLS

PROFILES = "eu,us,in,hub,load,observability"
HEALTHY_WITHIN_SECONDS = 300.0


class Stack:
    """The services of one project, in a copy of their files, so that a test may change these."""

    THIS, NEXT = GATEWAY, NEXT

    def __init__(self, project, scratch):
        self.project = project
        self.root = scratch / "deployment"
        self.root.mkdir()
        shutil.copy(REPOSITORY / "docker-compose.yml", self.root)
        for folder in ("deploy", "examples"):
            shutil.copytree(REPOSITORY / folder, self.root / folder)
        self.environment = {**os.environ, "COMPOSE_PROFILES": PROFILES, "COMPOSE_PROJECT_NAME": project, "BAILIWICK_IMAGE": GATEWAY,
                            "BAILIWICK_TOOLS_IMAGE": TOOLS}
        found = shutil.which("docker-compose")
        self.command = [found] if found else ["docker", "compose"]
        self.command += ["-f", "docker-compose.yml", "-f", "deploy/ci.yml"]

    def __enter__(self):
        self.down("--volumes")
        return self

    def __exit__(self, *_):
        self.down("--volumes")

    def compose(self, *arguments, **options):
        """Compose's command line."""
        return run(*self.command, *arguments, cwd=self.root, env=self.environment, **options)

    def up(self, *services):
        """Starts services, and what they depend on, from images that are there."""
        return self.compose("up", "--detach", "--no-build", *services)

    def down(self, *options):
        """Stops everything and removes it. Without `--volumes`, what is on disk stays."""
        return self.compose("down", "--remove-orphans", "--timeout", "30", *options)

    def stop(self, *services):
        """Stops services as a person would: the code that each ended with."""
        self.compose("stop", "--timeout", "20", *services)
        return {service: self.inspect(service)["State"]["ExitCode"] for service in services}

    def roll(self, service, image):
        """Makes one service anew from another image, as an upgrade does, and waits until it is healthy."""
        environment = {**self.environment, "BAILIWICK_IMAGE": image}
        run(*self.command, "up", "--detach", "--no-build", "--no-deps", service, cwd=self.root, env=environment)
        used = self.inspect(service)["Config"]["Image"]
        if used != image:
            raise Failed(f"{service} runs {used}, not {image}")
        self.healthy(service)

    def container(self, service):
        """The id of a service's container."""
        labels = (f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}", "com.docker.compose.oneoff=False")
        found = docker("ps", "--all", "--quiet", *(f"--filter=label={label}" for label in labels))
        if not found:
            raise Failed(f"{service} has no container")
        return found.splitlines()[0]

    def inspect(self, service):
        """What Docker knows of a service's container."""
        return json.loads(docker("inspect", self.container(service)))[0]

    def network(self, name):
        """The full name of a network."""
        return f"{self.project}_{name}"

    def tcpdump(self, network):
        """What captures everything on a network."""
        return ["tcpdump", "-i", "br-" + docker("network", "inspect", "--format", "{{.Id}}", self.network(network))[:12]]

    def addresses(self, service):
        """All network addresses of a service."""
        return [network["IPAddress"] for network in self.inspect(service)["NetworkSettings"]["Networks"].values()]

    def execute(self, service, *command):
        """Runs a command beside a service that runs: what it printed, whatever it ended with."""
        return docker("exec", self.container(service), *command, check=False).stdout

    def once(self, service, command, *arguments, environment=()):
        """Runs a command in the place of a service: what it printed."""
        given = [option for name, value in dict(environment).items() for option in ("-e", f"{name}={value}")]
        return self.compose("run", "--rm", "-T", "--no-deps", *given, "--entrypoint", command, service, *arguments)

    def process(self, service):
        """A service's process: its id, and when it was started."""
        state = self.inspect(service)["State"]
        return state["Pid"], datetime.fromisoformat(state["StartedAt"][:26].rstrip("Z") + "+00:00")

    def log(self, service):
        """All of a service's log."""
        return docker("logs", self.container(service), check=False).stderr

    def healthy(self, *services):
        """Waits until the services are healthy, as their images' or compose's healthcheck says."""
        for service in services:
            def is_healthy(service=service):
                return self.inspect(service)["State"].get("Health", {}).get("Status") == "healthy"
            try:
                until(is_healthy, f"{service} is healthy", HEALTHY_WITHIN_SECONDS)
            except Failed as error:
                said = self.compose("logs", "--no-color", "--tail", "20", service, check=False)
                raise Failed(f"{error}: {said.stdout}{said.stderr}") from error

    def ended(self, service):
        """Waits for a service that does one thing and ends. Raises Failed when it failed."""
        state = until(lambda: (state := self.inspect(service)["State"])["Status"] == "exited" and state, f"{service} has ended", HEALTHY_WITHIN_SECONDS)
        if state["ExitCode"]:
            raise Failed(f"{service} ended with {state['ExitCode']}: {self.compose('logs', '--no-color', service)}")

    def kill(self, service):
        """SIGKILL to the service's process, as a crash: Docker's own `kill` would count as a wish to stop it."""
        os.kill(self.inspect(service)["State"]["Pid"], signal.SIGKILL)

    def restarts(self, service):
        """How often Docker has started it again."""
        return self.inspect(service)["RestartCount"]

    def cut(self, service, network):
        """Takes a service off a network."""
        docker("network", "disconnect", self.network(network), self.container(service))

    def join(self, service, network):
        """Puts it back, under its name."""
        docker("network", "connect", "--alias", service, self.network(network), self.container(service))

    def send(self, region, *arguments):
        """Starts a load of one region that reads records from its stdin."""
        command = [*self.command, "run", "--rm", "-T", "--no-deps", f"{region}-load", "load", *arguments]
        return subprocess.Popen(command, cwd=self.root, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
