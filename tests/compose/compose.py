#!/usr/bin/env python3
"""Builds the image and brings docker-compose.yml up for real; breaks it while the examples' data stream in; and holds what the
hub's Kafka has against an oracle: nothing acked is lost, nothing is counted twice, no record is seen on the border.

With --netns the same services run in network namespaces, without Docker, and the same happens to them.

Exit codes: 0 all held; 1 something did not; 77 no Docker (with --netns: no namespace) can be started here, so nothing was tested.
"""

import argparse
import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

import figures
import image
import images
import selftest
import v2
from engine import CannotStart, Engine, Failed, until
from hub import cells, examples, expect, holds
from loads import Load
from namespaces import Namespaces
from operations import Procedures
from stack import Stack
from wire import RELEASED, Capture

SKIPPED = 77
GATEWAYS = {"eu-1": "eu", "eu-2": "eu", "us-1": "us", "in-1": "in"}
# Which gateway of each region takes a stream, as docker-compose.yml has it for its loads.
TAKES = {"payments": ["eu-1", "us-1", "in-1"], "readings": ["eu-2", "us-1", "in-1"], "deliveries": ["eu-2", "us-1", "in-1"]}
# Whom a stream's records are of: what every record says, and no released cell may.
CANARIES = {"payments": rb"card-\d{6}", "readings": rb"m-\d{4}", "deliveries": rb"recipient-\d{6}"}
ROLLED = ("eu-2", "us-1")
STOPPED = (0, 75)  # all was released; or releases wait for the next start


class Run:
    """One run of the whole."""

    def __init__(self, program, kafka_home, scratch):
        self.program, self.kafka_home, self.scratch = program, kafka_home, Path(scratch)
        self.examples = examples()
        for stream, example in self.examples.items():
            assert example.data[example.stream["contributor"]].str.fullmatch(CANARIES[stream].decode()).all(), stream
        self.began = time.monotonic()

    def say(self, what):
        """One line of progress."""
        print(f"[{time.monotonic() - self.began:5.0f} s] {what}", flush=True)

    def with_docker(self):
        """The image, the services of docker-compose.yml, and the procedures of docs/operations.md."""
        self.say(f"Compose v2: {v2.check()}")
        images.debian()
        images.services(self.kafka_home)
        images.gateway(self.program)
        self.say(f"the Dockerfile's full path {images.full_path()}; the image takes the program that was built outside")
        self.say(image.check(images.GATEWAY, self.scratch))
        with Stack(f"bailiwick-ci-{os.getpid()}", self.scratch) as stack:
            self.steps(stack)
            before = [expect(self.examples["readings"], gateway) for gateway in TAKES["readings"]]
            Procedures(stack, self.say).all(self.examples, before)
            self.say("every procedure of docs/operations.md does what it says")

    def without_docker(self):
        """The same services in network namespaces."""
        with Namespaces(self.program, self.kafka_home, self.scratch) as stack:
            self.steps(stack)

    def steps(self, stack):
        """What happens to the services, in order."""
        selftest.check()
        self.first_start(stack)
        separate(stack)
        self.say("no way leads from a region's producers to another region or to the border")
        with self.captured(stack):
            self.faults(stack)
            self.upgrade(stack)
        self.down_and_up(stack)
        watched(stack)
        self.say("Prometheus reads the metrics of all four gateways, and shows a certificate to each")

    def first_start(self, stack):
        """Everything starts, in its order."""
        began = time.monotonic()
        stack.up(*GATEWAYS, "hub-topics", "prometheus")
        stack.healthy(*GATEWAYS, "hub-kafka", "prometheus")
        stack.ended("hub-topics")
        self.say(f"four gateways and a hub are ready after {time.monotonic() - began:.1f} s")
        self.say(figures.of(stack, "eu-2"))

    @contextlib.contextmanager
    def captured(self, stack):
        """What goes over the border meanwhile holds released cells, and nothing that only a record says."""
        capture = Capture(stack.tcpdump("border"), self.scratch / "border.pcap")
        try:
            yield
        finally:
            capture.stop()
        texts = capture.texts()
        if any(not any(word in text for text in texts) for word in RELEASED):
            raise Failed("the capture of the border shows no released cells, so it shows nothing")
        canary = re.compile(b"|".join(CANARIES.values()))
        if leaked := sum(len(canary.findall(text)) for text in texts):
            raise Failed(f"records were seen on the border: {leaked} contributors")
        self.say(f"no contributor of a record was seen in {sum(map(len, texts)):,} bytes of the border's traffic, unpacked")

    def faults(self, stack):
        """Payments stream in while a gateway is killed, the hub's Kafka is killed, and a region's border is cut."""
        loads = begin(stack, "payments", 0.3)
        for gateway in TAKES["payments"]:
            taken(stack, gateway)
        stack.cut("us-1", "border")
        stack.kill("eu-1")
        stack.kill("hub-kafka")
        for load in loads.values():
            load.give(0.7)
        for service in ("eu-1", "hub-kafka"):
            until(lambda service=service: stack.restarts(service) >= 1, f"{service} was started again")
            stack.healthy(service)
        expected = self.finish("payments", loads)
        there = [cell for cell in cells(stack, "fraud-desk") if cell["gateway"] == "us-1"]
        if len(there) >= next(len(one.cells) for one in expected if one.gateway == "us-1"):
            raise Failed("everything of us-1 came to the hub while its border was cut")
        stack.join("us-1", "border")
        count = holds(stack, "payments", expected)
        self.say(f"payments: eu-1 killed, the hub's Kafka killed, us-1's border cut: all {count} cells are right, each once")

    def upgrade(self, stack):
        """Readings stream in while gateways are made anew from another build, one at a time, and back."""
        loads = begin(stack, "readings", 0.3)
        for build, share in ((stack.NEXT, 0.6), (stack.THIS, 0.9)):
            for gateway in ROLLED:
                began = time.monotonic()
                stack.roll(gateway, build)
                self.say(f"{gateway} runs {build} after {time.monotonic() - began:.1f} s")
            for load in loads.values():
                load.give(share)
        count = holds(stack, "readings", self.finish("readings", loads))
        self.say(f"readings: two gateways rolled to another build and back: all {count} cells are right, each once")

    def down_and_up(self, stack):
        """Half of the deliveries; everything down and up again; the other half."""
        first = self.accepted("deliveries", {gateway: send(stack, "deliveries", gateway, upto=0.5) for gateway in TAKES["deliveries"]})
        for gateway, code in stack.stop(*GATEWAYS).items():
            if code not in STOPPED:
                raise Failed(f"{gateway} ended its stop with {code}")
        stack.down()
        self.first_start(stack)
        second = self.accepted("deliveries", {gateway: send(stack, "deliveries", gateway, since=0.5) for gateway in TAKES["deliveries"]})
        expected = [expect(self.examples["deliveries"], gateway) for gateway in first]
        agree({gateway: first[gateway] + second[gateway] for gateway in first}, expected)
        count = holds(stack, "deliveries", expected)
        self.say(figures.of(stack, "eu-2"))
        self.say(f"deliveries: everything down and up in between: all {count} cells are right, each once")

    def finish(self, stream, loads):
        """Ends the loads. As many records as must be were accepted; what the hub must hold then."""
        expected = [expect(self.examples[stream], gateway) for gateway in loads]
        agree(self.accepted(stream, loads), expected)
        return expected

    def accepted(self, stream, loads):
        """Ends the loads: how many records each gateway accepted."""
        counts = {gateway: load.finish() for gateway, load in loads.items()}
        self.say(f"{stream}: accepted {', '.join(f'{count:,} by {gateway}' for gateway, count in counts.items())}")
        return counts


def watched(stack):
    """Prometheus gets the metrics of every gateway."""
    def query(what):
        return stack.execute("prometheus", "promtool", "query", "instant", "http://localhost:9090", what)
    # The job's name is what the alerts and the dashboard look for.
    until(lambda: f"=> {len(GATEWAYS)} " in query('sum(up{job=~"bailiwick.*"})'), "Prometheus scrapes every gateway")
    until(lambda: f"=> {len(GATEWAYS)} " in query("count(count by (instance) (bailiwick_records_accepted_total))"), "each tells its counts")


def agree(accepted, expected):
    """Every record that a gateway must accept was accepted, and no other."""
    for one in expected:
        if accepted[one.gateway] != one.records:
            raise Failed(f"{one.gateway} accepted {accepted[one.gateway]} records, and {one.records} are its own")


def send(stack, stream, gateway, **part):
    """Begins a load of the gateway's region."""
    return Load(stack, GATEWAYS[gateway], gateway, stream, **part)


def begin(stack, stream, share):
    """Begins a stream's loads in all regions and hands them their first records."""
    loads = {gateway: send(stack, stream, gateway) for gateway in TAKES[stream]}
    for load in loads.values():
        load.give(share)
    return loads


def taken(stack, gateway):
    """Waits until a gateway has something of a load in its journal."""
    def is_there():
        said = stack.execute(gateway, "/usr/bin/bailiwick", "journal", "inspect", "--json", "/var/lib/bailiwick/journal")
        return '"payments"' in said
    until(is_there, f"{gateway} has taken records in")


def separate(stack):
    """From a region's network, only that region's gateways are reached."""
    ports = {**dict.fromkeys(GATEWAYS, 7400), "hub-kafka": 9092}
    for region in sorted(set(GATEWAYS.values())):
        places = {f"{host}:{port}": service for service, port in ports.items() for host in (service, *stack.addresses(service))}
        there = {places[place] for place in reached(stack, region, places)}
        own = {service for service, of in GATEWAYS.items() if of == region}
        if not own <= there:
            raise Failed(f"{region} does not reach its own gateways, so this says nothing")
        if strangers := there - own:
            raise Failed(f"{', '.join(sorted(strangers))} can be reached from the network of {region}")


def reached(stack, region, places):
    """Which of the places a producer of the region can connect to."""
    script = 'for place; do (timeout 60 bash -c ": </dev/tcp/${place%:*}/${place##*:}" 2>/dev/null && echo "$place") & done; wait'
    said = stack.once(f"{region}-load", "bash", "-c", script, "-", *places).splitlines()
    return [place for place in said if place in places]


def main():
    """Runs all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="the program, built in release mode")
    parser.add_argument("--kafka-home", default=os.environ.get("KAFKA_HOME"), help="a folder with Kafka's libs/ [KAFKA_HOME]")
    parser.add_argument("--netns", action="store_true", help="in network namespaces, without Docker")
    given = parser.parse_args()
    if not given.kafka_home:
        parser.error("no Kafka: give --kafka-home or KAFKA_HOME")
    # What was started is stopped and removed then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with tempfile.TemporaryDirectory(prefix="bailiwick-compose-") as scratch:
            run = Run(os.path.abspath(given.bin), os.path.abspath(given.kafka_home), scratch)
            if given.netns:
                run.without_docker()
            else:
                with Engine():
                    run.with_docker()
    except CannotStart as error:
        # One line, which scripts/compose-test says again.
        print(f"NOT TESTED: {' '.join(str(error).split())}", file=sys.stderr)
        return SKIPPED
    except Failed as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
