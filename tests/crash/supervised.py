#!/usr/bin/env python3
"""Shows that no thread dies in silence: one thread of a gateway panics, and what everybody is told of it.

usage: supervised.py --bin GATEWAY

The gateway is one that was built with the feature `planted-bugs`. First its listener panics when a connection comes, then
the thread of health and metrics: each time the process must end with code 70 by itself. Then its worker panics while it
counts the first batch, whose entry is given to the journal by then. The worker serves the connection too. So the call must end without an acknowledgement,
the process must end with code 70 by itself, and a gateway without the bug must go on: it has counted what was in the journal,
says so of a repeat, and takes the next request.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc

import protocol
from deployment import Deployment, free_port
from destinations import Files
from workload import ALL_SLOTS, STREAM, Batch

EXIT_INTERNAL = 70
WITHIN_SECONDS = 180


def until(holds, what):
    """Waits until something holds, and gives what it came to."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while not (came := holds()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {WITHIN_SECONDS} s: {what}")
        time.sleep(0.02)
    return came


class Gateway:
    """A gateway as a process, with a bug or without."""

    def __init__(self, binary, deployment, bug):
        self.deployment = deployment
        self.log = deployment.log.open("ab")
        environment = {**os.environ, "BAILIWICK_PLANT": bug}
        self.process = subprocess.Popen([binary, "run", "-c", str(deployment.config), "--log-format", "text"], env=environment, stderr=self.log)

    def publish(self, pb, rows_pb, sequence):
        """The answer to one request with a batch of all slots; none, when the connection ends before it."""
        with grpc.insecure_channel(self.deployment.address) as channel:
            grpc.channel_ready_future(channel).result(timeout=WITHIN_SECONDS)
            call = channel.stream_stream(protocol.PUBLISH, request_serializer=pb.PublishRequest.SerializeToString,
                                         response_deserializer=pb.PublishResponse.FromString)
            request = pb.PublishRequest(stream=STREAM, producer="p", epoch=1, sequence=sequence, rows=rows(rows_pb))
            try:
                return next(iter(call(iter([request]))))
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAVAILABLE:
                    return None
                raise

    def ended(self):
        """Its exit code, when it ends by itself."""
        until(lambda: self.process.poll() is not None, "the gateway ends by itself")
        return self.process.returncode

    def stop(self):
        """Its exit code, when it is told to stop."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WITHIN_SECONDS)


def rows(rows_pb):
    """One window's records as an encoded `Rows`."""
    columns = Batch(0, ALL_SLOTS).columns()
    message = rows_pb.Rows()
    for at, contributor, country, group, slot, value in zip(*columns.values(), strict=True):
        row = message.rows.add(contributor=str(contributor), country=str(country), group=str(group), slot=int(slot), value=float(value))
        row.at.FromMicroseconds(int(at))
    return message.SerializeToString()


def expect(what, is_so, detail=""):
    """Ends the run when something is not as it must be."""
    print(f"{'ok' if is_so else 'NOT OK':6} {what} {detail}", flush=True)
    if not is_so:
        raise SystemExit(1)


def dies_of_a_connection(binary, deployment, bug, port, thread):
    """A gateway that panics when a connection comes to a port: it ends by itself."""
    failing = Gateway(binary, deployment, bug)
    until(lambda: "serving" in deployment.log.read_text(), "the gateway serves")
    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN_SECONDS):
        code = failing.ended()
    expect(f"the gateway ends by itself with code 70: {bug}", code == EXIT_INTERNAL, str(code))
    expect(f"the log names {thread}", f"{thread} panicked" in deployment.log.read_text())
    deployment.log.unlink()


def main():
    """The whole story."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="a gateway with planted bugs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        deployment = Deployment(Path(root) / "deployment", Files(root))
        pb, rows_pb = protocol.load([given.bin], deployment.config)
        http = free_port()
        with deployment.config.open("a") as config:
            config.write(f'\n[http]\nlisten = "127.0.0.1:{http}"\n')
        dies_of_a_connection(given.bin, deployment, "panic-in-listener", deployment.port, "task `listener`")
        dies_of_a_connection(given.bin, deployment, "panic-in-http", http, "thread `http`")

        failing = Gateway(given.bin, deployment, "panic-in-fold")
        answer = failing.publish(pb, rows_pb, 1)
        expect("the request is not acknowledged", answer is None, str(answer))
        code = failing.ended()
        expect("the gateway ends by itself with code 70", code == EXIT_INTERNAL, str(code))
        log = deployment.log.read_text()
        expect("the log names the thread", "worker-0" in log and "panicked" in log)

        sound = Gateway(given.bin, deployment, "")
        repeat = sound.publish(pb, rows_pb, 1)
        is_counted = repeat.duplicate and repeat.accepted == len(ALL_SLOTS) * 8 and not repeat.error.code
        expect("a repeat is told that it was taken in", is_counted, str(repeat.accepted))
        taken = sound.publish(pb, rows_pb, 2)
        expect("the next request is taken in", taken.accepted == len(ALL_SLOTS) * 8 and not taken.error.code, str(taken.accepted))
        expect("the gateway stops as told", sound.stop() == 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
