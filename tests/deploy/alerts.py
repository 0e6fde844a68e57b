#!/usr/bin/env python3
"""Shows that every alert of deploy/alerts.yml fires when its fault is there, and clears when the fault is mended: real gateways,
a real Prometheus, real faults. Only durations are shortened (watched.shortened).

usage: alerts.py PROGRAM [--prometheus DIRECTORY] [FAULT ...]
"""

import argparse
import concurrent.futures
import hashlib
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from datetime import date, timedelta
from pathlib import Path

from watched import RULES, Failed, Gateway, Prometheus, get, names, records, until

AT_ONCE = 4
# As little as may be, so that it is full soon.
SMALL = """
[limits]
batch_bytes_max     = 65536
in_flight_bytes_max = 1048576
"""
SMALL_JOURNAL = """
segment_bytes    = 262144
quota_bytes      = 2097152
checkpoint_bytes = 262144
checkpoint_every = "PT1S"
"""
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
DESCRIPTORS = 1200
CONNECTIONS = 960
# Less than a cell takes, with the headers of its message.
TINY_MESSAGE_BYTES = 500


class LeftOut(Exception):
    """A fault cannot be injected here."""


def destination_is_away(gateway):
    """A file stands where the destination's directory should be, until the outbox and then the journal are full."""
    gateway.add("gateway.toml", SMALL)
    gateway.edit("gateway.toml", 'directory = "journal"', f'directory = "journal"\n{SMALL_JOURNAL}')
    takes_late_records(gateway)
    gateway.start()
    gateway.is_quiet()
    released, kept = gateway.folder / "released", gateway.folder / "kept"
    if released.exists():
        released.rename(kept)
    released.write_text("")
    sending = gateway.begin_sending("office", records(4_000, 48, minutes=3_000), "--batch", "128")
    alerts = ("BailiwickDestinationDown", "BailiwickReleasesWait", "BailiwickLogFull", "BailiwickRefusing", "BailiwickNotReady")
    gateway.fires(*alerts)
    released.unlink()
    if kept.exists():
        kept.rename(released)
    gateway.clears(*alerts)
    gateway.sent(sending)


def journal_is_moved(gateway):
    """The journal's directory is moved away, and comes back."""
    gateway.start()
    gateway.is_quiet()
    log, elsewhere = gateway.journal / "log", gateway.folder / "elsewhere"
    log.rename(elsewhere)
    # The first request that finds nothing to write to waits. Those after it are refused, and come again every two seconds.
    first = gateway.begin_sending("first", records(3, 40))
    gateway.fires("BailiwickLogFailing", "BailiwickNotReady")
    second = gateway.begin_sending("second", records(3, 40))
    gateway.fires("BailiwickRefusing")
    elsewhere.rename(log)
    gateway.clears("BailiwickLogFailing", "BailiwickNotReady", "BailiwickRefusing")
    gateway.sent(first)
    gateway.sent(second)


def disk_does_not_sync(gateway):
    """Every sync fails, later every sync hangs: strace makes it so."""
    if shutil.which("strace") is None:
        raise LeftOut("there is no strace")
    gateway.add("gateway.toml", SMALL)
    gateway.start()
    gateway.is_quiet()
    with traced(gateway, "error=EIO"):
        load(gateway, "first")
        gateway.fires("BailiwickLogFailing", "BailiwickNotReady")
    gateway.clears("BailiwickLogFailing", "BailiwickNotReady")
    # A call whose producer is not introduced yet would send nothing.
    before = accepted(gateway)
    load(gateway, "second")
    until(lambda: accepted(gateway) > before, "records of the second load are taken in")
    with traced(gateway, "delay_enter=600000000"):
        # The load gives up after a while. That a sync hangs lasts.
        gateway.fires("BailiwickMemoryWaits", "BailiwickNotReady")
    gateway.clears("BailiwickNotReady", "BailiwickMemoryWaits")


class traced:
    """While it lasts, something is done to every sync of a gateway."""

    def __init__(self, gateway, inject):
        self.command = ["strace", "-f", "-qq", "-o", gateway.folder / "strace.out", "-e", "trace=fdatasync,fsync", "-e", "signal=none",
                        "-e", f"inject=fdatasync,fsync:{inject}", "-p", gateway.process.pid]
        self.gateway, self.strace = gateway, None

    def __enter__(self):
        self.strace = self.gateway.begin(*self.command)
        status = Path(f"/proc/{self.gateway.process.pid}/status")
        until(lambda: "TracerPid:\t0\n" not in status.read_text() or self.strace.poll() is not None, "strace traces the gateway")
        if self.strace.poll() is not None:
            raise LeftOut("strace may not trace a running process here: that needs root")

    def __exit__(self, *_):
        self.strace.terminate()
        self.strace.wait()


def load(gateway, producers):
    """Several calls send more than the gateway may hold."""
    gateway.begin(gateway.program, "bench", "-c", gateway.folder / "gateway.toml", "-s", "events", "-p", producers, "--calls", 8,
                  "--rate", 4000, "--for", 600, "--allow-refused", gateway.write("load.jsonl", records(1, 200)))


def accepted(gateway):
    """How many records it has taken in, in steps."""
    _, metrics = get(gateway.http, "/metrics") or (0, "")
    return sum(map(float, re.findall(r"^bailiwick_records_accepted_total\{.*\} (\S+)$", metrics, flags=re.MULTILINE)))


def gateway_is_killed_and_a_bit_flips(gateway):
    """SIGKILL; while it is down a bit of the journal flips, and `repair` mends it."""
    gateway.edit("gateway.toml", 'directory = "journal"', 'directory = "journal"\ncheckpoint_every = "PT1H"')
    gateway.start()
    gateway.is_quiet()
    gateway.send("office", records(3, 200), "--batch", "4")
    gateway.kill()
    gateway.fires("BailiwickDown")
    segment = min((gateway.journal / "log").glob("*.segment"))
    content = bytearray(segment.read_bytes())
    # In a record: what is between entries says nothing, and a bit of it harms nothing.
    content[content.index(b"u-0-100")] ^= 1
    segment.write_bytes(content)
    gateway.start()
    gateway.fires("BailiwickDamage")
    gateway.clears("BailiwickDown")
    gateway.stop()
    gateway.run("journal", "repair", gateway.journal)
    gateway.start()
    gateway.clears("BailiwickDamage", "BailiwickDown")


def certificate_ends(gateway):
    """A certificate that ends tomorrow; then files that are none; then clients that speak no TLS."""
    tls = gateway.folder / "tls"
    gateway.run("certs", "ca", tls)
    gateway.run("certs", "gateway", tls, "gateway-1", "--days", 1)
    gateway.edit("gateway.toml", "plaintext = true", "# plaintext")
    gateway.add("gateway.toml", '\n[tls]\ncertificate = "tls/gateway-1.pem"\nkey = "tls/gateway-1.key"\nclient_ca = "tls/ca.pem"\n'
                                'trust_domain = "bailiwick.test"\n')
    gateway.start()
    gateway.fires("BailiwickCertificateEnds")
    gateway.run("certs", "gateway", tls, "gateway-1", "--days", 90, "--replace")
    gateway.clears("BailiwickCertificateEnds")
    gateway.is_quiet()
    certificate = (tls / "gateway-1.pem").read_text()
    (tls / "gateway-1.pem").write_text("no certificate")
    gateway.fires("BailiwickCertificateStale")
    (tls / "gateway-1.pem").write_text(certificate)
    gateway.clears("BailiwickCertificateStale")
    with repeated(lambda: speak_no_tls(gateway.port)):
        gateway.fires("BailiwickTurnedAway")
    gateway.clears("BailiwickTurnedAway")


class repeated:
    """While it lasts, something is done again and again."""

    def __init__(self, action):
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._repeat, args=(action,))

    def _repeat(self, action):
        while not self.ended.wait(0.1):
            action()

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def speak_no_tls(port):
    """A connection that is not TLS."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            client.recv(100)
    except OSError:
        pass  # it is cut, as it must be


def policies_cannot_be_used(gateway):
    """A reload of a policy that is wrong; then one of a law that is to be reviewed in three days."""
    gateway.start()
    gateway.is_quiet()
    policy = (gateway.folder / "policies" / "policy.toml").read_text()
    gateway.add("policies/policy.toml", "\n[nothing]\n")
    gateway.reload()
    gateway.fires("BailiwickPolicyStale")
    (gateway.folder / "policies" / "policy.toml").write_text(policy)
    gateway.reload()
    gateway.clears("BailiwickPolicyStale")
    law = "policies/shipped/regimes/eu-gdpr.toml"
    text = (gateway.folder / law).read_text()
    soon = date.today() + timedelta(days=3)
    (gateway.folder / law).write_text(re.sub(r"^(review_by +=) 2999-01-01", rf"\1 {soon}", text, count=1, flags=re.MULTILINE))
    gateway.reload()
    gateway.fires("BailiwickReviewDue")
    (gateway.folder / law).write_text(text)
    gateway.reload()
    gateway.clears("BailiwickReviewDue")


def windows_are_full(gateway):
    """A slow producer keeps more windows open than there is memory for, until it is silent for long enough."""
    gateway.add("gateway.toml", "\n[limits]\nopen_windows_bytes_max = 2097152\n")
    takes_late_records(gateway, 'idle_after = "PT1M"\n')
    gateway.start()
    gateway.is_quiet()
    gateway.send("slow", records(400, 1))
    sending = gateway.begin_sending("crowd", records(390, 900, minutes=60), "--batch", "64")
    alerts = ("BailiwickWindowsFull", "BailiwickRefusing")
    gateway.fires(*alerts)
    gateway.clears(*alerts)
    gateway.sent(sending)


def model_fails(gateway):
    """The model says the logarithm of what is below zero."""
    model = logarithm()
    (gateway.folder / "model.onnx").write_bytes(model)
    gateway.add("gateway.toml", '\n[models]\nlog = "model.onnx"\n')
    gateway.edit("policies/policy.toml", 'contributor = "user" ', 'model = "log"\ncontributor = "user" ')
    gateway.edit("policies/policy.toml", "range = [0, 1000]", "range = [-1000, 1000]")
    gateway.add("policies/policy.toml", f"""
[models.log]
sha256  = "{hashlib.sha256(model).hexdigest()}"
inputs  = [{{ name = "x", fields = ["value"] }}]
outputs = [{{ name = "y", field = "log", kind = "score", class = "personal", range = [0, 10] }}]
""")
    gateway.start()
    gateway.is_quiet()
    below_zero = [{**record, "value": -1.0} for record in records(3, 2_000)]
    with repeated(lambda: gateway.begin_sending("office", below_zero, "--batch", "1").wait()):
        gateway.fires("BailiwickRefusing")
    gateway.clears("BailiwickRefusing")


def logarithm():
    """A model of one column, byte by byte: y = Log(x)."""

    def field(number, value):
        if isinstance(value, int):
            return bytes([number << 3, value])
        return bytes([number << 3 | 2, len(value)]) + value

    def column(name):
        shape = field(1, field(2, b"records")) + field(1, field(1, 1))
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    node = field(1, b"x") + field(2, b"y") + field(4, b"Log")
    graph = field(1, node) + field(2, b"graph") + field(11, column(b"x")) + field(12, column(b"y"))
    return field(1, 8) + field(7, graph) + field(8, field(1, b"") + field(2, 17))


def more_producers_than_may_be(gateway):
    """A second producer comes where one may be active."""
    gateway.add("gateway.toml", "\n[limits]\nproducers_active_max = 1\n")
    gateway.start()
    gateway.is_quiet()
    gateway.send("one", records(3, 12))
    with repeated(lambda: gateway.begin_sending("two", records(3, 12)).wait()):
        gateway.fires("BailiwickRefusing")
    gateway.clears("BailiwickRefusing")


def descriptors_run_out(gateway):
    """Clients that stay connected and ask for nothing."""
    gateway.edit("gateway.toml", "[listen]", f"[listen]\nconnections_max = {CONNECTIONS + 20}")
    gateway.start(descriptors=DESCRIPTORS)
    gateway.is_quiet()
    clients = []

    def connect():
        client = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
        client.sendall(HELLO)
        return client

    def stay():
        # The gateway cuts who does not answer its pings.
        clients[:] = [connect() if has_ended(client) else client for client in clients]

    try:
        for _ in range(CONNECTIONS):
            clients.append(connect())
        with repeated(stay):
            gateway.fires("BailiwickDescriptors")
    finally:
        for client in clients:
            client.close()
    gateway.clears("BailiwickDescriptors")


def has_ended(client):
    """Whether the other side has ended a connection, of which all that came is taken."""
    try:
        while client.recv(65_536, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    client.close()
    return True


def ledger_is_moved(gateway):
    """The ledger's directory is moved away, so nothing leaves; then it comes back."""
    gateway.start()
    gateway.send("office", records(6, 80))
    gateway.is_quiet()
    ledger, elsewhere = gateway.journal / "ledger", gateway.folder / "elsewhere"
    ledger.rename(elsewhere)
    gateway.send("office", records(3, 80), "--complete")
    gateway.fires("BailiwickLedgerFailing")
    elsewhere.rename(ledger)
    gateway.clears("BailiwickLedgerFailing")
    until(lambda: any((gateway.folder / "released").rglob("[!.]*.jsonl")), "what waited for the ledger leaves")


def cells_are_larger_than_a_message(gateway):
    """A topic of Kafka takes smaller messages than before. Then it takes larger ones, and somebody sees to what was set aside."""
    if not os.environ.get("KAFKA_HOME"):
        raise LeftOut("there is no Kafka (KAFKA_HOME)")
    with Broker(gateway.folder / "kafka") as broker:
        broker.runs("topics", "--create", "--topic", "cells", "--config", f"max.message.bytes={TINY_MESSAGE_BYTES}")
        config = gateway.folder / "gateway.toml"
        destination = f'[destinations.files]\nkind = "kafka"\nbrokers = "{broker.address}"\ntopic = "cells"\n\n'
        config.write_text(re.sub(r"\[destinations\.files\].*?\n\n", destination, config.read_text(), flags=re.DOTALL))
        gateway.start()
        gateway.is_quiet()
        gateway.send("office", records(3, 80), "--complete")
        gateway.fires("BailiwickCellsSetAside")
        broker.runs("configs", "--alter", "--entity-type", "topics", "--entity-name", "cells", "--add-config", "max.message.bytes=1000000")
        gateway.send("office", records(1, 80), "--complete")

        def is_seen_to():
            for file in (gateway.journal / "aside" / "files").iterdir():
                if not file.name.startswith("."):
                    file.unlink(missing_ok=True)

        # The gateway notices the new limit within a minute. Until then it sets aside what comes.
        with repeated(is_seen_to):
            gateway.clears("BailiwickCellsSetAside")


class Broker:
    """A broker of Kafka for one fault."""

    def __init__(self, folder):
        self.program, self.folder = f"{os.environ['KAFKA_HOME']}/bin/kafka", folder

    def __enter__(self):
        self.address = self._run("start", self.folder)
        return self

    def runs(self, tool, *arguments):
        """Runs one of Kafka's tools against it."""
        self._run(tool, "--bootstrap-server", self.address, *arguments)

    def _run(self, *command):
        done = subprocess.run([self.program, *command], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              env={**os.environ, "KAFKA_HEAP": "256m"})
        if done.returncode:
            raise Failed(f"kafka {command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def __exit__(self, *_):
        self._run("kill", self.folder)


def takes_late_records(gateway, more=""):
    """Lets the stream take records of the last days."""
    gateway.edit("policies/policy.toml", "[streams.events]", f'[streams.events]\nlate_max = "P30D"\n{more}')


FAULTS = [destination_is_away, windows_are_full, disk_does_not_sync, more_producers_than_may_be, journal_is_moved,
          gateway_is_killed_and_a_bit_flips, certificate_ends, policies_cannot_be_used, model_fails, descriptors_run_out,
          ledger_is_moved, cells_are_larger_than_a_message]


def tried(fault, program, prometheus, root):
    """Runs one fault. What fired and cleared, whether it was left out, and what went wrong."""
    began = time.monotonic()
    with Gateway(program, prometheus, root, fault.__name__) as gateway:
        try:
            left_out = wrong = None
            fault(gateway)
        except LeftOut as why:
            left_out = str(why)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            wrong = f"{error}\n{traceback.format_exc(limit=-3)}\n{gateway.last_lines()}"
    seconds = time.monotonic() - began
    what = left_out or wrong or f"{', '.join(sorted(gateway.fired))} fired and cleared"
    print(f"{'SKIPPED' if left_out else 'NOT OK' if wrong else 'ok':7} {fault.__name__} ({seconds:.0f} s): {what}", flush=True)
    return gateway.fired, bool(left_out), wrong is not None


def main():
    """Tries all faults, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(f"{fault.__name__}: {fault.__doc__}" for fault in FAULTS))
    parser.add_argument("program")
    parser.add_argument("--prometheus", default=os.environ.get("BAILIWICK_TEST_PROMETHEUS"), help="the directory of its programs")
    parser.add_argument("--keep", action="store_true", help="keep the gateways' folders")
    parser.add_argument("faults", nargs="*")
    given = parser.parse_args()
    if not given.prometheus:
        print("SKIPPED: no Prometheus (BAILIWICK_TEST_PROMETHEUS): no alert was tried")
        return 0
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    faults = [fault for fault in FAULTS if not given.faults or fault.__name__ in given.faults]
    root = Path(tempfile.mkdtemp(prefix="bailiwick-alerts-"))
    prometheus = Prometheus(given.prometheus, root / "prometheus")
    try:
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            came = list(pool.map(lambda fault: tried(fault, os.path.abspath(given.program), prometheus, root), faults))
    finally:
        prometheus.close()
        if given.keep:
            print(f"kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    fired = set().union(*(alerts for alerts, _, wrong in came if not wrong))
    unseen = [] if given.faults or any(left_out for _, left_out, _ in came) else sorted(set(names(RULES.read_text())) - fired)
    if unseen:
        print(f"NOT OK not seen to fire and clear: {', '.join(unseen)}")
    print(f"{len(fired)} of {len(names(RULES.read_text()))} alerts fired with a fault and cleared after it")
    return 1 if unseen or any(wrong for _, _, wrong in came) else 0


if __name__ == "__main__":
    sys.exit(main())
