"""Pictures to send: files in memory."""

import io
import struct
import zlib

import skimage.data
from PIL import Image


def astronaut() -> Image.Image:
    """Return the head of Eileen Collins, from a NASA photograph, (200, 200)."""
    return Image.fromarray(skimage.data.astronaut()).crop((125, 15, 325, 215))


def saved(picture, kind="JPEG", **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def header_of_png(width, height) -> bytes:
    """Return a PNG of which there is little but the header."""

    def chunk(name, contents):
        return struct.pack(">I", len(contents)) + name + contents + struct.pack(">I", zlib.crc32(name + contents))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"")
    )
