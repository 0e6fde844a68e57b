"""File systems of the harness's own below the deployment's `disk/`, whose power can be lost or that can be full."""

import asyncio
import errno
import os
import shutil
import subprocess
import time
from pathlib import Path

IMAGE_BYTES = 1 << 30
UNMOUNT_WITHIN_SECONDS = 60.0
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}


def missing(*programs):
    """Why these cannot be had here, or None."""
    if os.geteuid() != 0:
        return "mounting needs root"
    lacking = [program for program in programs if shutil.which(program) is None]
    return f"not installed: {', '.join(lacking)} (Debian: xfsprogs, e2fsprogs, strace)" if lacking else None


class LoopDisk:
    """A file system in an image. `lose_power` drops all that was not synced, as a power loss does: the file system
    is shut down without writing its log, and what is in the page cache never reaches the image."""

    def __init__(self, kind):
        self.kind = kind
        self.image = self.mount_point = None

    def open(self, mount_point):
        """Makes it and mounts it."""
        self.mount_point = Path(mount_point)
        self.image = self.mount_point.parent / f"{self.kind}.img"
        with self.image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        subprocess.run([*MAKE[self.kind], str(self.image)], check=True)
        self._mount()

    async def lose_power(self):
        """From now on nothing reaches the disk."""
        process = await asyncio.create_subprocess_exec("xfs_io", "-x", "-c", "shutdown", str(self.mount_point))
        if await process.wait() != 0:
            raise RuntimeError(f"xfs_io could not shut {self.kind} down")

    def recover(self):
        """Mounts it again, which recovers its log. Nothing may have a file open on it."""
        unmount(self.mount_point)
        self._mount()

    def close(self):
        """Unmounts it; the image stays."""
        if self.mount_point is not None and os.path.ismount(self.mount_point):
            unmount(self.mount_point)

    def _mount(self):
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.mount_point)], check=True)


class SmallDisk:
    """A tmpfs of a few MiB, that can be filled up."""

    def __init__(self, size):
        self.size = size
        self.mount_point = None

    def open(self, mount_point):
        """Mounts it where the journal will be; what is released lies elsewhere."""
        self.mount_point = Path(mount_point) / "journal"
        self.mount_point.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", str(self.mount_point)], check=True)

    def fill(self, left):
        """Takes all room but `left` bytes."""
        room = os.statvfs(self.mount_point)
        more = room.f_bavail * room.f_frsize - left
        if more > 0:
            with self.mount_point.joinpath("ballast").open("ab") as ballast:
                try:
                    os.posix_fallocate(ballast.fileno(), ballast.tell(), more)
                except OSError as error:
                    # The gateway took some of it meanwhile: what is left is taken the next time.
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self):
        """Gives the room back."""
        self.mount_point.joinpath("ballast").unlink(missing_ok=True)

    def close(self):
        """Unmounts it, with all that is on it."""
        if self.mount_point is not None and os.path.ismount(self.mount_point):
            unmount(self.mount_point)


def unmount(mount_point):
    """Unmounts; a process that has just been killed may hold it for a moment."""
    deadline = time.monotonic() + UNMOUNT_WITHIN_SECONDS
    while (result := subprocess.run(["umount", str(mount_point)], capture_output=True, text=True)).returncode != 0:
        if time.monotonic() > deadline:
            subprocess.run(["umount", "-l", str(mount_point)], check=False)
            raise RuntimeError(f"cannot unmount {mount_point}: {result.stderr.strip()}")
        time.sleep(0.01)
