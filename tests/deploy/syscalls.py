"""The system calls that the unit of systemd allows are enough: a gateway with a model starts, serves, reloads and stops under
strace, and what it called is held against the unit's filter."""

import os
import re
import signal
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WITHIN_SECONDS = 300.0
CALL = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?([a-z_0-9]+)\(")
WRITABLE_AND_EXECUTABLE = re.compile(r"\b(?:mmap|mprotect|pkey_mprotect)\([^)]*PROT_WRITE\|PROT_EXEC")
MADE_EXECUTABLE = re.compile(r"\b(?:mprotect|pkey_mprotect)\([^)]*PROT_EXEC")


def check(program, unit):
    """What the program needs and the unit does not allow is an error."""
    if shutil.which("strace") is None:
        return "ITS FILTER OF SYSTEM CALLS WAS NOT TRIED: there is no strace here"
    allowed = filtered(re.findall(r"^SystemCallFilter=(.+)$", unit, re.MULTILINE))
    with tempfile.TemporaryDirectory(prefix="bailiwick-syscalls-") as folder:
        trace = traced(program, Path(folder))
    called = {match[1] for line in trace if (match := CALL.match(line))}
    # The first call is the one that starts it, which systemd makes.
    assert "execve" in called and "fdatasync" in called, "the trace shows no gateway at work"
    if beyond := sorted(called - allowed - {"execve"}):
        raise AssertionError(f"the unit's SystemCallFilter forbids what the gateway calls: {', '.join(beyond)}")
    if "MemoryDenyWriteExecute=yes" in unit:
        mapped = [line for line in trace if WRITABLE_AND_EXECUTABLE.search(line) or MADE_EXECUTABLE.search(line)]
        assert not mapped, f"MemoryDenyWriteExecute forbids what the gateway does: {mapped[:2]}"
    return f"its filter allows all {len(called)} system calls of a gateway at work"


def filtered(lists):
    """The names that a unit's lists of system calls allow, in their order."""
    allowed = set()
    for words in lists:
        names = set().union(*(group(word) for word in words.lstrip("~").split()))
        allowed = allowed - names if words.startswith("~") else allowed | names
    return allowed


def group(name):
    """The system calls of a group of systemd's, the groups in it included."""
    if not name.startswith("@"):
        return {name}
    said = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True).stdout
    words = [line.strip() for line in said.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return set().union(*(group(word) for word in words))


def traced(program, folder):
    """The lines of strace of a gateway that starts, takes an example's records, reloads and stops."""
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("released", "journal"))
    shutil.copytree(ROOT / "policies", folder / "policies")
    config = folder / "examples" / "card-fraud" / "gateway.toml"
    text = config.read_text()
    assert '"127.0.0.1:7400"' in text
    text = text.replace('"127.0.0.1:7400"', '"127.0.0.1:0"')
    assert "[gateway]\n" in text
    # strace makes it slow.
    config.write_text(text.replace("[gateway]\n", '[gateway]\nstop_within = "PT100S"\n', 1))
    log, trace = folder / "log", folder / "trace"
    with log.open("wb") as out:
        gateway = subprocess.Popen(["strace", "-f", "-o", trace, program, "run", "-c", config], stderr=out, stdin=subprocess.DEVNULL,
                                   env={**os.environ, "NO_COLOR": "1"}, start_new_session=True)
    try:
        port = waited(lambda: re.search(r"address\W+127\.0\.0\.1:(\d+)", log.read_text()), gateway, log)[1]
        own = int(Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()[0])
        subprocess.run([program, "send", "--to", f"http://127.0.0.1:{port}", "-s", "payments", "-p", "till-7", "--complete", "--no-follow",
                        "--allow-refused", ROOT / "examples" / "card-fraud" / "data.csv.gz"], check=True, capture_output=True)
        os.kill(own, signal.SIGHUP)
        waited(lambda: "policies are in force" in log.read_text(), gateway, log)
        released = folder / "examples" / "card-fraud" / "released"
        waited(lambda: any(file for file in released.rglob("*.jsonl") if not file.name.startswith(".")), gateway, log)
        os.kill(own, signal.SIGTERM)
        assert gateway.wait(WITHIN_SECONDS) == 0, log.read_text()
    finally:
        if gateway.poll() is None:
            os.killpg(gateway.pid, signal.SIGKILL)
            gateway.wait()
    return trace.read_text(errors="replace").splitlines()


def waited(holds, gateway, log):
    """Waits until a condition holds, and gives what it gave."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while not (found := holds()):
        assert gateway.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return found
