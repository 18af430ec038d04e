#!/usr/bin/env python3
"""Writes the fixtures beside this file: one record set, compressed by the codecs of another language.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install zstandard==0.25.0 lz4==4.4.5
    /tmp/v/bin/python crates/record/tests/data/make.py

The record set itself is not kept: tests/interop.rs packs the same records and compares.
"""

import gzip
import io
import pathlib
import zlib

import lz4.block
import lz4.frame
import zstandard

HERE = pathlib.Path(__file__).parent


REMARK = "operated by a carrier that keeps its planes for a long time and paints them rarely; no meals on this route"


def varint(n: int) -> bytes:
    n &= (1 << 64) - 1
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number: int, value) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    return varint(number << 3 | 2) + varint(len(value)) + value


def record_set() -> bytes:
    out = b""
    carriers = ["AA", "B6", "DL", "EV", "MQ", "UA", "WN"]
    for i in range(1000):
        carrier = carriers[i * i % 7]
        delta = (i * 37) % 1000 - 500 if i else 0
        value = f"2013,1,{i % 28 + 1},{carrier},{1000 + i % 90},EWR,IAH,{i % 13},{REMARK}".encode()
        body = field(1, i) + field(2, delta)
        if i % 5:
            body += field(3, carrier.encode())
        if i % 11:
            body += field(4, value)
        if i % 100 == 0:
            body += field(5, field(1, b"traceparent") + field(2, f"00-{i:032x}-{i:016x}-01".encode()))
        out += field(1, body)
    return out


def main() -> None:
    data = record_set()

    def write(name: str, content: bytes) -> None:
        (HERE / name).write_bytes(content)
        print(f"{name:28} {len(content):7} B")

    print(f"record set {len(data)} B, crc {zlib.crc32(data):08x}")

    write("default.gz", gzip.compress(data, mtime=0))
    named = io.BytesIO()
    with gzip.GzipFile(filename="records.bin", mode="wb", compresslevel=9, fileobj=named, mtime=1) as f:
        f.write(data)
    write("named.gz", named.getvalue())
    half = len(data) // 2
    write("two-members.gz", gzip.compress(data[:half], mtime=0) + gzip.compress(data[half:], mtime=0))

    write("default.zst", zstandard.ZstdCompressor().compress(data))
    write("checksum-19.zst", zstandard.ZstdCompressor(level=19, write_checksum=True).compress(data))
    stream = zstandard.ZstdCompressor(level=1, write_content_size=False).compressobj()
    write("no-size.zst", stream.compress(data) + stream.flush())
    one = zstandard.ZstdCompressor()
    write("two-frames.zst", one.compress(data[:half]) + one.compress(data[half:]))

    write("default.lz4", lz4.frame.compress(data))
    write(
        "linked-block-checksums.lz4",
        lz4.frame.compress(
            data, block_linked=True, block_size=lz4.frame.BLOCKSIZE_MAX64KB, block_checksum=True
        ),
    )
    write(
        "independent-no-size.lz4",
        lz4.frame.compress(data, block_linked=False, block_size=lz4.frame.BLOCKSIZE_MAX64KB, store_size=False),
    )
    write(
        "high-4MiB-checksum.lz4",
        lz4.frame.compress(
            data, compression_level=9, block_size=lz4.frame.BLOCKSIZE_MAX4MB, content_checksum=True
        ),
    )
    write("two-frames.lz4", lz4.frame.compress(data[:half]) + lz4.frame.compress(data[half:]))


if __name__ == "__main__":
    main()
