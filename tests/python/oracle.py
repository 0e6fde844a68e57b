"""What an example's gateway must have released, by pandas and onnxruntime alone.

Reads the declaration (policy.toml), the region's codes (regions.toml), the data and the model; computes
every cell; compares with the released JSON lines: the same cells, the same counts, numbers to 1e-9.
"""

import json
import math
import tomllib
from pathlib import Path

import numpy as np
import pandas

import parts
from scores import score

TOLERANCE = 1e-9
SUMS = ("sum", "mean", "variance")


def seconds(duration):
    number, unit = int(duration[2:-1]), duration[-1]
    return number * {"S": 1, "M": 60, "H": 3600}[unit]


def key_of(values, key):
    words = key["domain"]
    return values.where(values.isin(words), "other").astype(str)


def with_value(values):
    has_value = values.notna()
    return has_value & np.isfinite(values) if values.dtype.kind == "f" else has_value


def in_ranges(values, edges):
    """The range of each value; one outside of all is in the nearest."""
    found = np.searchsorted(edges, values.astype(np.float64).clip(edges[0], edges[-1]), side="right") - 1
    return found.clip(0, len(edges) - 2)


def cell_metrics(cell, metrics, fields, ranges, contributor, least):
    """What leaves of a cell with enough contributors."""
    people = cell[contributor].where(cell[contributor].notna(), "(nobody)").tolist()
    may_be_missing = lambda field: not field.get("required", True) or field.get("allow_non_finite", False)
    optional = {spec["field"] for spec in metrics if "field" in spec and may_be_missing(fields.get(spec["field"], {}))}
    of_field = {spec["field"]: (cell[spec["field"]], with_value(cell[spec["field"]])) for spec in metrics if "field" in spec}
    ways = {}
    for spec in metrics:
        if spec.get("field") in optional:
            has_value = of_field[spec["field"]][1]
            ways.setdefault(("presence", spec["field"]), [0 if has else None for has in has_value])
    for spec in metrics:
        if spec["fn"] in ("histogram", "fraction"):
            values, has_value = of_field[spec["field"]]
            own = in_ranges(values, spec["edges"]) if spec["fn"] == "histogram" else values == spec["equals"]
            kind = int if spec["fn"] == "histogram" else bool
            ways[spec["fn"], spec["name"]] = [kind(part) if has else None for part, has in zip(own, has_value)]
    by_name = {spec["name"]: spec for spec in metrics}
    described = []
    for (kind, name), way in ways.items():
        field = name if kind == "presence" else by_name[name]["field"]
        ranges_of = len(by_name[name]["edges"]) - 1 if kind == "histogram" else 0
        described.append((kind, field if field in optional else None, way, ranges_of))
    plans = dict(zip(ways, parts.plan(people, described, least)))
    summed = {spec["field"] for spec in metrics if spec["fn"] in SUMS}
    leave = {field: sum_leaves(people, *of_field[field], *ranges[field], least) for field in summed}
    squares = {field: leave[field] and squares_leave(people, *of_field[field], *ranges[field]) for field in summed}
    is_withheld = lambda spec: spec["fn"] in SUMS and not (squares if spec["fn"] == "variance" else leave)[spec["field"]]
    return {
        spec["name"]: None if is_withheld(spec) else metric(cell, spec, ranges, of_field, ways, plans) for spec in metrics
    }


def sum_leaves(people, values, has_value, low, high, least):
    """Whether a sum says little about everybody: as many as a part needs are off each end of the range, or nobody; and what all but
    the two largest add is at least 10 % of what the largest one adds."""
    values = values[has_value].astype(np.float64).clip(low, high)
    people = np.array(people, dtype=object)[has_value.to_numpy()]
    for portions in (values - low, high - values):
        of_each = portions.groupby(people).sum().sort_values(ascending=False)
        of_each = of_each[of_each > 0]
        if len(of_each) and (len(of_each) < least or of_each.iloc[2:].sum() < 0.1 * of_each.iloc[0]):
            return False
    # As many have another mean than most have, or nobody. (Relations of several fields are for tests in Rust: the examples have none.)
    means = ((values - low) / (high - low)).groupby(people).mean().round(7)
    most = means.value_counts().iloc[0] if len(means) else 0
    return not (2 * most > len(means) and 0 < len(means) - most < least)


def squares_leave(people, values, has_value, low, high):
    """Whether no two contributors are most of the squares, by bounds of what each adds."""
    values = (values[has_value].astype(np.float64).clip(low, high) - low) / (high - low)
    people = np.array(people, dtype=object)[has_value.to_numpy()]
    for off in (values, 1 - values):
        of_each = off.groupby(people).agg(["sum", "count"])
        least = (of_each["sum"] ** 2 / of_each["count"]).to_numpy()
        total = (off**2).sum()
        for own, added in zip(least, of_each["sum"]):
            without = least.sum() - own
            most = max(min(added**2, added, total - without), own)
            others = np.sort(np.append(np.delete(least, np.flatnonzero(least == own)[0]), 0.0))
            if others[:-1].sum() * 100 < most * 10 * (1 - 1e-9):
                return False
    return True


def metric(cell, spec, ranges, of_field, ways, plans):
    fn = spec["fn"]
    if fn == "count":
        return len(cell)
    values, has_value = of_field[spec["field"]]
    if fn in ("histogram", "fraction"):
        plan, way = plans[fn, spec["name"]], ways[fn, spec["name"]]
        if plan is None:
            return None
        if fn == "fraction":
            return way.count(True) / (way.count(True) + way.count(False))
        counts = [None] * (len(spec["edges"]) - 1)
        for group in plan:
            counts[group[0]] = sum(way.count(part) for part in group)
        return counts
    if not plans.get(("presence", spec["field"]), True):
        return None
    values = values[has_value].astype(np.float64).clip(*ranges[spec["field"]])
    return {"sum": values.sum, "mean": values.mean, "variance": lambda: values.var(ddof=0)}[fn]()


class Example:
    """An example's declaration, data and scores."""

    def __init__(self, directory):
        directory = Path(directory)
        self.policy = tomllib.loads((directory / "policies" / "policy.toml").read_text())
        self.regions = tomllib.loads((directory / "../../policies/regions.toml").read_text())["regions"]
        (self.stream_name, self.stream), = self.policy["streams"].items()
        (self.dataset_name, self.dataset), = self.policy["datasets"].items()
        fields = self.stream["fields"]
        texts = {name: str for name, spec in fields.items() if spec["type"] == "string"}
        self.data = pandas.read_csv(directory / "data.csv.gz", dtype=texts, keep_default_na=False)
        for name, spec in fields.items():
            if spec["type"] == "float64":
                self.data[name] = self.data[name].astype(np.float64)
        self.times = pandas.to_datetime(self.data[self.stream["event_time"]], utc=True)
        self.scores = score(self.data, self.policy, directory / "model.onnx")

    def expected(self, region, count):
        """The cells of the first so many records, how many are withheld, and how many records they hold."""
        entries = self.regions[region]["codes"]
        codes = {entry["code"] if isinstance(entry, dict) else entry for entry in entries}
        data = self.data.assign(**self.scores).iloc[:count]
        (evidence,), = self.stream["facts"].values()
        place = data[evidence["field"]]
        window = seconds(self.dataset["window"]["size"])
        micros = self.times.iloc[:count].astype("datetime64[us, UTC]").astype("int64")
        data = data.assign(**{"(window)": micros // (window * 1_000_000) * window})
        data = data[place.isin(codes) | place.str[:2].isin(codes)]
        keys = ["(window)"]
        for key in self.dataset["group_by"]:
            data = data.assign(**{"key " + key["field"]: key_of(data[key["field"]], key)})
            keys.append("key " + key["field"])
        ranges = {name: field["range"] for name, field in self.stream["fields"].items() if "range" in field}
        for output in next(iter(self.policy["models"].values()))["outputs"]:
            if "range" in output:
                ranges[output["field"]] = output["range"]
        expected, withheld = {}, 0
        for cell_key, cell in data.groupby(keys):
            contributor, least = self.stream["contributor"], self.dataset["min_contributors"]
            if cell[contributor].nunique(dropna=False) < least:
                withheld += 1
                continue
            metrics = self.dataset["metrics"]
            fields = self.stream["fields"]
            expected[cell_key] = cell_metrics(cell, metrics, fields, ranges, contributor, least)
        return expected, withheld, len(data)

    def compare(self, released, expected):
        found = {}
        for file in sorted((Path(released) / self.dataset_name).glob("*.jsonl")):
            for line in file.read_text().splitlines():
                line = json.loads(line)
                start = int(pandas.Timestamp(line["window_start"]).timestamp())
                cell_key = (start, *(line[key["field"]] for key in self.dataset["group_by"]))
                assert cell_key not in found, f"released twice: {cell_key}"
                found[cell_key] = line
        assert found.keys() == expected.keys(), (
            f"{len(found.keys() - expected.keys())} cells too many, {len(expected.keys() - found.keys())} missing"
        )
        for cell_key, metrics in expected.items():
            for name, value in metrics.items():
                got = found[cell_key][name]
                if isinstance(value, float):
                    assert math.isclose(got, value, rel_tol=TOLERANCE, abs_tol=1e-9), (cell_key, name, got, value)
                else:
                    assert got == value, (cell_key, name, got, value)
