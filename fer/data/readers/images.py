"""One picture file to one grey face, every mode by a stated rule."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

MOST_PIXELS = 50_000_000  # larger than any camera's face crop; Pillow itself only warns below 179 million
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")


class PictureError(Exception):
    """A file that gives no face; its message says why, without the path."""


def read_picture(path: Path, image_size: int) -> tuple[NDArray[np.uint8], bool]:
    """Return a picture as (image_size, image_size) uint8 grey, and whether it had to be stretched to a square.

    EXIF rotation is applied, of an animation the first frame is taken, transparency is laid on black, 16-bit greys are
    scaled by 1/257, colours become luma (ITU-R 601, Pillow's "L").

    Raises:
        PictureError: no picture, a damaged or too large one, or floating-point pixels, which have no fixed range.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bombs, which the limit below refuses, and of odd EXIF blocks
            _check_header(path)
            with Image.open(path) as picture:
                picture.load()
                grey = to_grey(ImageOps.exif_transpose(picture))
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"too large to be opened; the limit is {MOST_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        reason = "is empty (0 bytes)" if path.exists() and not path.stat().st_size else "not a readable picture"
        raise PictureError(f"{reason} ({type(error).__name__}: {str(error).replace(str(path), path.name)})") from error
    stretched = grey.width != grey.height
    if grey.size != (image_size, image_size):
        grey = grey.resize((image_size, image_size), Image.Resampling.BILINEAR)  # Pillow's filters antialias
    return np.asarray(grey), stretched


def _check_header(path: Path) -> None:
    with Image.open(path) as picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise PictureError(f"{picture.width}x{picture.height} pixels; the limit is {MOST_PIXELS:,}")
        if picture.format == "PNG":
            picture.verify()  # load() does not look at the checksums of the pixels; the file is closed afterwards


def to_grey(picture: Image.Image) -> Image.Image:
    """Return a picture of any mode as 8-bit grey ("L").

    Raises:
        PictureError: floating-point pixels.
    """
    if picture.mode == "F":
        raise PictureError("floating-point pixels have no fixed range; save it as 8-bit grey")
    if picture.mode.startswith("I"):  # Pillow's convert("L") would clip 16-bit greys at 255
        wide = np.asarray(picture).astype(np.int64)
        return Image.fromarray((wide.clip(0, 65535) / 257 + 0.5).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        coloured = picture.convert("RGBA")
        black = Image.new("RGBA", coloured.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, coloured).convert("L")
    return picture.convert("L") if picture.mode in ("L", "RGB", "1") else picture.convert("RGB").convert("L")
