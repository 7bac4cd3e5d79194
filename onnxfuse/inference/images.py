"""Images as the arrays that a model takes: what preprocessor_config.json asks for, done with Pillow.

Source: the image processors of ``transformers`` 5 whose names end in Pil; those on torchvision differ from them by rounding.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.errors import MissingExtraError, ModelError, UsageError
from onnxfuse.io import door, files
from onnxfuse.verify.profile import Input

FILE = "preprocessor_config.json"

WHOLE, FIELD = "processor_config.json", "image_processor"
"""Where ``transformers`` 5 has the same for models of texts and images."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Files that are read: others have Pillow call programs, or are no photographs."""

LARGEST = 1 << 13
"""Of a side, in pixels: more than any encoder takes."""

BICUBIC, BILINEAR = 3, 2
"""Pillow's numbers of the ways to resize; it has six."""

STANDARD = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
SHORTEST = {"size": {"shortest_edge": 224}, "crop_size": 224, "resample": BICUBIC, "do_center_crop": True}

KINDS: Mapping[str, Mapping[str, Any]] = {
    "ViT": STANDARD | {"size": 224, "resample": BILINEAR, "do_center_crop": False},
    "DeiT": STANDARD | {"size": 256, "crop_size": 224, "resample": BICUBIC, "do_center_crop": True},
    "Bit": CLIP | SHORTEST,
    "CLIP": CLIP | SHORTEST,
    "Siglip": STANDARD | {"size": 224, "resample": BICUBIC, "do_center_crop": False},
}
"""What each processor of ``transformers`` does where the file does not say; all rescale by 1/255 and normalize."""

SHORT_EDGE = ("Bit", "CLIP")
"""Those to which a single number as ``size`` is that of the shorter edge."""

ENDS = ("ImageProcessor", "FeatureExtractor", "ImageProcessorFast", "ImageProcessorPil")


@dataclass(frozen=True)
class Images:
    """How images become arrays.

    Args:
        file: that says so.
        size: height and width that they are brought to; (edge, 0): the shorter edge's; None leaves them.
        crop: height and width of the middle that is kept; None keeps all.
        resample: Pillow's number of the way to resize.
        scale: what the bytes are multiplied with; None leaves them.
        mean, std: of each channel, taken off and divided by; None leaves them.
        taken: the model's input.
    """

    file: Path
    size: tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: int
    scale: float | None
    mean: np.ndarray | None
    std: np.ndarray | None
    taken: Input

    def pixels(self, image: Any, number: int = 1) -> np.ndarray:
        """An image as an array [channels, height, width] of float32.

        Args:
            image: a file's path, its bytes, an image of Pillow, or bytes as an array [height, width], or with 3 channels at
                its end.
            number: which image it is, for messages.

        Raises:
            UsageError, ModelError: it is none, or comes out in another size than the model takes.
        """
        read = _opened(image, f"image {number}").convert("RGB" if self.taken.shape[1] != 1 else "L")
        if self.size is not None:
            height, width = self._sides(read.height, read.width)
            if max(height, width) > 4 * LARGEST:
                raise UsageError(f"image {number} has {read.width} x {read.height} pixels, which is too narrow to be resized")
            read = read.resize((width, height), resample=self.resample)
        array = np.asarray(read).reshape(read.height, read.width, -1)
        array = array if self.crop is None else _middle(array, *self.crop)
        values = array.astype(np.float32) if self.scale is None else (array.astype(np.float64) * self.scale).astype(np.float32)
        values = values if self.mean is None or self.std is None else (values - self.mean) / self.std
        pixels = np.ascontiguousarray(np.moveaxis(values, -1, 0))
        if pixels.shape != self.taken.shape[1:]:
            raise ModelError(f"{self.file} makes images of {list(pixels.shape)}, the model takes {list(self.taken.shape[1:])}")
        return pixels

    def _sides(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image once resized."""
        assert self.size is not None
        edge, other = self.size
        if other:
            return edge, other
        long = int(edge * max(height, width) / min(height, width))
        return (long, edge) if width <= height else (edge, long)


def images_in(folder: Path, taken: Input) -> Images:
    """What the folder's preprocessor_config.json asks for, for a model's input.

    Raises:
        UsageError: there is none, nor a processor_config.json that holds one.
        ModelError: it is broken, or asks for what is not known here.
    """
    path, said = _said(folder)
    name = str(said.get("image_processor_type") or said.get("feature_extractor_type"))
    kind = next((kind for kind in KINDS for end in ENDS if name == kind + end), None)
    if kind is None:
        raise ModelError(
            f"{path} is for {name!r:.60}, wanted a processor of {', '.join(KINDS)}; give the model pixel_values itself"
        )
    fields = {**KINDS[kind], **{key: value for key, value in said.items() if value is not None}}
    if fields.get("do_pad"):
        raise ModelError(f"{path} asks for padding (do_pad), which is not known here; give the model pixel_values itself")
    resample = fields["resample"]
    if type(resample) is not int or not 0 <= resample <= 5:
        raise ModelError(f"{path} has {resample!r:.40} as resample, wanted a number from 0 to 5; correct it")
    channels = 1 if taken.shape[1] == 1 else 3
    normal = fields.get("do_normalize", True)
    return Images(
        path,
        _size(path, fields["size"], kind in SHORT_EDGE, "size") if fields.get("do_resize", True) else None,
        _size(path, fields.get("crop_size"), False, "crop_size") if fields["do_center_crop"] else None,
        resample,
        float(_numbers(path, fields.get("rescale_factor", 1 / 255), 1, "rescale_factor")[0])
        if fields.get("do_rescale", True)
        else None,
        _numbers(path, fields["image_mean"], channels, "image_mean") if normal else None,
        _numbers(path, fields["image_std"], channels, "image_std") if normal else None,
        taken,
    )


def _said(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file that says how images become arrays, and what it says. Raises UsageError, ModelError."""
    if os.path.lexists(path := folder / FILE):
        return path, files.read_object(door.linked(path, folder))
    if os.path.lexists(path := folder / WHOLE):
        part = files.read_object(door.linked(path, folder)).get(FIELD)
        if isinstance(part, dict):
            return path, part
    raise UsageError(f"{folder} has no {FILE}, which tells how images become arrays; copy the checkpoint's there")


def _size(path: Path, said: Any, short: bool, name: str) -> tuple[int, int]:
    """Height and width, or the shorter edge and 0. Raises ModelError."""
    sides = {"shortest_edge" if short else "side": said} if type(said) is int else said if isinstance(said, dict) else {}
    known = {"side": ("side", "side"), "shortest_edge": ("shortest_edge", ""), "height width": ("height", "width")}
    first, second = known.get(" ".join(sorted(sides)), ("", ""))
    if not first or (name == "crop_size" and not second):
        raise ModelError(
            f"{path} has {said!r:.80} as {name}, wanted a height and a width, or the size of shortest_edge; correct it"
        )
    if not all(type(side) is int and 0 < side <= LARGEST for side in sides.values()):
        raise ModelError(f"{path} has {said!r:.80} as {name}, wanted 1 to {LARGEST} pixels; correct it")
    return sides[first], sides.get(second, 0)


def _numbers(path: Path, said: Any, count: int, name: str) -> np.ndarray:
    """``count`` numbers, of a single one all. Raises ModelError."""
    numbers = said if isinstance(said, list) else [said] * count
    wrong = len(numbers) != count or not all(type(number) in (int, float) for number in numbers)
    found = np.array([1.0] if wrong else numbers, np.float64)
    if wrong or not (abs(found) < LARGEST**2).all() or (name == "image_std" and not found.all()):
        raise ModelError(f"{path} has {said!r:.80} as {name}, wanted {count} numbers; correct it")
    return found if name == "rescale_factor" else found.astype(np.float32)


def _opened(image: Any, name: str) -> Any:
    """An image of Pillow, upright. Raises UsageError, MissingExtraError."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError("reading images", "text") from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or not image.size:
            raise UsageError(
                f"{name} is {image.dtype}{list(image.shape)}, wanted bytes (uint8) [height, width] or [height, width, 3]"
            )
        return Image.fromarray(image)
    if isinstance(image, Image.Image):
        return ImageOps.exif_transpose(image)
    if not isinstance(image, str | os.PathLike | bytes):
        wanted = "a file's path or bytes, an image of Pillow, or an array of bytes"
        raise UsageError(f"{name} is {type(image).__name__}, wanted {wanted}")
    path, file = (name, io.BytesIO(image)) if isinstance(image, bytes) else 2 * (door.require_regular(Path(image)),)
    with door.reading(path, "an image", UsageError, "save it as PNG or JPEG"), Image.open(file, formats=FORMATS) as opened:
        opened.load()
        return ImageOps.exif_transpose(opened)


def _middle(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of an image [H,W,channels], with zeros around where it is smaller."""
    for axis, wanted in enumerate((height, width)):
        seen = array.shape[axis]
        before = -(-max(0, wanted - seen) // 2)
        array = np.pad(array, [(before, max(0, wanted - seen) - before) if at == axis else (0, 0) for at in range(3)])
        start = (seen - wanted) // 2 if seen >= wanted else 0
        array = array[(slice(None),) * axis + (slice(start, start + wanted),)]
    return array
