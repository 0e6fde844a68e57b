"""The mode `kafka`: as `kill`, with releases to a real broker, read back with `read_committed`: each exactly once, in every format."""

import dataclasses
import functools
import os
import subprocess
import tempfile

import modes
from destinations import Kafka
from formats import OF_MESSAGES
from run import Outcome, skipped


async def kafka(options):
    """Starts a broker of its own by KAFKA_HOME, unless BAILIWICK_TEST_KAFKA names one."""
    brokers, home = os.environ.get("BAILIWICK_TEST_KAFKA"), os.environ.get("KAFKA_HOME")
    if not brokers and not home:
        return skipped("kafka", "neither KAFKA_HOME nor BAILIWICK_TEST_KAFKA is set")
    with tempfile.TemporaryDirectory(prefix="bailiwick-crash-kafka-") as directory:
        own = None if brokers else [f"{home}/bin/kafka", "start", directory]
        if own:
            brokers = subprocess.run(own, check=True, capture_output=True, text=True).stdout.strip()
        try:
            outcome = Outcome()
            fault = modes.kill if options.durable else modes.clean
            share = {"cycles": max(1, options.cycles // len(OF_MESSAGES)), "records": options.records // len(OF_MESSAGES)}
            for kind in OF_MESSAGES:
                topic = f"crash-{options.seed}-{os.getpid()}-{kind}"
                destination = functools.partial(make, brokers, topic, kind)
                outcome.add(await fault(dataclasses.replace(options, **share), f"kafka-{kind}", destination=destination))
            return outcome
        finally:
            if own:
                subprocess.run([own[0], "stop", directory], check=False, capture_output=True)


def make(brokers, topic, kind, _root):
    """The destination of a run."""
    return Kafka(brokers, topic, kind)
