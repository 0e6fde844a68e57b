"""Gateways in folders of their own, and one real Prometheus that watches them all with the rules of deploy/alerts.yml."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "alerts.yml"
WITHIN_SECONDS = 300.0
STOP_WITHIN_SECONDS = 120.0
COUNTRIES = ("DE", "FR", "IE", "NL")


class Failed(Exception):
    """Something did not come as it must."""


def until(holds, what, within=WITHIN_SECONDS):
    """Waits until a condition holds, and gives what it gave."""
    deadline = time.monotonic() + within
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise Failed(f"not within {within:.0f} s: {what}")
        time.sleep(0.1)
    return found


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


def get(port, path):
    """The status and the text of an answer over HTTP; None while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()
    except OSError:
        return None


def shortened(rules):
    """The rules with seconds where they have minutes: how long something must last, how far a rate looks back, and after which
    age a release is old. Nothing else is changed."""
    rules, waits = re.subn(r"^( +for: )\S+$", r"\g<1>1s", rules, flags=re.MULTILINE)
    rules, spans = re.subn(r"\[\d+m\]", "[8s]", rules)
    rules, ages = re.subn(r"(oldest_release_seconds > )900$", r"\g<1>3", rules, flags=re.MULTILINE)
    if not waits or not spans or ages != 1:
        raise Failed(f"{RULES} is not as it was when its durations were shortened here")
    return rules


def names(rules):
    """The names of the alerts."""
    return re.findall(r"^ +- alert: (\S+)$", rules, re.MULTILINE)


class Prometheus:
    """Scrapes each gateway every second."""

    def __init__(self, programs, folder):
        self.folder, self.port, self.targets = folder, free_port(), {}
        self.lock = threading.Lock()
        folder.mkdir()
        folder.joinpath("alerts.yml").write_text(shortened(RULES.read_text()))
        folder.joinpath("targets.json").write_text("[]")
        folder.joinpath("prometheus.yml").write_text(
            "global: { scrape_interval: 1s, evaluation_interval: 1s }\nrule_files: [alerts.yml]\n"
            "scrape_configs: [{ job_name: bailiwick, file_sd_configs: [{ files: [targets.json], refresh_interval: 2s }] }]\n")
        with folder.joinpath("log").open("wb") as log:
            self.process = subprocess.Popen(
                [Path(programs) / "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                 f"--web.listen-address=127.0.0.1:{self.port}"],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: (get(self.port, "/-/ready") or [0])[0] == 200, "Prometheus is ready")

    def watch(self, name, port):
        """From now on it scrapes a gateway, as the instance of this name."""
        with self.lock:
            self.targets[name] = port
            targets = [{"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}} for name, port in self.targets.items()]
            self.folder.joinpath("targets.new").write_text(json.dumps(targets))
            self.folder.joinpath("targets.new").rename(self.folder / "targets.json")

    def firing(self, instance):
        """The alerts of an instance that fire."""
        labels = [alert["labels"] for alert in self._tells("/api/v1/alerts")["alerts"] if alert["state"] == "firing"]
        return {of["alertname"] for of in labels if of["instance"] == instance}

    def has_scraped(self, instance):
        """Whether the last scrape of an instance went well."""
        query = urllib.parse.quote(f'up{{instance="{instance}"}} == 1')
        return bool(self._tells(f"/api/v1/query?query={query}")["result"])

    def _tells(self, path):
        def answers():
            status, text = get(self.port, path) or (None, None)
            return text if status == 200 else None

        return json.loads(until(answers, f"Prometheus answers {path}"))["data"]

    def close(self):
        """Ends it."""
        self.process.terminate()
        try:
            self.process.wait(STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Gateway:
    """A gateway as `bailiwick init` sets it up, watched from its first start on (unless there is no Prometheus)."""

    def __init__(self, program, prometheus, root, name):
        self.program, self.prometheus, self.name = program, prometheus, name
        self.folder = root / name
        self.port, self.http = free_port(), free_port()
        self.log = root / f"{name}.log"
        self.process = None
        self.others = []  # programs that this one started
        self.fired = set()
        self.run("init", self.folder)
        # Their reviews come near as time goes by, which is not what is tested here.
        for law in (self.folder / "policies" / "shipped").rglob("*.toml"):
            law.write_text(re.sub(r"^(review_by +=) .*$", r"\1 2999-01-01", law.read_text(), flags=re.MULTILINE))
        self.edit("gateway.toml", "127.0.0.1:7400", f"127.0.0.1:{self.port}")
        self.edit("gateway.toml", "127.0.0.1:7401", f"127.0.0.1:{self.http}")
        self.edit("gateway.toml", 'rotate_after = "PT10S"', 'rotate_after = "PT1S"')
        self.edit("gateway.toml", "[gateway]\n", '[gateway]\nstop_within = "PT60S"\n')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for other in self.others:
            if other.poll() is None:
                other.kill()
            other.wait()
        self.kill()

    @property
    def journal(self):
        """The journal's directory."""
        return self.folder / "journal"

    def edit(self, file, old, new):
        """Changes a text that stands in a file once."""
        path = self.folder / file
        text = path.read_text()
        if text.count(old) != 1:
            raise Failed(f"`{old}` is in {path} {text.count(old)} times")
        path.write_text(text.replace(old, new))

    def add(self, file, text):
        """Adds to the end of a file."""
        with (self.folder / file).open("a") as out:
            out.write(text)

    def run(self, *arguments):
        """Runs the program to its end."""
        done = subprocess.run([self.program, *map(str, arguments)], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{self.name}: {' '.join(map(str, arguments))} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, descriptors=None):
        """Starts it, perhaps with a limit of file descriptors, and waits until it is ready."""
        limit = [] if descriptors is None else ["prlimit", f"--nofile={descriptors}:{descriptors}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*limit, self.program, "run", "-c", self.folder / "gateway.toml", "--log-format", "text"],
                                            stdin=subprocess.DEVNULL, stderr=log)

        def is_ready():
            if self.process.poll() is not None:
                raise Failed(f"it ended with {self.process.returncode}")
            return (get(self.http, "/readyz") or [0])[0] == 200

        until(is_ready, "the gateway is ready")
        if self.prometheus is not None:
            self.prometheus.watch(self.name, self.http)
            # What was counted before the first scrape is no increase.
            until(lambda: self.prometheus.has_scraped(self.name), "Prometheus has scraped it")

    def reload(self):
        """Lets it read its policies again."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        """SIGTERM; waits for its end."""
        self.process.terminate()
        if (code := self.process.wait(STOP_WITHIN_SECONDS)) != 0:
            raise Failed(f"a stop ended with {code}")

    def kill(self):
        """SIGKILL."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def begin(self, *command):
        """Starts another program beside it, which ends with it at the latest."""
        with (self.folder / "others.log").open("ab") as out:
            self.others.append(subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                                env={**os.environ, "NO_COLOR": "1"}))
        return self.others[-1]

    def begin_sending(self, producer, records, *options, stream="events"):
        """Sends records as a producer; it sends again what was not taken in."""
        return self.begin(self.program, "send", "--to", f"http://127.0.0.1:{self.port}", "-s", stream, "-p", producer,
                          "--patience", 3000, *options, self.write(f"{producer}.jsonl", records))

    def write(self, name, records):
        """Writes records into a file."""
        file = self.folder / name
        with file.open("w") as out:
            out.writelines(f"{json.dumps(record)}\n" for record in records)
        return file

    def send(self, producer, records, *options, stream="events"):
        """Sends records, all of which are taken in."""
        self.sent(self.begin_sending(producer, records, *options, stream=stream))

    def sent(self, sending):
        """Waits until everything is taken in."""
        if (code := sending.wait(WITHIN_SECONDS)) != 0:
            raise Failed(f"sending ended with {code}: {self.folder.joinpath('others.log').read_text()[-2000:]}")

    def fires(self, *alerts):
        """Waits until alerts fire."""
        for alert in alerts:
            until(lambda alert=alert: alert in self.prometheus.firing(self.name), f"{alert} fires")
            self.fired.add(alert)

    def clears(self, *alerts):
        """Waits until alerts do not fire any more, also a while later: what is not scraped once does not fire, either."""
        def is_clear(alert):
            return self.prometheus.has_scraped(self.name) and alert not in self.prometheus.firing(self.name)

        def stays_clear(alert):
            if not is_clear(alert):
                return False
            time.sleep(2)
            return is_clear(alert)

        for alert in alerts:
            until(lambda alert=alert: stays_clear(alert), f"{alert} clears")

    def is_quiet(self):
        """Nothing may fire while nothing is wrong."""
        until(lambda: not self.prometheus.firing(self.name), "no alert fires before the fault")

    def last_lines(self, count=8):
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:]) if self.log.exists() else "it has no log"


def records(minutes_ago, users, minutes=1, prefix="u"):
    """Records of some users in each of some minutes, from so many minutes ago on."""
    begin = datetime.now(timezone.utc) - timedelta(minutes=minutes_ago)
    for minute in range(minutes):
        at = (begin + timedelta(minutes=minute)).isoformat()
        for user in range(users):
            yield {"at": at, "user": f"{prefix}-{minute}-{user}", "country": COUNTRIES[user % len(COUNTRIES)], "kind": "view", "value": 1.0}
