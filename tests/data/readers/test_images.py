"""Picture files: what every mode becomes, to the grey level, and that no bad file passes."""

import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fer.config.errors import FerError
from fer.data.readers import images
from fer.data.readers.images import SUFFIXES, PictureError, read_grey

LUMA = {"red": 76, "green": 150, "blue": 29, "white": 255, "black": 0}  # 0.299 R + 0.587 G + 0.114 B
PRIMARIES = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255,) * 3, "black": (0, 0, 0)}


def stripes(values, dtype=np.uint8):
    """Return a (48, 48) or (48, 48, C) picture of as many upright stripes as there are values."""
    return np.repeat(np.tile(np.array(values, dtype), (48, *[1] * np.ndim(values))), 48 // len(values), axis=1)


def held_as(faces, values):
    np.testing.assert_array_equal(faces.images, stripes(values)[None])


# --- conversions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".webp"])
def test_lossless_grey_is_read_to_the_pixel(suffix, one_picture, drawn):
    faces = one_picture(lambda path: Image.fromarray(drawn.images[0]).save(path, lossless=True), suffix)
    np.testing.assert_array_equal(faces.images[0], drawn.images[0])


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG", ".Jpeg"])
def test_jpeg_is_read_as_its_decoder_gives_it(suffix, one_picture, drawn):
    faces = one_picture(lambda path: Image.fromarray(drawn.images[0]).save(path, quality=95), suffix)
    error = np.abs(faces.images[0].astype(int) - drawn.images[0])
    assert error.mean() < 2


def test_every_suffix_that_is_named_is_read(one_picture, tmp_path):
    (tmp_path / "tree" / "sad").mkdir(parents=True)
    for number, suffix in enumerate(SUFFIXES):
        Image.new("L", (48, 48), 100).save(tmp_path / "tree" / "sad" / f"{number}{suffix}")
    faces = one_picture(lambda path: Image.new("L", (48, 48), 100).save(path))
    assert len(faces) == 1 + len(SUFFIXES)
    assert np.abs(faces.images.astype(int) - 100).max() <= 1


def test_colours_become_luma(one_picture):
    faces = one_picture(lambda path: Image.fromarray(stripes([PRIMARIES["red"], PRIMARIES["blue"]])).save(path))
    held_as(faces, [LUMA["red"], LUMA["blue"]])


@pytest.mark.parametrize(("suffix", "mode"), [(".png", "I;16"), (".tif", "I;16"), (".tif", "I;16B")])
def test_sixteen_bit_grey_is_scaled_not_clipped(suffix, mode, one_picture):
    deep = stripes([0, 300, 25_700, 65_535], ">u2" if mode == "I;16B" else "<u2")
    picture = Image.frombytes(mode, (48, 48), deep.tobytes())
    held_as(one_picture(picture.save, suffix), [0, 1, 100, 255])  # 300 / 257 = 1.17


def test_sixteen_bit_pgm_is_scaled_too(one_picture):  # which Pillow reads as 32 bits
    greys = stripes([0, 257, 65_535], ">u2")
    held_as(one_picture(lambda path: path.write_bytes(b"P5 48 48 65535\n" + greys.tobytes()), ".pgm"), [0, 1, 255])


def test_cmyk_becomes_luma(one_picture):
    inks = stripes([(0, 0, 0, 0), (0, 0, 0, 255), (255, 0, 0, 0)])
    held_as(one_picture(Image.fromarray(inks, "CMYK").save, ".tif"), [255, 0, 179])  # cyan: 0.701 of 255


def palette_picture():
    indices = Image.fromarray(stripes([0, 1, 2]), "L")
    picture = Image.new("P", (48, 48))
    picture.paste(indices)
    picture.putpalette([*PRIMARIES["red"], *PRIMARIES["white"], *PRIMARIES["green"]])
    return picture


def test_palette_becomes_luma_of_its_colours(one_picture):
    held_as(one_picture(palette_picture().save), [LUMA["red"], LUMA["white"], LUMA["green"]])


def test_transparent_palette_entry_becomes_black(one_picture):
    held_as(one_picture(lambda path: palette_picture().save(path, transparency=1)), [LUMA["red"], 0, LUMA["green"]])


def test_transparency_becomes_black(one_picture):
    colours = [(255, 255, 255, 0), (255, 255, 255, 128), (255, 255, 255, 255), (255, 0, 0, 255)]
    held_as(one_picture(Image.fromarray(stripes(colours)).save), [0, 128, 255, LUMA["red"]])


def test_grey_with_alpha_becomes_black(one_picture):
    picture = Image.fromarray(stripes([(200, 0), (200, 128), (200, 255)]), "LA")
    held_as(one_picture(picture.save), [0, 100, 200])


@pytest.mark.parametrize(("mode", "key"), [("RGB", (255, 255, 255)), ("L", 255)])
def test_colour_marked_as_transparent_becomes_black(mode, key, one_picture):
    picture = Image.fromarray(stripes([0, 90, 255])).convert(mode)
    held_as(one_picture(lambda path: picture.save(path, transparency=key)), [0, 90, 0])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "I;16", "I", "CMYK", "YCbCr", "HSV"])
def test_a_high_picture_is_converted_in_strips_to_the_same_pixels(mode, monkeypatch):
    values = np.random.default_rng(0).integers(0, 256, (50, 20, 4), np.uint8)
    picture = Image.fromarray(values, "RGBA")
    if mode in ("I", "I;16"):
        picture = Image.fromarray((values[..., 0].astype(np.uint16) * 257 + values[..., 1]).clip(max=65535)).convert(
            mode
        )
    elif mode != "RGBA":
        picture = picture.convert("RGB" if mode in ("P", "PA", "CMYK", "YCbCr", "HSV") else mode).convert(mode)
    whole = np.asarray(images.to_grey(picture))
    monkeypatch.setattr(images, "STRIP", 7)
    assert np.ptp(whole) > 100
    assert np.array_equal(np.asarray(images.to_grey(picture)), whole)


def test_premultiplied_greys_stand_on_black(monkeypatch):
    picture = Image.fromarray(stripes([[90, 255], [200, 0]])).convert("LA").convert("La")
    assert np.unique(np.asarray(images.to_grey(picture))).tolist() == [0, 90]
    assert np.unique(np.asarray(images.to_colour(picture))).tolist() == [0, 90]


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_integers_of_32_bits_have_no_fixed_range(dtype, tmp_path):
    Image.fromarray(stripes([0, 2**30], dtype)).save(tmp_path / "deep.tif")
    with pytest.raises(PictureError, match="32 bits have no fixed range"):
        read_grey(tmp_path / "deep.tif")


def test_bilevel_becomes_black_and_white(one_picture):
    held_as(one_picture(Image.fromarray(stripes([0, 255])).convert("1").save), [0, 255])


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_of_an_animation_the_first_frame_is_taken(suffix, one_picture):
    frames = [Image.new("L", (48, 48), level) for level in (40, 200, 120)]
    faces = one_picture(
        lambda path: frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True), suffix
    )
    held_as(faces, [40])


TURNS = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.T,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].T,
    8: lambda stored: np.rot90(stored, 1),
}


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_rotation_is_applied(orientation, one_picture, drawn):
    stored = drawn.images[0]
    faces = one_picture(lambda path: Image.fromarray(stored).save(path, exif=turned(orientation)))
    np.testing.assert_array_equal(faces.images[0], TURNS[orientation](stored))


def test_exif_rotation_of_a_jpeg_is_applied(one_picture):
    stored = stripes([0, 200])
    faces = one_picture(lambda path: Image.fromarray(stored).save(path, exif=turned(6), quality=95), ".jpg")
    assert np.abs(faces.images[0].astype(int) - stored.T).max() <= 2  # the left half comes to stand on top


@pytest.mark.parametrize(("size", "level"), [(1, 137), (48, 0), (300, 255)])
def test_flat_pictures_of_any_size_stay_flat(size, level, one_picture):
    held_as(one_picture(Image.new("L", (size, size), level).save), [level])


def test_shrinking_averages_instead_of_picking_pixels(one_picture):
    board = (np.indices((96, 96)).sum(0) % 2 * 254).astype(np.uint8)
    faces = one_picture(Image.fromarray(board).save)
    assert np.abs(faces.images[0, 1:-1, 1:-1].astype(int) - 127).max() <= 1


def test_other_image_size_is_made_by_interpolation(one_picture):
    faces = one_picture(Image.fromarray(stripes([0, 200])).save, size=64)
    assert faces.images.shape == (1, 64, 64)
    assert set(faces.images[0, :, :31].ravel()) == {0}
    assert set(faces.images[0, :, 33:].ravel()) == {200}


def test_oblong_pictures_are_stretched_and_noted(one_picture):
    faces = one_picture(Image.fromarray(np.repeat(stripes([0, 200]), 2, axis=1)).save)
    assert set(faces.images[0, :, :22].ravel()) == {0}
    assert set(faces.images[0, :, 26:].ravel()) == {200}
    assert faces.source.notes == ("1 picture stretched, not square",)


# --- bad files -----------------------------------------------------------------------------------------------------


def encoded(form, **options):
    picture = Image.new("L", (48, 48), 30)
    ImageDraw.Draw(picture).ellipse((5, 8, 40, 44), fill=200, outline=90)
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def chunk(kind, contents):
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))


def huge_png(side):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def flipped(contents, position):
    return contents[:position] + bytes([contents[position] ^ 1]) + contents[position + 1 :]


PNG = encoded("PNG")
IDAT = PNG.index(b"IDAT")
IDAT_END = IDAT + 4 + struct.unpack(">I", PNG[IDAT - 4 : IDAT])[0]

BAD_FILES = {
    "empty": (".png", b"", r"is empty \(0 bytes\)"),
    "text as jpg": (".jpg", b"<html>Not found</html>", "not a readable picture"),
    "half a JPEG": (".jpg", encoded("JPEG")[:400], "not a readable picture"),
    "JPEG without its end": (".jpg", encoded("JPEG")[:-20], "not a readable picture"),
    "half a PNG": (".png", PNG[: len(PNG) // 2], "not a readable picture"),
    "PNG without its end": (".png", PNG[: IDAT_END - 4], "not a readable picture"),
    "PNG with a bad header CRC": (".png", flipped(PNG, 30), "not a readable picture"),
    "PNG with bad pixels": (".png", flipped(PNG, IDAT + 20), "not a readable picture"),
    "PNG with a bad pixel CRC": (".png", flipped(PNG, IDAT_END + 1), "not a readable picture"),
    "half a GIF": (".gif", encoded("GIF")[: len(encoded("GIF")) // 2], "not a readable picture"),
    "JPEG of fill bytes": (".jpg", b"\xff\xd8" + b"\xff" * 50_000, "too many parts, comments or fill bytes"),
    "JPEG of empty markers": (".jpg", b"\xff\xd8" + b"\xff\xd0" * 25_000, "too many parts, comments or fill bytes"),
    "PNM of comments": (".pgm", b"P2\n#" + b"#" * 50_000, "too many parts, comments or fill bytes"),
    "half a BMP": (".bmp", encoded("BMP")[:-300], "not a readable picture"),
    "a bomb that Pillow lets pass": (".png", huge_png(8_000), r"8000x8000 pixels; the limit is 50,000,000"),
    "a bomb that Pillow refuses": (".png", huge_png(30_000), "the limit is 50,000,000"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_pictures_are_named(kind, one_picture, tmp_path):
    suffix, contents, problem = BAD_FILES[kind]
    with pytest.raises(FerError, match=problem) as caught:
        one_picture(lambda path: path.write_bytes(contents), suffix)
    assert str(caught.value).startswith(f"{tmp_path}/tree/happy/face{suffix}: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_pictures_are_skipped_alone(kind, one_picture, tmp_path):
    suffix, contents, _ = BAD_FILES[kind]
    (tmp_path / "tree" / "sad").mkdir(parents=True)
    Image.new("L", (48, 48), 100).save(tmp_path / "tree" / "sad" / "good.png")
    faces = one_picture(lambda path: path.write_bytes(contents), suffix, on_bad="skip")
    held_as(faces, [100])
    assert (faces.targets.tolist(), faces.rows.tolist()) == ([4], [1])
    assert len(faces.source.skipped) == 1
    assert f"face{suffix}" in faces.source.skipped[0]


def test_no_flipped_bit_of_a_png_changes_a_pixel(tmp_path, one_picture):
    whole = np.asarray(Image.open(io.BytesIO(PNG)))
    refused = 0
    for position in range(8, len(PNG), 3):
        try:
            faces = one_picture(lambda path, position=position: path.write_bytes(flipped(PNG, position)))
            np.testing.assert_array_equal(faces.images[0], whole)
        except FerError:
            refused += 1
    assert refused >= (len(PNG) - 8) // 3 - 8  # the last chunk carries nothing


def test_floating_point_pixels_are_refused(one_picture):
    picture = Image.fromarray(np.full((48, 48), 0.5, np.float32))
    with pytest.raises(FerError, match="floating-point pixels have no fixed range"):
        one_picture(picture.save, ".tif")


def test_a_tree_of_bad_pictures_alone_is_refused_even_when_skipping(one_picture):
    with pytest.raises(FerError, match=r"none of its 1 pictures could be read; first: .*face.png"):
        one_picture(lambda path: path.write_bytes(b""), on_bad="skip")


def test_postscript_under_another_name_starts_no_ghostscript(tmp_path, monkeypatch):
    programs, made = tmp_path / "programs", tmp_path / "made"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {made}\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    file = tmp_path / "face.jpg"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\nshowpage\n")
    with pytest.raises(PictureError, match="expected JPEG, PNG, BMP, GIF, WebP, TIFF or PNM"):
        read_grey(file)
    assert not made.exists()


def test_heic_is_named_with_its_plug_in(tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(PictureError, match=r"HEIC.*JPEG.*pillow-heif"):
        read_grey(tmp_path / "photo.heic")


def test_a_pipe_and_a_device_are_no_pictures(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(PictureError, match="is a pipe or a device"):
            read_grey(tmp_path / name)


def test_the_limit_of_pixels_is_no_global_setting(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    file = tmp_path / "face.png"
    file.write_bytes(encoded("PNG"))
    assert read_grey(file).mode == "L"
    with pytest.raises(PictureError, match="the limit is 10"):
        read_grey(file, 10)
    assert before == Image.MAX_IMAGE_PIXELS


# --- files that are built to be slow --------------------------------------------------------------------------------


def with_scans(scans):
    """A progressive JPEG whose last scan is repeated."""
    stream = io.BytesIO()
    Image.new("L", (32, 32), 90).save(stream, "JPEG", progressive=True)
    whole, marker = stream.getvalue(), b"\xff\xda"
    last = whole[whole.rindex(marker) : -2]
    return whole[:-2] + last * (scans - whole.count(marker)) + whole[-2:]


def test_a_jpeg_has_at_most_a_hundred_scans():
    assert read_grey(with_scans(100)).size == (32, 32)
    for picture in (with_scans(101), with_scans(5000)):
        with pytest.raises(PictureError, match="more than 100 scans; save it again"):
            read_grey(picture)


def test_marks_outside_the_scans_do_not_count():
    scans = with_scans(6)
    segment = b"\xff\xe1" + (2 + 2 * 200).to_bytes(2, "big") + b"\xff\xda" * 200  # such as those of a thumbnail
    for picture in (scans[:2] + segment + scans[2:], scans + b"\xff\xda" * 200):
        assert read_grey(picture).size == (32, 32)


def test_fill_bytes_between_the_scans_take_no_quadratic_time():
    whole = with_scans(6)
    began = time.process_time()
    assert read_grey(whole[:-2] + b"\xff" * 30_000 + b"\0" + whole[-2:]).size == (32, 32)
    assert time.process_time() - began < 1  # seconds; 6 where the search goes on from each fill byte to the last


def test_a_jpeg_of_a_million_parts_is_refused():
    with pytest.raises(PictureError, match="too many parts"):
        read_grey(with_scans(6)[:-2] + b"\xff\xfe\0\2" * 20_000 + b"\xff\xd9")


def tiff(*tags, data=b"", size=(4, 6)):
    """A grey TIFF of 8 bits, as (tag, type 3 or 4, values) state it; offsets count from the pixels."""
    width, height = size
    usual = ((256, 4, [width]), (257, 4, [height]), (258, 3, [8]), (262, 3, [1]), (277, 3, [1]))
    entries = sorted((*usual, *tags), key=lambda entry: entry[0])
    longer = 8 + 2 + 12 * len(entries) + 4  # offset of the values that do not fit into their entry
    begin = longer + sum(4 * len(values) for _, _, values in entries if len(values) > 1)
    head, beside = struct.pack("<2sHIH", b"II", 42, 8, len(entries)), b""
    for tag, kind, values in entries:
        numbers = [begin + number if tag in (273, 324) else number for number in values]
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(numbers) > 1:
            beside += packed
            packed = struct.pack("<I", longer + len(beside) - len(packed))
        head += struct.pack("<HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    return head + struct.pack("<I", 0) + beside + data


PIXELS = bytes(range(24))  # of 4 x 6


def test_a_tiff_whose_strips_share_bytes_is_refused():
    packed = [zlib.compress(PIXELS[start : start + 4]) for start in range(0, 24, 4)]
    kind = ((259, 3, [8]), (278, 4, [1]))
    offsets = (273, 4, [sum(map(len, packed[:row])) for row in range(6)])
    counts = [len(row) for row in packed]
    apart = tiff(*kind, offsets, (279, 4, counts), data=b"".join(packed))
    np.testing.assert_array_equal(np.asarray(read_grey(apart)).ravel(), list(PIXELS))
    for shared in ([1000] * 6, [2**32 - 1, 1, 1, 1, 1, 1]):
        with pytest.raises(PictureError, match=r"6 parts share bytes; save it again"):
            read_grey(tiff(*kind, (273, 4, [0] * 6), (279, 4, shared), data=packed[0]))
    with pytest.raises(PictureError, match="tag 279 twice"):
        read_grey(tiff(*kind, offsets, (279, 4, [1000] * 6), (279, 4, counts), data=b"".join(packed)))


def test_an_uncompressed_tiff_with_wrong_counts_is_read():
    """Pillow's own decoder needs none of them."""
    offsets, rows = (273, 4, [0, 16]), (278, 4, [4])
    picture = tiff((259, 3, [1]), offsets, rows, (279, 4, [1000, 1000]), data=PIXELS)
    np.testing.assert_array_equal(np.asarray(read_grey(picture)).ravel(), list(PIXELS))


def test_a_tiff_with_tiles_much_larger_than_its_picture_is_refused():
    def tiled(across, down, *more, size=(4, 6)):
        tile = zlib.compress(bytes(across * down))
        sides = ((322, 4, [across]), (323, 4, [down]))
        return tiff((259, 3, [8]), *sides, (324, 4, [0]), (325, 4, [len(tile)]), *more, data=tile, size=size)

    assert read_grey(tiled(32, 32)).size == (4, 6)
    with pytest.raises(PictureError, match=r"4x6 pixels with tiles of 8192x8192"):
        read_grey(tiled(8192, 8192))
    turned = tiled(6000, 16, (274, 3, [6]), size=(6000, 16))  # by its orientation, once it is read
    assert read_grey(turned).size == (16, 6000)


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"big_tiff": True}])
def test_ordinary_tiffs_of_many_strips_are_read(options):
    stream = io.BytesIO()
    Image.effect_noise((300, 900), 60).save(stream, "TIFF", **options)
    assert read_grey(stream.getvalue()).size == (300, 900)


@pytest.mark.parametrize(("kind", "values"), [(b"P1", b"1 0 1 0"), (b"P2", b"9 8 7 6"), (b"P3", b"9 8 7 " * 4)])
def test_a_plain_pnm_is_short_and_has_few_comments(kind, values):
    head = kind + b" 2 2 " + (b"" if kind == b"P1" else b"9 ")
    assert read_grey(head + b"# \n" * 1000 + values).size == (2, 2)
    with pytest.raises(PictureError, match="more than 1,000 comments; save it as binary PNM or PNG"):
        read_grey(head + b"# \n" * 1001 + values)
    with pytest.raises(PictureError, match=r"16,777,251 bytes; the limit is 16,777,216"):
        read_grey(head + values.ljust(2**24 + 35 - len(head)))
