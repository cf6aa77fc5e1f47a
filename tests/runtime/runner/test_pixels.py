"""Image files as people send them, and as people send them who mean harm."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from runtime.errors import InputInvalid
from runtime.runner.pixels import KEPT_PIXELS, MOST_BYTES, MOST_PIXELS, Pixels, read_pixels
from tests.tiny_projector import image_bytes

LOSSLESS = ("PNG", "GIF", "BMP")
ALL = (*LOSSLESS, "JPEG", "WEBP")


def _array(pixels: Pixels) -> np.ndarray:
    return np.frombuffer(pixels.rgb, np.uint8).reshape(pixels.height, pixels.width, 3)


def _file(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def _png(width: int, height: int, body: bytes = b"", *, depth: int = 8, color: int = 2) -> bytes:
    """A PNG whose header says what it likes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("file_format", ALL)
def test_every_format_gives_the_picture(file_format):
    pixels = read_pixels(image_bytes((200, 200, 200), (40, 30), file_format=file_format))

    assert (pixels.width, pixels.height) == (40, 30)
    near = _array(pixels).astype(int)
    assert near[0, 0].max() < 20  # the gradient begins black at the upper left, and ends light at the lower right
    assert near[-1, -1].min() > 180


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "CMYK"])
def test_every_kind_of_pixel_becomes_rgb(mode):
    if mode == "I;16":
        data = _file(Image.fromarray(np.full((8, 8), 0x8000, np.uint16)))
    else:
        grey = Image.new("RGB", (8, 8), (128, 128, 128))
        data = _file(grey.quantize(4) if mode == "P" else grey.convert(mode), "JPEG" if mode == "CMYK" else "PNG")

    colors = _array(read_pixels(data)).astype(int)

    assert colors.shape == (8, 8, 3)
    if mode != "1":
        assert abs(colors - 128).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_white(mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    options = {"transparency": 0} if mode == "P" else {}

    assert (_array(read_pixels(_file(image, **options))) == 255).all()


def test_an_image_is_turned_as_its_camera_was_held():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned to the right
    pixels = read_pixels(image_bytes(size=(40, 20), file_format="JPEG", exif=exif))

    assert (pixels.width, pixels.height) == (20, 40)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(file_format):
    frames = [Image.new("RGB", (6, 6), color) for color in ("red", "blue")]
    data = _file(frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True)

    red = _array(read_pixels(data))[0, 0]

    assert red[0] > 240 > 20 > red[2]


def test_a_digest_is_of_the_picture_and_not_of_the_file():
    png, bmp = (read_pixels(image_bytes(file_format=name)) for name in ("PNG", "BMP"))
    other = read_pixels(image_bytes((199, 30, 30)))
    turned = Pixels(png.height, png.width, png.rgb)

    assert png.digest == bmp.digest
    assert len({png.digest, other.digest, turned.digest}) == 3


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_a_large_picture_is_scaled_down(file_format):
    pixels = read_pixels(_file(Image.new("RGB", (6000, 4000), (10, 200, 30)), file_format))

    assert KEPT_PIXELS * 0.9 < pixels.width * pixels.height <= KEPT_PIXELS
    assert abs(pixels.width / pixels.height - 1.5) < 0.01


REFUSED = {
    "nothing": (b"", "not an image"),
    "text": (b"hello", "not an image"),
    "PDF": (b"%PDF-1.7 ...", "not an image"),
    "sound": (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + bytes(40), "not an image"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    "TIFF": (_file(Image.new("RGB", (4, 4)), "TIFF"), "not an image"),
    "no pixels": (_png(0, 0), None),
    "no rows": (_png(10, 10), "damaged"),
    "not one whole row": (_png(10, 10, bytes(5)), "damaged"),
    "unknown kind of colour": (_png(10, 10, bytes(310), color=5), None),
    "a bomb": (_png(8000, 8000), f"may have {MOST_PIXELS} pixels"),
    "a large bomb": (_png(60_000, 60_000), f"may have {MOST_PIXELS} pixels"),
    "the largest bomb": (_png(2**31 - 1, 2**31 - 1), None),
    "a thread": (_png(60_000, 200), "times as long as wide"),
    "too many bytes": (b"\x89PNG\r\n\x1a\n" + bytes(MOST_BYTES), f"may have {MOST_BYTES} bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_good_image_is_refused(name):
    data, words = REFUSED[name]

    with pytest.raises(InputInvalid, match=words):
        read_pixels(data)


def test_a_gif_whose_frame_is_larger_than_the_whole_is_refused():
    data = bytearray(image_bytes(file_format="GIF"))
    palette = 3 * 2 ** ((data[10] & 7) + 1)
    frame = data.index(b"\x2c" + bytes(4), 13 + palette)
    data[frame + 5 : frame + 9] = struct.pack("<HH", 65_535, 65_535)

    with pytest.raises(InputInvalid):
        read_pixels(bytes(data))


@pytest.mark.parametrize("file_format", ALL)
def test_a_cut_off_file_is_refused_or_shows_a_whole_picture(file_format):
    data = image_bytes(file_format=file_format)

    for length in range(0, len(data), max(1, len(data) // 60)):
        try:
            pixels = read_pixels(data[:length])
        except InputInvalid:
            continue
        assert len(pixels.rgb) == pixels.width * pixels.height * 3


@pytest.mark.parametrize("file_format", ALL)
def test_changed_bytes_raise_nothing_but_a_refusal(file_format):
    chance = random.Random(file_format)
    whole = image_bytes((90, 160, 250), (24, 18), file_format=file_format)

    for _ in range(200):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8, 40))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            pixels = read_pixels(bytes(data))
        except InputInvalid:
            continue
        assert len(pixels.rgb) == pixels.width * pixels.height * 3
