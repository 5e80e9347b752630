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


def webp_lying(picture, orientation, mark=b"") -> bytes:
    """Return a WebP whose EXIF, after a mark, has an orientation; by it the picture is upright."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    contents = saved(picture.transpose(back[orientation]), "WEBP", lossless=True, exif=exif)
    start, noted = contents.index(b"EXIF"), mark + exif.tobytes().removeprefix(b"Exif\0\0")
    body = contents[8:start] + b"EXIF" + struct.pack("<I", len(noted)) + noted
    return b"RIFF" + struct.pack("<I", len(body)) + body


def headers_of_webp(width, height) -> dict[str, bytes]:
    """Return a lossless, a lossy and an extended WebP of which there is little but the header."""
    bits = (width - 1) | (height - 1) << 14
    chunks = {
        "VP8L": b"\x2f" + struct.pack("<I", bits),
        "VP8 ": b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height),
        "VP8X": bytes(4) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3],
    }
    bodies = {
        name: b"WEBP" + name.encode() + struct.pack("<I", len(body)) + body + bytes(8) for name, body in chunks.items()
    }
    return {name: b"RIFF" + struct.pack("<I", len(body)) + body for name, body in bodies.items()}


def header_of_png(width, height) -> bytes:
    """Return a PNG of which there is little but the header."""

    def chunk(name, contents):
        return struct.pack(">I", len(contents)) + name + contents + struct.pack(">I", zlib.crc32(name + contents))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"")
    )
