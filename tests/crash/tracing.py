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


async def attach(run, calls, inject):
    """From now on, until the tracer is ended: what is injected holds for every such call of every thread."""
    (run.deployment.root / "strace.out").write_text("")
    return await asyncio.create_subprocess_exec(
        *strace(run, calls, inject), "-p", str(run.gateway.process.pid), stderr=asyncio.subprocess.DEVNULL)


async def detach(tracer):
    """Lets the gateway's calls be again."""
    if tracer.returncode is None:
        tracer.terminate()
    await tracer.wait()


def injected(run):
    """Whether strace has made a call fail."""
    return "(INJECTED)" in (run.deployment.root / "strace.out").read_text(errors="replace")
