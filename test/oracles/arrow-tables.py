#!/usr/bin/env python3
"""Writes fixtures/arrow/{stream,file,lz4}.arrow: one table in Arrow's streaming and file format, and compressed.

usage: arrow-tables.py fixtures/arrow
Made with pyarrow 25.0.1. Three record batches; a text that is empty, and one that is null.
"""
import sys
import pyarrow as pa
import pyarrow.ipc as ipc

out = sys.argv[1]
texts = pa.array(["a", "é\n", "", None, "x" * 40])
table = pa.table({"text": texts, "large": pa.array(list("12345"), pa.large_string())})
formats = {"stream": (ipc.new_stream, None), "file": (ipc.new_file, None), "lz4": (ipc.new_stream, "lz4")}
for name, (writer, compression) in formats.items():
    options = ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(f"{out}/{name}.arrow", "wb") as sink, writer(sink, table.schema, options=options) as w:
        for batch in table.to_batches(max_chunksize=2): w.write_batch(batch)
