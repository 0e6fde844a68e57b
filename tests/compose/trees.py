"""The files that a service sees without Docker: the tree of the image where it is ours; where an image is pulled, or has a shell,
this machine's programs. Nothing else of the machine is there."""

import json
import os
import shutil
import sys
from pathlib import Path

from engine import CannotStart, run
from images import HERE, REPOSITORY

ENTER = HERE / "enter.py"
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of the machine, where a service has a shell.
LENT = ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/etc/alternatives")
# In the tools' image these folders have other modes than 0700, which a new volume takes.
MODES = {"/secrets/watch": 0o750}


class Trees:
    """Trees and volumes of one run."""

    def __init__(self, program, kafka_home, prometheus, scratch, root):
        self.kafka_home, self.prometheus, self.scratch, self.root = Path(kafka_home), Path(prometheus), scratch, root
        self.binds, self.gateways = {}, {}
        made = scratch / "made"
        run(REPOSITORY / "scripts/env", REPOSITORY / "deploy/image/collect", made, program)
        self.add_gateway("this", made)
        # Another build of the same source: the file is another one, and does the same.
        with (made / "bailiwick").open("ab") as file:
            file.write(b"\0next")
        self.add_gateway("next", made)

    def add_gateway(self, build, made):
        """Makes the tree that the image of a gateway is, by the same script."""
        if shutil.which("dpkg-query") is None:
            raise CannotStart("the tree of the image is made of Debian's libraries, and there are no Debian packages here")
        self.gateways[build] = self.scratch / "image" / build
        run(REPOSITORY / "deploy/image/root", made, self.gateways[build], REPOSITORY)
        # As the Dockerfile makes it.
        (self.gateways[build] / "var/lib/bailiwick").mkdir(parents=True, exist_ok=True)

    def make(self, service, hosts, build="this"):
        """Makes a service's tree anew."""
        tree = self.scratch / "trees" / service.name
        shutil.rmtree(tree, ignore_errors=True)
        if service.stage == "gateway":
            shutil.copytree(self.gateways[build], tree, symlinks=True, copy_function=os.link)
            binds = []
        else:
            binds = self.lent(tree) + getattr(self, f"for_{service.stage}")()
        binds += [(self.source(service, source, target), target, is_read_only) for source, target, is_read_only in service.volumes]
        names = ("null", "zero", "full", "random", "urandom")
        for source, target in [*((source, target) for source, target, _ in binds), *((f"/dev/{name}", f"/dev/{name}") for name in names)]:
            place_for(source, Path(f"{tree}{target}"))
        for name, to in (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1")):
            (tree / "dev" / name).symlink_to(to)
        for folder in ("proc", service.folder.lstrip("/"), *(target.lstrip("/") for target, _ in service.tmpfs)):
            (tree / folder).mkdir(parents=True, exist_ok=True)
        (tree / "etc/hosts").write_text(hosts)
        self.binds[service.name] = [(str(source), target, is_read_only) for source, target, is_read_only in binds]

    def lent(self, tree):
        """What of the machine is shown: programs and libraries."""
        (tree / "etc").mkdir(parents=True)
        for file in ("passwd", "group", "nsswitch.conf", "ld.so.cache"):
            shutil.copy(f"/etc/{file}", tree / "etc")
        for name in ("bin", "sbin", "lib", "lib32", "lib64"):
            if Path("/", name).is_symlink():
                (tree / name).symlink_to(os.readlink(f"/{name}"))
        whole = [f"/{name}" for name in ("bin", "sbin", "lib", "lib32", "lib64") if not Path("/", name).is_symlink()]
        return [(folder, folder, True) for folder in (*LENT, *whole) if Path(folder).is_dir()]

    def for_tools(self):
        """The program and the scripts of deploy/."""
        program = self.gateways["this"] / "usr/bin/bailiwick"
        scripts = [(self.root / "deploy" / name, f"/usr/local/bin/{name}", True) for name in ("certs", "load")]
        return [(program, "/usr/local/bin/bailiwick", True), *scripts]

    def for_kafka(self):
        """Kafka, and the Java of this machine."""
        programs = self.scratch / "kafka"
        if not programs.exists():
            shutil.copytree(HERE / "images" / "kafka", programs)
            for name in ("topics", "console-consumer", "get-offsets"):
                (programs / f"kafka-{name}.sh").symlink_to("tool")
            (programs / "empty").mkdir()
        empty = programs / "empty"
        java = Path(shutil.which("java") or "/usr/bin/java")
        if not java.exists():
            raise CannotStart("there is no Java to run Kafka")
        homes = {Path("/etc") / name for name in os.listdir("/etc") if name.startswith("java")}
        binds = [(home, str(home), True) for home in sorted(homes)]
        if not str(java.resolve()).startswith("/usr/lib/"):
            home = java.resolve().parents[1]
            binds += [(home, str(home), True), (java.resolve(), "/usr/local/bin/java", True)]
        return [*binds, (self.kafka_home / "libs", "/opt/kafka/libs", True), (programs, "/opt/kafka/bin", True),
                (HERE / "images" / "log4j2.properties", "/etc/kafka/log4j2.properties", True),
                (empty, "/etc/kafka/docker", True), (empty, "/mnt/shared/config", True)]

    def for_prometheus(self):
        """Debian's Prometheus, which scripts/setup fetched."""
        return [(self.prometheus / name, f"/usr/local/bin/{name}", True) for name in ("prometheus", "promtool")]

    def source(self, service, source, target):
        """A volume's folder on the machine. A new one is its first user's alone."""
        if source.startswith("."):
            return self.root / source
        folder = self.scratch / "volumes" / source
        if not folder.exists():
            folder.mkdir(parents=True)
            os.chown(folder, *service.user)
            folder.chmod(MODES.get(target, 0o700))
        return folder

    def command(self, service, command, environment=()):
        """The command line that becomes a command as the service would run it."""
        command = [command[0].removeprefix("/bin/") if service.stage == "prometheus" else command[0], *command[1:]]
        spec = {"root": str(self.scratch / "trees" / service.name), "binds": self.binds[service.name], "tmpfs": service.tmpfs,
                "folder": service.folder, "user": service.user, "command": command,
                "environment": {"PATH": PATH, "HOME": "/", **service.environment, **dict(environment)}}
        return [sys.executable, "-I", ENTER, json.dumps(spec)]


def place_for(source, target):
    """Something to mount a file or a folder on."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if Path(source).is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
