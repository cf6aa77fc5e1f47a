"""From the bytes of an image file, whoever sent them, to pixels: the one door to Pillow.

libmtmd could decode files itself, with a decoder that has no bound on pixels. Here a file is judged by its header
first, only formats that people attach to messages are tried, and whatever goes wrong is InputInvalid.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from runtime.errors import InputInvalid

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_BYTES = 32 * 2**20
MOST_PIXELS = 50 * 2**20  # a phone's largest photograph; 200 MB while it is decoded
KEPT_PIXELS = 2**23  # more than projectors look at, which scale down what is larger
MOST_STRETCH = 200  # times as long as wide; the processors of the Qwen family refuse more, too


@dataclass(frozen=True, slots=True)
class Pixels:
    """An upright, opaque image. rgb: three bytes a pixel, row by row from the upper left."""

    width: int
    height: int
    rgb: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of size and colours, 64 hex digits: the same for the same picture in two files."""
        return hashlib.sha256(b"%d %d " % (self.width, self.height) + self.rgb).hexdigest()

    def scaled(self, width: int, height: int) -> Pixels:
        """The picture in another size; itself where it has that size."""
        if (width, height) == (self.width, self.height):
            return self
        image = Image.frombytes("RGB", (self.width, self.height), self.rgb)
        return Pixels(width, height, image.resize((width, height), Image.Resampling.LANCZOS).tobytes())


def read_pixels(data: bytes) -> Pixels:
    """Decode the first frame of an image file, turned as its EXIF says, on white. Raises InputInvalid."""
    if len(data) > MOST_BYTES:
        raise InputInvalid(f"an image file may have {MOST_BYTES} bytes, this one has {len(data)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of big images, judged below, and of odd metadata, which is not used
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(*image.size)
                image.draft(None, _kept_size(*image.size))  # a large JPEG is decoded at a fraction of its size
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                kept = _opaque(image)
        except InputInvalid:
            raise
        except Image.DecompressionBombError:
            raise InputInvalid(f"an image may have {MOST_PIXELS} pixels, this one has more") from None
        except UnidentifiedImageError:
            raise InputInvalid(f"not an image that is understood: {', '.join(FORMATS)} are") from None
        except Exception as error:  # decoders raise whatever a broken file makes them stumble on
            raise InputInvalid(f"the image file is damaged: {type(error).__name__}") from error
    return Pixels(kept.width, kept.height, kept.tobytes())


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise InputInvalid("the image is empty")
    if width * height > MOST_PIXELS:
        raise InputInvalid(f"an image may have {MOST_PIXELS} pixels, this one has {width * height}")
    if max(width, height) > MOST_STRETCH * min(width, height):
        raise InputInvalid(f"an image may be {MOST_STRETCH} times as long as wide, this one is {width} by {height}")


def _kept_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, (KEPT_PIXELS / (width * height)) ** 0.5)
    return max(1, int(width * scale)), max(1, int(height * scale))


def _opaque(image: Image.Image) -> Image.Image:
    """`image` as RGB, scaled down to what is kept, transparent parts white."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off instead of scaling
        grey = np.asarray(image).astype(np.int64).clip(0, 0xFFFF) >> 8
        flat = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    else:
        mode = "RGBA" if image.has_transparency_data else "RGB"
        flat = image if image.mode == mode else image.convert(mode)
    if flat.size != (size := _kept_size(*flat.size)):
        flat = flat.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if flat.mode == "RGBA":
        white = Image.new("RGBA", flat.size, "white")
        flat = Image.alpha_composite(white, flat).convert("RGB")
    return flat
