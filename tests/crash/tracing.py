"""strace: starts the gateway so that it is killed at a system call, or that calls fail."""

import asyncio


async def works():
    """Whether it may trace and inject here."""
    process = await asyncio.create_subprocess_exec(
        "strace", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
    return await process.wait() == 0


def strace(run, calls, inject, *extra):
    """The command to start the gateway under."""
    out = str(run.deployment.root / "strace.out")
    return ["strace", "-f", "-qq", "-o", out, *extra, "-e", "signal=none", "-e", f"trace={calls}", "-e", f"inject={calls}:{inject}"]


def injected(run):
    """Whether strace has made a call fail."""
    return "(INJECTED)" in (run.deployment.root / "strace.out").read_text(errors="replace")
