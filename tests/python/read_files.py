"""Released files in both formats hold the same cells, for pandas, pyarrow and DuckDB.

usage: read_files.py JSONL_DIR ARROW_DIR
"""

import sys
from pathlib import Path

import duckdb
import pandas
import pyarrow
import pyarrow.ipc

json_files = sorted(map(str, Path(sys.argv[1]).rglob("*.jsonl")))
arrow_files = sorted(map(str, Path(sys.argv[2]).rglob("*.arrow")))
assert json_files and arrow_files
lines = pandas.concat([pandas.read_json(file, lines=True) for file in json_files])
table = pyarrow.concat_tables([pyarrow.ipc.open_file(file).read_all() for file in arrow_files])
query = "select count(*), sum(payments), round(sum(amount_sum), 6), sum(list_sum(score_histogram)) from {}"
from_json = duckdb.sql(query.format(f"read_json({json_files})")).fetchall()[0]
from_arrow = duckdb.from_arrow(table).query("cells", query.format("cells")).fetchall()[0]
assert from_json == from_arrow, (from_json, from_arrow)
assert from_json[0] == len(lines) > 50 and from_json[1] == lines["payments"].sum() == from_json[3]
assert str(table.schema.field("window_start").type) == "timestamp[us, tz=UTC]"
assert pandas.to_datetime(lines["window_start"], utc=True).min() == table.to_pandas()["window_start"].min()
