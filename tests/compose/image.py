"""What a gateway's image must be."""

import json
import tomllib

from engine import Failed, docker
from images import REPOSITORY

BYTES_MAX = 120_000_000
USER = "65532:65532"
HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none")


def check(image, scratch):
    """Checks an image; says what it is."""
    seen = json.loads(docker("image", "inspect", image))[0]
    config, size = seen["Config"], seen["Size"]
    with (REPOSITORY / "Cargo.toml").open("rb") as file:
        version = tomllib.load(file)["package"]["version"]
    expect(size <= BYTES_MAX, f"it has {size:,} bytes, more than {BYTES_MAX:,}")
    expect(config["User"] == USER, f"it runs as {config['User']}")
    expect(config["Labels"]["org.opencontainers.image.version"] == version, "its version is not that of Cargo.toml: ARG VERSION")
    expect(config["Healthcheck"]["Test"][1:] == ["/usr/bin/bailiwick", "health", "--ready"], "it does not ask the gateway for its health")
    for shell in ("/bin/sh", "/bin/bash", "/usr/bin/env", "/bin/busybox"):
        done = docker("run", "--rm", *HARDENED, f"--entrypoint={shell}", image, check=False)
        expect(done.returncode == 127, f"{shell} is in it")
    said = docker("run", "--rm", *HARDENED, image, "--version")
    expect(f"bailiwick {version}" in said and "ONNX Runtime: /usr/lib/bailiwick/" in said, f"it says of itself: {said}")
    journal_of_another(image, scratch)
    return f"the image has {size / 1e6:.1f} MB, no shell, and runs as {USER}"


def journal_of_another(image, scratch):
    """A journal's folder of another user is refused, and the message says what to type."""
    folder = scratch / "foreign"
    deployment = scratch / "made"
    docker("run", "--rm", "--network=none", "--user=0:0", f"--volume={scratch}:/out", image, "init", "/out/made")
    text = (deployment / "gateway.toml").read_text().replace('"journal"', '"/var/lib/bailiwick/journal"')
    (deployment / "gateway.toml").write_text(text)
    # Whatever day it is, it is the journal that is wrong.
    policy = deployment / "policies" / "policy.toml"
    policy.write_text(policy.read_text().replace('# [review]\n# on_expired = "warn"\n', '[review]\non_expired = "warn"\n'))
    folder.mkdir(mode=0o755)
    done = docker("run", "--rm", *HARDENED, f"--volume={folder}:/var/lib/bailiwick", f"--volume={deployment}:/etc/bailiwick:ro", image,
                  check=False, timeout=180)
    expect(done.returncode == 70, f"with a journal that it cannot write it ends with {done.returncode}")
    command = "sudo install -d -o 65532 -g 65532 -m 700 '/var/lib/bailiwick/journal'"
    expect(command in done.stderr, f"it does not say what to type: {done.stderr}")


def expect(holds, otherwise):
    """Raises Failed when a thing does not hold."""
    if not holds:
        raise Failed(f"the image: {otherwise}")
