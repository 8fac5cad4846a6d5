"""Files as bgzip writes them: gzip data in several members, each of which says its size."""

import zlib

BLOCK = 5000
"""Bytes per member; bgzip takes up to 65,280."""


def bgzip(content: bytes) -> bytes:
    """Compress in members, the last of which is empty (SAM specification, 4.1)."""
    starts = range(0, len(content), BLOCK)
    return b"".join(_member(content[start : start + BLOCK]) for start in starts) + _member(b"")


def _member(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(content) + packer.flush()
    size = (18 + len(packed) + 8 - 1).to_bytes(2, "little")
    head = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + b"\x06\x00" + b"BC\x02\x00" + size
    return head + packed + zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little")
