"""Decoding of one picture file to one grey face, with a rule for every colour mode."""

import io
import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin

from fer.data.faces import some
from fer.system.files import LFS, POINTER, opened, why

LARGE = 400  # pixels; the shorter side of a picture that is rarely a cut-out face
PHOTOGRAPHS = "are so large that they may be photographs, not faces"
MOST_PIXELS = 50_000_000  # larger than any face crop of a camera; Pillow only warns below 179 million
STRIP = 256  # rows of a picture that are converted at a time
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
# what is decoded, whatever a file's name says: PostScript, for one, would start Ghostscript
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # the last is all of PNM
READS = 10_000  # from a file of any size, and one more for each of
BYTES_A_READ = 64  # bytes of it: decoders read blocks, and parts of the header, each of some bytes
# A progressive JPEG is decoded scan by scan, each over all pixels. libjpeg's own cjpeg writes at most 100, and libtiff
# takes no more. 64 megapixels then take some 5 s.
MOST_SCANS = 100
SCAN, END, ALONE = 0xDA, 0xD9, (0x01, 0xD8)  # markers of a JPEG: start of a scan, end; those without a length
# 00 and restarts belong to a scan's data; of fill bytes the last one alone, since a search of all takes quadratic time
MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
PLAIN = (b"P1", b"P2", b"P3")  # PNM in digits, which Pillow reads one by one in Python
MOST_PLAIN = 2**24  # bytes of a plain file: some 3 s
MOST_COMMENTS = 1000  # in a plain file: for each, Pillow copies up to a megabyte
STRIP_BYTES, TILE_BYTES, TILE_SIDES, SIDES = 279, 325, (322, 323), (256, 257)  # tags of a TIFF
PARTS = (STRIP_BYTES, TILE_BYTES, *TILE_SIDES, *SIDES)
BIG_TIFF = 43  # version of a TIFF with 64-bit offsets
MOST_TAGS = 65_535  # of a picture, also in a TIFF with 64-bit offsets
TILE_STEP, MOST_TILE = 15, 4096  # pixels: tiles have multiples of 16; a side that any picture's tiles may have
TOO_MANY_PARTS = "not a readable picture (its header has too many parts, comments or fill bytes)"
HEIC = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"))  # from byte 4, of telephones

warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd EXIF blocks; once, since a filter for a while is global too


class PictureError(Exception):
    """A file that cannot be read as a face; the message states the reason without the path."""


class TooManyPixels(PictureError):
    """A picture whose header states more pixels than are decoded."""


class _Sparing:
    """A stream with a bound on the number of reads.

    Pillow reads some headers byte by byte in Python: fill bytes between the markers of a JPEG, and the comments of PNM.
    A file of 30 MB of them would take a quarter of a minute.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = READS + stream.seek(0, io.SEEK_END) // BYTES_A_READ
        stream.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Return bytes.

        Raises:
            PictureError: the file was read too often.
        """
        self._left -= 1
        if self._left < 0:
            raise PictureError(TOO_MANY_PARTS)
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def read_picture(path: Path, image_size: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Return a picture as (image_size, image_size) uint8 grey, and its width and height in the file, in pixels.

    Raises:
        PictureError: see ``read_grey``.
    """
    grey = read_grey(path)
    return stretched(grey, image_size), grey.size


def stretched(grey: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """Return a whole picture as (image_size, image_size) uint8."""
    if grey.size != (image_size, image_size):
        grey = grey.resize((image_size, image_size), Image.Resampling.BILINEAR)  # Pillow's filters antialias
    return np.asarray(grey)


def with_grey(picture: Image.Image) -> tuple[Image.Image, ...]:
    """Return a picture of mode "RGB" as grey, red, green and blue; grey is what ``to_grey`` makes of the picture."""
    return picture.convert("L"), *picture.split()


def read_grey(source: Path | bytes, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Return a picture as 8-bit grey (mode "L"), upright; ``source`` is its file, or the contents of one.

    EXIF rotation is applied. The first frame of an animation is used. Transparent pixels become black, 16-bit greys are
    scaled by 1/257, and colours become luma (ITU-R 601, Pillow's "L").

    Raises:
        PictureError: no picture, a damaged or too large one, or floating-point pixels, which have no fixed range.
    """
    return _decoded(source, most_pixels, to_grey)


def read_colour(source: Path | bytes, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Return a picture in colour (mode "RGB"), upright; 16-bit greys and transparency as in ``read_grey``.

    Raises:
        PictureError: see ``read_grey``.
    """
    return _decoded(source, most_pixels, to_colour)


def _decoded(source: Path | bytes, most_pixels: int, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else opened(source) as stream:
            sparing = cast(IO[bytes], _Sparing(stream))
            _check_header(sparing, most_pixels)
            with _picture(sparing) as picture:
                picture.load()
                return convert(ImageOps.exif_transpose(picture))
    except PictureError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        if isinstance(source, Path) and source.is_symlink() and not os.path.exists(source):
            raise PictureError("is a broken link or a loop of links") from error
        raise PictureError(f"not a readable picture ({_fault(error, source)})") from error


def _fault(error: Exception, source: Path | bytes) -> str:
    """Return what is wrong with a file whose reading failed; Pillow's own words are for programmers."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
        return f"{type(error).__name__}: {why(error)}"  # of this machine, not of the file
    with io.BytesIO(source) if isinstance(source, bytes) else opened(source) as stream:
        return f"a damaged or cut short {_format(stream.read(16)) or 'file'}"


def _format(beginning: bytes) -> str | None:
    """Return which of ``FORMATS`` a file has, by its first 16 bytes."""
    for name in FORMATS:
        accepts = Image.OPEN[name][1]
        if accepts is not None and accepts(beginning) is True:
            return name
    return None


def _check_header(stream: IO[bytes], most_pixels: int) -> None:
    """Refuse a picture by its header alone, before memory is taken for its pixels."""
    picture = _picture(stream)
    if picture.width * picture.height > most_pixels:
        raise TooManyPixels(f"{picture.width}x{picture.height} pixels; the limit is {most_pixels:,}")
    if picture.format == "PNG":
        picture.verify()  # load() does not check the checksums of the pixels
    stream.seek(0)
    if picture.format == "TIFF":
        _check_parts(cast(TiffImagePlugin.TiffImageFile, picture), stream)
    elif picture.format == "JPEG":
        _check_scans(stream.read())
    elif stream.read(2) in PLAIN:
        _check_plain(stream)


def _check_scans(contents: bytes) -> None:
    """Refuse a JPEG of so many scans that its decoding would not end for minutes.

    Raises:
        PictureError: stating the limit.
    """
    offset, parts, scans = 0, 0, 0
    while (marker := MARKER.search(contents, offset)) and marker[1][0] != END:
        parts += 1
        scans += marker[1][0] == SCAN
        if scans > MOST_SCANS:
            raise PictureError(f"a JPEG of more than {MOST_SCANS} scans; save it again as an ordinary JPEG")
        if parts > READS:
            raise PictureError(TOO_MANY_PARTS)
        offset = marker.end()
        if marker[1][0] not in ALONE:
            offset += max(2, int.from_bytes(contents[offset : offset + 2], "big"))


def _check_parts(picture: TiffImagePlugin.TiffImageFile, stream: IO[bytes]) -> None:
    """Refuse a TIFF whose strips or tiles share bytes, which libtiff would read for each, or are huge tiles.

    One of whole numbers of 32 bits is refused too: their largest value is not known.

    Raises:
        PictureError: stating what was found.
    """
    if picture.mode == "I":
        raise PictureError("pixels of 32 bits have no fixed range; save it as 8-bit or 16-bit grey")
    tags = _tags(stream)
    if twice := sorted(tag for tag in PARTS if tags.count(tag) > 1):  # Pillow takes the last, libtiff the first
        raise PictureError(f"a damaged TIFF: it has tag {twice[0]} twice")
    size = stream.seek(0, io.SEEK_END)
    for tag in (STRIP_BYTES, TILE_BYTES) if picture.use_load_libtiff else ():  # Pillow's own decoder passes them by
        counts = picture.tag_v2.get(tag, ())
        if isinstance(counts, tuple) and len(counts) > 1 and not 0 <= min(counts) <= sum(counts) <= size:
            raise PictureError(f"a TIFF whose {len(counts):,} parts share bytes; save it again as an ordinary TIFF")
    sides, whole = ([picture.tag_v2.get(tag, 0) for tag in tags] for tags in (TILE_SIDES, SIDES))  # before it is turned
    if any(side > max(most + TILE_STEP, MOST_TILE) for side, most in zip(sides, whole, strict=True)):
        raise PictureError(
            f"a TIFF of {whole[0]}x{whole[1]} pixels with tiles of {sides[0]}x{sides[1]}; save it again as "
            "an ordinary TIFF"
        )


def _tags(stream: IO[bytes]) -> list[int]:
    """Return the tags of a TIFF's first picture, in the order of the file."""
    stream.seek(0)
    head = stream.read(16)
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    big = int.from_bytes(head[2:4], order) == BIG_TIFF
    offset = int.from_bytes(head[8:16] if big else head[4:8], order)
    counted, entry = (8, 20) if big else (2, 12)  # bytes
    stream.seek(offset)
    count = int.from_bytes(stream.read(counted), order)
    entries = stream.read(min(count, MOST_TAGS) * entry)
    return [int.from_bytes(entries[start : start + 2], order) for start in range(0, len(entries), entry)]


def _check_plain(stream: IO[bytes]) -> None:
    """Refuse a plain PNM, whose pixels are digits, that is long or full of comments.

    Raises:
        PictureError: stating the limit.
    """
    size = stream.seek(0, io.SEEK_END)
    if size > MOST_PLAIN:
        raise PictureError(f"a plain PNM of {size:,} bytes; the limit is {MOST_PLAIN:,}: save it as binary PNM or PNG")
    stream.seek(0)
    if stream.read().count(b"#") > MOST_COMMENTS:
        raise PictureError(f"a plain PNM of more than {MOST_COMMENTS:,} comments; save it as binary PNM or PNG")


def _picture(stream: IO[bytes]) -> ImageFile.ImageFile:
    """Return a picture of one of ``FORMATS`` whose header alone is read.

    ``Image.open`` has a limit of pixels of its own, which only a global variable changes, and two dozen more formats.

    Raises:
        PictureError: the file is empty or of another format.
    """
    Image.init()  # registers the formats, once
    stream.seek(0)
    beginning = stream.read(len(LFS))
    stream.seek(0)
    if not beginning:
        raise PictureError("is empty (0 bytes)")
    name = _format(beginning[:16])
    if name is not None:
        return Image.OPEN[name][0](stream, "")
    if beginning[4:12] in HEIC:
        raise PictureError("HEIC is not decoded; convert it to JPEG first, such as with Pillow and pillow-heif")
    if beginning == LFS:
        raise PictureError(POINTER)
    raise PictureError("not a readable picture; expected JPEG, PNG, BMP, GIF, WebP, TIFF or PNM")


def to_colour(picture: Image.Image) -> Image.Image:
    """Return a picture of any mode as "RGB".

    Raises:
        PictureError: floating-point pixels.
    """
    if picture.mode in ("F", "L", "1") or picture.mode.startswith("I"):
        return to_grey(picture).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        return _on_black(picture).convert("RGB")
    return picture.convert("RGB")


def _on_black(picture: Image.Image) -> Image.Image:
    if picture.mode == "La":  # Pillow converts it to no other mode
        picture = picture.convert("LA")
    coloured = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, (0, 0, 0, 255)), coloured)


def to_grey(picture: Image.Image) -> Image.Image:
    """Return a picture of any mode as 8-bit grey ("L"): itself, where it is that already.

    Raises:
        PictureError: floating-point pixels.
    """
    if picture.mode == "L" and "transparency" not in picture.info:
        return picture
    if picture.mode == "F":
        raise PictureError("floating-point pixels have no fixed range; save it as 8-bit grey")
    if picture.mode.startswith("I"):
        return _in_strips(picture, _narrowed)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        return _in_strips(picture, lambda strip: _on_black(strip).convert("L"))
    if picture.mode in ("L", "RGB", "1"):
        return picture.convert("L")
    return _in_strips(picture, lambda strip: strip.convert("RGB").convert("L"))


def _narrowed(picture: Image.Image) -> Image.Image:
    """Return 16-bit greys as 8-bit ones; Pillow's convert("L") would clip them at 255."""
    wide = np.asarray(picture).astype(np.int64)
    return Image.fromarray((wide.clip(0, 65535) / 257 + 0.5).astype(np.uint8))


def _in_strips(picture: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Return a picture as "L", converted strip by strip: what lies between takes up to 32 bytes a pixel."""
    if picture.height <= STRIP:
        return convert(picture)
    grey = Image.new("L", picture.size)
    for top in range(0, picture.height, STRIP):
        box = (0, top, picture.width, min(top + STRIP, picture.height))
        grey.paste(convert(picture.crop(box)), (0, top))
    return grey


def named_as_picture(name: str) -> bool:
    """Return whether a file's name is that of a picture; hidden files, such as macOS's ``._1.png``, are none."""
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def photograph_notes(large: Sequence[object], total: int) -> list[str]:
    """Return a note on the pictures that are so large that they may be whole photographs, if there are any.

    Args:
        large: their names; their shorter side has ``LARGE`` pixels or more.
        total: number of all pictures.
    """
    if not large:
        return []
    return [
        f"{len(large):,} of {total:,} pictures {PHOTOGRAPHS} (from {LARGE} pixels on): {some(large, 2)}; each was "
        "reduced whole, so that a small face in it is lost: find and cut out the faces first, as fer predict does"
    ]
