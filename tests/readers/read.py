"""Reads a plain and an encrypted store with DuckDB, Polars and pyarrow, and compares with what foreshadow says is there.

Takes JSON on stdin (see main.rs), prints one line a check, fails at the first difference. Knows of foreshadow only what
its users are told: folders, columns, and how a wrapped data key is made.
"""

import base64
import json
import pathlib
import sys
from datetime import datetime, timezone

import duckdb
import polars
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
import pyarrow.parquet.encryption as encryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ARROW = {"text": "string", "bytes": "binary", "bool": "bool", "u16": "uint16", "u32": "uint32", "u64": "uint64",
         "f64": "double", "time": "timestamp[us, tz=UTC]", "digest": "fixed_size_binary[16]"}
DUCK = {"text": "VARCHAR", "bytes": "BLOB", "bool": "BOOLEAN", "u16": "USMALLINT", "u32": "UINTEGER", "u64": "UBIGINT",
        "f64": "DOUBLE", "time": "TIMESTAMP WITH TIME ZONE", "digest": "BLOB"}
POLARS = {"text": polars.String, "bytes": polars.Binary, "bool": polars.Boolean, "u16": polars.UInt16,
          "u32": polars.UInt32, "u64": polars.UInt64, "f64": polars.Float64, "time": polars.Datetime("us", "UTC")}


def same(what, found, expected):
    assert found == expected, f"{what}: found {found!r}, expected {expected!r}"
    print(f"{what}: {found if not isinstance(found, bytes) else f'{len(found)} bytes'}")


def micros(moment):
    delta = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def ask(sql):
    return duckdb.sql(sql).fetchall()


def plain_duckdb(store, want):
    for table, told in want["tables"].items():
        source = f"read_parquet('{store}/{table}/**/*.parquet')"
        same(f"duckdb {table} rows", ask(f"select count(*) from {source}")[0][0], told["rows"])
        described = {row[0]: row[1] for row in ask(f"describe select * from {source}")}
        wrong = {name: described.get(name) for name, kind in told["columns"].items()
                 if name not in described or described[name] != DUCK.get(kind, described[name])}
        same(f"duckdb {table} columns of another type", wrong, {})
        same(f"duckdb {table} folders", ask(f"select distinct tenant, agent from {source}"),
             [tuple(want["owner"])])
        same(f"duckdb {table} date", described["date"], "DATE")
    source = f"read_parquet('{store}/exchanges/**/*.parquet')"
    times = ask(f"select min(epoch_us(started_at)), max(epoch_us(started_at)) from {source}")[0]
    same("duckdb times", list(times), want["times"])
    days = ask(f"select count(*) from {source} where date != (session_started_at at time zone 'UTC')::date")
    same("duckdb rows outside their day", days[0][0], 0)
    # What README tells: cuts and pieces of one request, in order, put together in SQL.
    body = ask(f"""
        with one as (
            select hex(request.template) as template, request.chunk_offsets as cuts, request.chunks as chunks,
                   parse_filename(filename) as file
            from read_parquet('{store}/exchanges/**/*.parquet', filename = true) where exchange = '{want["body"]["exchange"]}'),
        cut as (
            select template, file, unnest(cuts) as until, unnest(chunks) as chunk, unnest(range(len(cuts))) as place,
                   unnest(list_concat([0], cuts[:-2])) as since
            from one),
        piece as (
            select place, substr(template, 2 * since + 1, 2 * (until - since)) || hex(pieces.bytes) as text
            from cut join read_parquet('{store}/chunks/**/*.parquet', filename = true) as pieces
                on pieces.chunk = cut.chunk and parse_filename(pieces.filename) = cut.file)
        select unhex((select string_agg(text, '' order by place) from piece)
                     || substr(template, 2 * cuts[-1] + 1)) from one""")[0][0]
    same("duckdb body", body, base64.b64decode(want["body"]["bytes"]))


def plain_polars(store, want):
    for table, told in want["tables"].items():
        rows = polars.scan_parquet(f"{store}/{table}", hive_partitioning=True)
        same(f"polars {table} rows", rows.select(polars.len()).collect().item(), told["rows"])
        schema = rows.collect_schema()
        wrong = {name: str(schema.get(name)) for name, kind in told["columns"].items()
                 if name not in schema or schema[name] != POLARS.get(kind, schema[name])}
        same(f"polars {table} columns of another type", wrong, {})
        owners = rows.select("tenant", "agent").unique().collect().rows()
        same(f"polars {table} folders", owners, [tuple(want["owner"])])
        same(f"polars {table} date", schema["date"], polars.Date)
    rows = polars.scan_parquet(f"{store}/exchanges")
    column = polars.col("started_at")
    times = rows.select(column.min().alias("first"), column.max().alias("last")).collect().row(0)
    same("polars times", [micros(moment) for moment in times], want["times"])
    one = rows.filter(polars.col("session") == want["body"]["session"]).collect()
    same("polars rows of one session", one.height, want["body"]["exchanges"])


def check_arrow(name, table, told):
    same(f"{name} rows", table.num_rows, told["rows"])
    wrong = {column: str(table.schema.field(column).type) for column, kind in told["columns"].items()
             if str(table.schema.field(column).type) != ARROW.get(kind, str(table.schema.field(column).type))}
    same(f"{name} columns of another type", wrong, {})


def body_of(exchanges, chunks, exchange):
    pieces = dict(zip(chunks.column("chunk").to_pylist(), chunks.column("bytes").to_pylist()))
    place = exchanges.column("exchange").to_pylist().index(exchange)
    request = exchanges.column("request")[place].as_py()
    out, done = b"", 0
    for at, chunk in zip(request["chunk_offsets"], request["chunks"]):
        out += request["template"][done:at] + pieces[chunk]
        done = at
    return out + request["template"][done:]


def plain_pyarrow(store, want):
    for table, told in want["tables"].items():
        files = sorted(pathlib.Path(store, table).rglob("*.parquet"))
        check_arrow(f"pyarrow {table}", pyarrow.concat_tables(
            [pyarrow.parquet.ParquetFile(file).read() for file in files]), told)
        whole = pyarrow.dataset.dataset(f"{store}/{table}", partitioning="hive").to_table(columns=["tenant", "date"])
        same(f"pyarrow {table} through its folders", whole.num_rows, told["rows"])


class Kms(encryption.KmsClient):
    """The tenant's keys; a wrapped key is base64 of nonce and AES-256-GCM with the key's name as additional data."""

    keys = {}

    def __init__(self, config):
        encryption.KmsClient.__init__(self)

    def wrap_key(self, key_bytes, master_key_identifier):
        raise NotImplementedError("this test only reads")

    def unwrap_key(self, wrapped_key, master_key_identifier):
        name = master_key_identifier
        if name not in self.keys:
            raise KeyError(f"no key {name}")
        sealed = base64.b64decode(wrapped_key)
        return AESGCM(bytes.fromhex(self.keys[name])).decrypt(sealed[:12], sealed[12:], name.encode())


def sealed(file, keys):
    Kms.keys = keys
    factory = encryption.CryptoFactory(Kms)
    properties = factory.file_decryption_properties(encryption.KmsConnectionConfig(),
                                                    encryption.DecryptionConfiguration())
    return pyarrow.parquet.ParquetFile(file, decryption_properties=properties)


def refused(what, read):
    try:
        read()
    except (OSError, KeyError, InvalidTag, ValueError, pyarrow.ArrowException) as error:
        print(f"{what}: refused ({type(error).__name__}: {str(error)[:100]!r})")
        return
    raise AssertionError(f"{what}: was read")


def encrypted_pyarrow(store, want):
    keys, owner = want["keys"], want["owner"][0]
    read = {}
    for table, told in want["tables"].items():
        files = sorted(pathlib.Path(store, table).rglob("*.parquet"))
        read[table] = pyarrow.concat_tables([sealed(file, keys).read() for file in files])
        check_arrow(f"pyarrow, encrypted, {table}", read[table], told)
        refused(f"pyarrow, encrypted, {table} without keys", lambda: pyarrow.parquet.ParquetFile(files[0]).read())
        wrong = {name: "00" * 32 for name in keys}
        refused(f"pyarrow, encrypted, {table} with wrong keys", lambda: sealed(files[0], wrong).read())
    body = body_of(read["exchanges"], read["chunks"], want["body"]["exchange"])
    same("pyarrow, encrypted, body", body, base64.b64decode(want["body"]["bytes"]))
    # Whoever has the metadata key alone reads what is not payload, and whoever has none what look-ups go by.
    name = f"{owner}/metadata"
    file = sorted(pathlib.Path(store, "exchanges").rglob("*.parquet"))[0]
    known = sealed(file, {name: keys[name]})
    same("pyarrow, metadata key alone", known.read(columns=["seq", "operation.kind"]).num_rows, known.metadata.num_rows)
    refused("pyarrow, metadata key alone, payload", lambda: known.read(columns=["operation.output"]))
    looked_up = pyarrow.parquet.ParquetFile(file).read(columns=["session"])
    same("pyarrow, no key, look-up column", looked_up.num_rows, known.metadata.num_rows)
    same("pyarrow, no key, version", pyarrow.parquet.ParquetFile(file).metadata.metadata[b"foreshadow.format"], b"2")


def main():
    want = json.load(sys.stdin)
    plain_duckdb(want["plain"], want)
    plain_polars(want["plain"], want)
    plain_pyarrow(want["plain"], want)
    encrypted_pyarrow(want["encrypted"], want)


main()
