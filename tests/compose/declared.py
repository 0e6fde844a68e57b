"""docker-compose.yml and the Dockerfiles, as far as they say how a service runs."""

import json
import re
from dataclasses import dataclass, field

import yaml

from images import HERE, REPOSITORY

# The stage that an image of docker-compose.yml is built from, and the Dockerfile it is in: for those that a user pulls, their stand-ins.
STAGES = {
    "bailiwick": (REPOSITORY / "Dockerfile", "gateway"),
    "bailiwick-tools": (REPOSITORY / "Dockerfile", "tools"),
    "apache/kafka": (HERE / "images" / "Dockerfile", "kafka"),
    "prom/prometheus": (HERE / "images" / "Dockerfile", "prometheus"),
}


@dataclass
class Service:
    """How a service runs."""

    name: str
    stage: str
    user: tuple
    networks: list
    command: list
    folder: str
    environment: dict
    volumes: list  # (source, target, whether it is read only)
    tmpfs: list  # (target, options)
    waits_for: dict  # service -> condition
    is_restarted: bool
    health: list = field(default_factory=list)
    entrypoint: list = field(default_factory=list)


def services(text):
    """The services of a docker-compose.yml whose images are known here."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    found = yaml.safe_load(text)["services"].items()
    return {name: service(name, declared) for name, declared in found if image_of(declared) in STAGES}


def networks(text):
    """The networks that lead nowhere."""
    return [name for name, declared in yaml.safe_load(text)["networks"].items() if declared.get("internal")]


def image_of(declared):
    """An image's name, without its version."""
    return declared["image"].partition(":")[0]


def service(name, declared):
    """A service as compose would run it: what the file says comes before what the image says."""
    dockerfile, stage = STAGES[image_of(declared)]
    image = stage_of(dockerfile.read_text(), stage)
    user = declared.get("user", image.get("USER", "0:0"))
    health = declared.get("healthcheck", {}).get("test", ["CMD", *json.loads(image.get("HEALTHCHECK", "[]"))])
    if health[0] != "CMD" or not declared.get("read_only"):
        raise ValueError(f"{name}: this is not run without Docker: {health}, or a root that can be written")
    return Service(
        name=name, stage=stage, user=tuple(map(int, user.split(":"))), networks=declared.get("networks", []),
        entrypoint=declared.get("entrypoint", json.loads(image.get("ENTRYPOINT", "[]"))),
        command=declared.get("command", [] if "entrypoint" in declared else json.loads(image.get("CMD", "[]"))),
        folder=image.get("WORKDIR", "/"), environment={**image["ENV"], **{key: str(of) for key, of in declared.get("environment", {}).items()}},
        volumes=[volume(text) for text in declared.get("volumes", [])],
        tmpfs=[(target, options or None) for target, _, options in (text.partition(":") for text in declared.get("tmpfs", []))],
        waits_for={other: on["condition"] for other, on in declared.get("depends_on", {}).items()},
        is_restarted=declared.get("restart", "no") != "no", health=health[1:])


def volume(text):
    """`SOURCE:TARGET`, perhaps with `:ro`."""
    source, target, *options = text.split(":")
    return source, target, options == ["ro"]


def stage_of(text, name):
    """What a stage of a Dockerfile says of running it: by instruction, the last of each; `ENV` as a table."""
    text = text.replace("\\\n", " ")
    stage = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL)[1]
    said = {"ENV": {}}
    for instruction, value in re.findall(r"^([A-Z]+) +(.*)$", stage, re.MULTILINE):
        if instruction == "ENV":
            said["ENV"].update(pair.split("=", 1) for pair in value.split())
        else:
            said[instruction] = value.partition("CMD ")[2] if instruction == "HEALTHCHECK" else value
    return said
