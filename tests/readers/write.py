"""Writes one table of outcomes into the folder named, as pyarrow, Polars and DuckDB write Parquet by default and otherwise.

Prints the names of the files, one a line.
"""

import pathlib
import sys

import duckdb
import polars
import pyarrow
import pyarrow.parquet

folder = pathlib.Path(sys.argv[1])
rows = range(40)
outcomes = pyarrow.table(
    {
        "case": [f"c{row % 20}" for row in rows],
        "trial": [row // 20 for row in rows],
        "success": [row % 3 != 0 for row in rows],
        "seconds": [1.0 + row for row in rows],
        "answer": [f"answer {row}" for row in rows],
        "embedding": [[float(row), 1.0] for row in rows],
    }
)
names = []


def path(name):
    names.append(f"{name}.parquet")
    return str(folder / names[-1])


pyarrow.parquet.write_table(outcomes, path("pyarrow"))
for codec in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
    pyarrow.parquet.write_table(outcomes, path(f"pyarrow-{codec}"), compression=codec)
pyarrow.parquet.write_table(outcomes, path("pyarrow-1.0"), version="1.0", data_page_version="2.0")
categories = outcomes.set_column(0, "case", outcomes["case"].dictionary_encode())
pyarrow.parquet.write_table(categories, path("pyarrow-categories"))
frame = polars.from_arrow(outcomes)
frame.write_parquet(path("polars"))
frame.with_columns(polars.col("case").cast(polars.Categorical)).write_parquet(path("polars-categories"))
duckdb.sql(f"copy outcomes to '{path('duckdb')}' (format parquet)")
print("\n".join(names))
