"""The images: a gateway's, from a program that was built outside, and stand-ins for those that a user pulls."""

import os
import shutil
import tempfile
from pathlib import Path

from engine import CACHE, Failed, docker, run

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
DEBIAN = "bailiwick-ci/debian"
GATEWAY, NEXT, TOOLS = "bailiwick:ci", "bailiwick:ci-next", "bailiwick-tools:ci"


def exists(image):
    """Whether the engine has the image."""
    return docker("image", "inspect", image, check=False).returncode == 0


def debian():
    """Debian as a base, by debootstrap from the mirror that this machine uses."""
    if exists(DEBIAN):
        return
    kept = CACHE / "images" / "debian-bookworm.tar"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="bailiwick-debian-") as folder:
            tree = Path(folder) / "tree"
            run("debootstrap", "--variant=minbase", "bookworm", tree, mirror(), timeout=600)
            shutil.rmtree(tree / "var/cache/apt", ignore_errors=True)
            sources(tree)
            run("tar", "-C", tree, "-cf", Path(folder) / "made.tar", ".")
            shutil.move(Path(folder) / "made.tar", kept)
    docker("import", kept, DEBIAN)


def mirror():
    """Debian's mirror, as apt knows it here."""
    for line in run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Codename: bookworm").splitlines():
        if "debian" in line and "security" not in line:
            return line
    return "http://deb.debian.org/debian"


def sources(tree):
    """What lets apt work in the image as it works here."""
    for place in ("etc/apt/apt.conf.d", "usr/local/share/ca-certificates"):
        here = Path("/") / place
        if here.is_dir():
            shutil.copytree(here, tree / place, dirs_exist_ok=True)


def services(kafka_home):
    """Kafka and Prometheus, under the names of deploy/ci.yml."""
    with tempfile.TemporaryDirectory(prefix="bailiwick-context-") as folder:
        shutil.copytree(HERE / "images", folder, dirs_exist_ok=True)
        shutil.copytree(Path(kafka_home) / "libs", Path(folder) / "libs")
        for target in ("kafka", "prometheus"):
            build(folder, f"bailiwick-ci/{target}", target, "--network=host")


def gateway(program):
    """A gateway's image from a program, the same as another build would be, and the tools."""
    made = REPOSITORY / "made"
    try:
        run(REPOSITORY / "scripts/env", REPOSITORY / "deploy/image/collect", made, program)
        for image, target, commit in [(GATEWAY, "gateway", "ci"), (NEXT, "gateway", "ci-next"), (TOOLS, "tools", "ci")]:
            build(REPOSITORY, image, target, "--build-arg=PROGRAM=outside", f"--build-arg=COMMIT={commit}")
    finally:
        shutil.rmtree(made, ignore_errors=True)


def build(context, image, target, *arguments):
    """Builds one target of the folder's Dockerfile."""
    docker("build", "--quiet", f"--target={target}", f"--tag={image}", f"--build-arg=DEBIAN_IMAGE={DEBIAN}", *arguments, context,
           timeout=600, env={**os.environ, "DOCKER_BUILDKIT": "1"})


def full_path():
    """The way of the Dockerfile on which the program is built in a container: whether it is built here, or only read.

    What stops it has to be that there is no registry. An error of the file itself comes before that."""
    done = docker("build", "--target=built", REPOSITORY, check=False, timeout=3600, env={**os.environ, "DOCKER_BUILDKIT": "1"})
    if done.returncode == 0:
        return "was built in a container"
    if "failed to resolve source metadata" in done.stderr or "failed to do request" in done.stderr or "pull access denied" in done.stderr:
        return "was only read: no registry of images is reached from here"
    raise Failed(f"the Dockerfile's full path cannot be used: {done.stderr[-1000:]}")
