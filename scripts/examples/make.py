"""Makes the data and the models of the three example deployments.

For each example it writes `data.csv.gz`, `model.onnx` and `model.json`. The README beside this file says
what is in them, which columns are real and which are generated.

    python make.py                          # all three, into ../../examples
    python make.py card-fraud --out /tmp/x  # one, elsewhere
"""

import os

# One thread: sums are then always added in the same order. Read when numpy is imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
from pathlib import Path

import card_fraud
import delivery_eta
import predictive_maintenance

EXAMPLES = {
    "card-fraud": card_fraud.make,
    "predictive-maintenance": predictive_maintenance.make,
    "delivery-eta": delivery_eta.make,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the data and the models of the examples.")
    parser.add_argument("examples", nargs="*", metavar="EXAMPLE", help=f"{', '.join(EXAMPLES)}; all of them if none is named")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[2] / "examples", help="the directory of the examples")
    arguments = parser.parse_args()
    for name in arguments.examples:
        if name not in EXAMPLES:
            parser.error(f"there is no example `{name}`; there are {', '.join(EXAMPLES)}")
    for name in arguments.examples or EXAMPLES:
        directory = arguments.out / name
        directory.mkdir(parents=True, exist_ok=True)
        EXAMPLES[name](name, directory)


if __name__ == "__main__":
    main()
