"""Docker: the engine that runs here, or one of our own, and the programs that talk to it."""

import os
import shutil
import subprocess
import time
from pathlib import Path

CACHE = Path(os.environ.get("BAILIWICK_CACHE", Path.home() / ".cache" / "bailiwick"))
STARTED_WITHIN_SECONDS = 180.0


class Failed(Exception):
    """Something did not do what it must. The message says what."""


class CannotStart(Exception):
    """There is no Docker here, and none can be started. The message says why."""


def run(*command, check=True, timeout=900, **options):
    """Runs a command and returns what it printed. Raises Failed, with what it said, when it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout,
                          **{"stdin": subprocess.DEVNULL, **options})
    if check and done.returncode:
        raise Failed(f"`{' '.join(map(str, command))}` ended with {done.returncode}: {tail(done.stdout + done.stderr)}")
    return done if not check else done.stdout.strip()


def tail(text, lines=15):
    """The last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])


def until(holds, what, within=300.0, every=0.2):
    """Waits until a condition holds and returns what it gave. Raises Failed, naming it, when it does not in time."""
    deadline = time.monotonic() + within
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise Failed(f"not within {within:g} s: {what}")
        time.sleep(every)
    return found


def docker(*arguments, **options):
    """Docker's command line."""
    return run(client(), *arguments, **options)


def client():
    """A client that can build with BuildKit: from version 23 on, that needs the plugin buildx."""
    found = [path for path in (shutil.which("docker"), "/usr/bin/docker") if path and os.path.exists(path)]
    for path in found:
        version = run(path, "version", "--format", "{{.Client.Version}}", check=False).stdout.split(".")[0]
        if version.isdigit() and int(version) < 23 or run(path, "buildx", "version", check=False).returncode == 0:
            return path
    raise CannotStart("no `docker` here can build with BuildKit: install docker.io, or docker with the plugin buildx")


class Engine:
    """A Docker engine. Ours ends with us; one that ran already is left alone."""

    def __init__(self):
        self.process = None

    def __enter__(self):
        if run(client(), "info", check=False).returncode == 0:
            return self
        if not (shutil.which("dockerd") and os.geteuid() == 0):
            raise CannotStart("no Docker engine runs, and to start one needs root and `dockerd` (scripts/setup compose)")
        home = CACHE / "docker"
        home.mkdir(parents=True, exist_ok=True)
        os.environ["DOCKER_HOST"] = f"unix://{home}/docker.sock"
        log = home / "dockerd.log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                ["dockerd", "--host", os.environ["DOCKER_HOST"], "--data-root", str(home / "data"), "--exec-root", str(home / "run"),
                 "--pidfile", str(home / "dockerd.pid")], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        deadline = time.monotonic() + STARTED_WITHIN_SECONDS
        while run(client(), "info", check=False).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise CannotStart(f"dockerd does not start here: {tail(log.read_text(errors='replace'), 3)}")
            time.sleep(0.3)
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            docker("image", "prune", "--force", check=False)  # what this run's builds have replaced
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
