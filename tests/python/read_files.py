"""Released files in every format hold the same cells, for pandas, pyarrow, DuckDB and zstd, and take fewer bytes.

usage: read_files.py JSONL_DIR ZSTD_DIR ARROW_DIR PARQUET_DIR
"""

import sys
from pathlib import Path

import duckdb
import pandas
import pyarrow
import pyarrow.ipc
import pyarrow.parquet


def files(directory, ending):
    found = sorted(Path(directory).rglob(f"*.{ending}"))
    assert found and not [path for path in Path(directory).rglob("*") if path.is_file() and path not in found]
    return found


lines, compressed, arrow, parquet = map(files, sys.argv[1:], ["jsonl", "jsonl.zst", "arrow", "parquet"])
text = b"".join(path.read_bytes() for path in lines)
cells = pandas.concat([pandas.read_json(path, lines=True) for path in lines])
from_zstd = [pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd").read() for path in compressed]
assert sorted(text.splitlines()) == sorted(b"".join(from_zstd).splitlines())

tables = {
    "arrow": pyarrow.concat_tables([pyarrow.ipc.open_file(path).read_all() for path in arrow], promote_options="permissive")
    .unify_dictionaries(),
    "parquet": pyarrow.concat_tables([pyarrow.parquet.read_table(path) for path in parquet]),
}
assert tables["arrow"].schema.metadata[b"bailiwick.cells"] == b"2"
assert pyarrow.parquet.read_metadata(parquet[0]).metadata[b"bailiwick.cells"] == b"1"
query = ("select count(*), sum(payments), round(sum(amount_sum), 6), sum(list_sum(score_histogram)), "
         "count(distinct release), max(country::varchar), count(score_mean) from {}")
from_json = duckdb.sql(query.format(f"read_json({[str(path) for path in lines]})")).fetchall()[0]
assert from_json[0] == len(cells) > 50 and from_json[1] == cells["payments"].sum() == from_json[3]
for name, table in tables.items():
    read = duckdb.from_arrow(table).query("cells", query.format("cells")).fetchall()[0]
    assert read == from_json, (name, read, from_json)
    assert str(table.schema.field("window_start").type) == "timestamp[us, tz=UTC]"
    assert table.column_names == list(cells.columns), name
    as_pandas = table.to_pandas()
    assert pandas.to_datetime(cells["window_start"], utc=True).min() == as_pandas["window_start"].min()
    assert sorted(as_pandas["country"].astype(str)) == sorted(cells["country"])

sizes = [sum(path.stat().st_size for path in found) for found in (lines, compressed, arrow, parquet)]
print(f"{len(cells)} cells in {[len(found) for found in (lines, compressed, arrow, parquet)]} files: {sizes} bytes")
assert all(size * 2 < sizes[0] for size in sizes[1:]), sizes
