"""A small deployment of its own: the folder that one gateway is run in."""

import os
import random
import socket
from pathlib import Path

from workload import GROUPS, SLOTS, STREAM, VALUE_MAX

REPOSITORY = Path(__file__).resolve().parents[2]
DATASET = "events_by_group"
DESTINATION = "desk"

POLICY = f"""
schema = "bailiwick.policy/1"

# On any day.
[review]
on_expired = "warn"

[streams.{STREAM}]
event_time   = "at"
history_from = "2024-01-01T00:00:00Z"
contributor  = "contributor"
untested     = ["collection.place", "subject.citizenship", "controller.establishment", "source.system"]
late_max     = "PT8760H"
undeclared   = "drop"
idle_after   = "PT1H"

[streams.{STREAM}.facts]
"subject.residence" = [{{ field = "country", strength = 90 }}]

[streams.{STREAM}.fields]
at          = {{ type = "timestamp", class = "personal" }}
contributor = {{ type = "string", class = "personal", bytes_max = 32 }}
country     = {{ type = "string", class = "personal", bytes_max = 6 }}
group       = {{ type = "string", class = "personal", bytes_max = 16 }}
slot        = {{ type = "int64", class = "personal", range = [0, {SLOTS}] }}
value       = {{ type = "float64", class = "personal", range = [0, {VALUE_MAX:.0f}] }}

[datasets.{DATASET}]
stream           = "{STREAM}"
window           = {{ size = "PT1S", grace = "PT1S" }}
min_contributors = 10
group_by         = [{{ field = "group", domain = {list(GROUPS)} }}]
metrics = [
  {{ name = "records", fn = "count" }},
  {{ name = "value_sum", fn = "sum", field = "value" }},
  {{ name = "value_mean", fn = "mean", field = "value" }},
  {{ name = "slots", fn = "histogram", field = "slot", edges = {list(range(SLOTS + 1))} }},
]

[destinations.{DESTINATION}]
country = "IE"
accepts = ["{DATASET}"]

[[shown]]
conditions = ["data.anonymity_assessed"]
for        = {{ dataset = "{DATASET}" }}
by         = "nobody"
ref        = "a test"
""".replace("'", '"')

GATEWAY = """
[gateway]
id       = "crash-1"
country  = "DE"
serves   = ["eu-gdpr"]
policies = ["{repository}/policies", "policies"]
stop_within = "PT60S"

[listen]
grpc = "127.0.0.1:{port}"

[limits]
batch_bytes_max     = {batch_bytes_max}
in_flight_bytes_max = 16777216
"""

# Small, so that segments rotate, are released and are checkpointed often.
JOURNAL = """
[journal]
directory        = "disk/journal"
segment_bytes    = {segment_bytes}
checkpoint_bytes = {checkpoint_bytes}
checkpoint_every = "PT1S"
"""


class Deployment:
    """`root/` holds the configuration and the log; `root/disk/` what must survive: the journal and released files."""

    def __init__(self, root, destination, *, policy=POLICY, journal=True, segment_bytes=1 << 20, deck=None, fields="", policy_more="", more="", sealed=False):
        """`deck` deals the format of the destination. `fields` are declared beside those of the policy,
        `policy_more` is added to it and `more` to gateway.toml; a sealed journal has a key."""
        self.root = Path(root)
        self.disk = self.root / "disk"
        self.destination = destination
        self.port = free_port()
        self.config = self.root / "gateway.toml"
        self.log = self.root / "gateway.log"
        (self.root / "policies").mkdir(parents=True)
        self.disk.mkdir()
        (self.root / "policies" / "policy.toml").write_text(policy.replace("\n[datasets.", f"{fields}\n[datasets.", 1) + policy_more)
        text = GATEWAY.format(repository=REPOSITORY, port=self.port, batch_bytes_max=segment_bytes // 4) + destination.toml(DESTINATION, deck)
        if journal:
            text += JOURNAL.format(segment_bytes=segment_bytes, checkpoint_bytes=segment_bytes)
        if sealed:
            key = self.root / "keys" / "eu-gdpr"
            key.parent.mkdir(mode=0o700)
            key.touch(mode=0o600)
            key.write_bytes(os.urandom(32))
            text += '\n[journal.keys]\neu-gdpr = "keys/eu-gdpr"\n'
        self.config.write_text(text + more)

    @property
    def address(self):
        """Where the gateway listens."""
        return f"127.0.0.1:{self.port}"


def free_port():
    """A free port outside the range of outgoing connections, so that it stays free while the gateway is down."""
    while True:
        port = random.SystemRandom().randrange(15_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
