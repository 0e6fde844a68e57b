#!/usr/bin/env python3
"""Becomes a process in a tree of its own, as in a container: mounts, root, user, no capabilities. The mounts are in a namespace of
their own and end with it. Run by root.

usage: enter.py SPEC      SPEC: JSON, as trees.py makes it
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 32, 4096, 16384, 1 << 18
NEW_MOUNTS = 0x20000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")
DEVICES = ("null", "zero", "full", "random", "urandom")
libc = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind=None, flags=0, data=None):
    """mount(2)."""
    texts = [None if text is None else str(text).encode() for text in (source, target, kind)]
    if libc.mount(*texts, ctypes.c_ulong(flags), data and data.encode()):
        raise OSError(ctypes.get_errno(), f"mount {source} on {target}: {os.strerror(ctypes.get_errno())}")


def bind(source, target, is_read_only):
    """Shows a file or a folder in another place, too."""
    mount(source, target, flags=BIND)
    if is_read_only:
        mount(None, target, flags=BIND | REMOUNT | READ_ONLY)


def control(what, argument):
    """prctl(2)."""
    if libc.prctl(what, ctypes.c_ulong(argument), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {what}")


def main():
    """Mounts, gives everything up, and becomes the program."""
    spec = json.loads(sys.argv[1])
    root = Path(spec["root"])
    capabilities = int(LAST_CAPABILITY.read_text())
    if libc.unshare(NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "unshare")
    mount(None, "/", flags=RECURSIVE | PRIVATE)
    mount(root, root, flags=BIND)
    for source, target, is_read_only in spec["binds"]:
        bind(source, f"{root}{target}", is_read_only)
    for target, options in spec["tmpfs"]:
        mount("tmpfs", f"{root}{target}", "tmpfs", data=options)
    for device in DEVICES:
        bind(f"/dev/{device}", root / "dev" / device, False)
    mount("/proc", root / "proc", flags=BIND | RECURSIVE)
    mount(None, root, flags=BIND | REMOUNT | READ_ONLY)
    os.chroot(root)
    os.chdir(spec["folder"])
    for capability in range(capabilities + 1):
        control(PR_CAPBSET_DROP, capability)
    user, group = spec["user"]
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    control(PR_SET_NO_NEW_PRIVS, 1)
    # It ends with whoever started it.
    control(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execvpe(spec["command"][0], spec["command"], spec["environment"])


if __name__ == "__main__":
    main()
