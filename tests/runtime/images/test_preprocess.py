"""Images of every kind become the pixels that a viewer shows, or one clear line."""

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from dlzoo.errors import BundleError, ImageError
from dlzoo.runtime.images.preprocess import image_array, tensor_from_image

IMAGENET: Mapping[str, Any] = {  # as a manifest holds it: lists, not tuples
    "color": "RGB",
    "resize_size": 256,
    "crop_size": [224, 224],
    "interpolation": "bilinear",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
PIXELS_ONLY = {**IMAGENET, "mean": [0.0] * 3, "std": [1.0] * 3}
DIGIT = {
    **IMAGENET,
    "color": "L",
    "resize_size": 28,
    "crop_size": [32, 32],
    "mean": [20 / 255],
    "std": [200 / 255],
}

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def picture(mode: str = "RGB") -> Image.Image:
    """Two rows of red, green, blue."""
    row = [RED, GREEN, BLUE]
    return Image.fromarray(np.array([row, row], np.uint8)).convert(mode)


@pytest.mark.parametrize("photo", ["chelsea.png", "coffee.png", "rocket.jpg", "camera.png"])
def test_is_pillows_own_resize_and_crop(photo: str, photo_folder: Path) -> None:
    # As torchvision's presets do it; wide photos, which every Pillow resizes rows first.
    with Image.open(photo_folder / photo) as file:
        image = file.convert("RGB")
    width = 256 * image.width // image.height
    image = image.resize((width, 256), Image.Resampling.BILINEAR)
    left = round((width - 224) / 2)
    expected = np.asarray(image.crop((left, 16, left + 224, 240))).transpose(2, 0, 1)
    x = tensor_from_image(photo_folder / photo, PIXELS_ONLY)
    assert x.shape == (1, 3, 224, 224)
    np.testing.assert_array_equal(x[0], expected.astype(np.float32) / np.float32(255))


def test_a_tall_photo_is_a_level_from_pillows_own(photo_folder: Path) -> None:
    with Image.open(photo_folder / "chelsea.png") as file:
        image = file.resize((300, 900))
    own = np.asarray(image.resize((256, 768), Image.Resampling.BILINEAR)).astype(int)
    squeezed = {**PIXELS_ONLY, "resize_size": None, "crop_size": [768, 256]}
    x = tensor_from_image(np.array(image), squeezed)
    ours = np.round(x[0].transpose(1, 2, 0) * 255).astype(int)
    difference = np.abs(ours - own)
    if int(PIL.__version__.split(".")[0]) < 13:
        assert difference.max() == 0
    else:
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.2


def test_normalization(photo_folder: Path) -> None:
    pixels = tensor_from_image(photo_folder / "chelsea.png", PIXELS_ONLY)
    x = tensor_from_image(photo_folder / "chelsea.png", IMAGENET)
    mean = np.array(IMAGENET["mean"], np.float32).reshape(1, 3, 1, 1)
    std = np.array(IMAGENET["std"], np.float32).reshape(1, 3, 1, 1)
    np.testing.assert_array_equal(x, (pixels - mean) / std, strict=True)


def test_a_digit_is_padded_with_background() -> None:
    ink = np.full((28, 28, 1), 255, np.uint8)
    (field,) = tensor_from_image(ink, DIGIT)[0]
    assert field.shape == (32, 32)
    np.testing.assert_allclose(field[2:30, 2:30], 1.175, rtol=1e-6, atol=0)
    field[2:30, 2:30] = -0.1
    np.testing.assert_allclose(field, -0.1, rtol=1e-6, atol=0)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats(file_format: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encoded(picture(), file_format))
    expected = np.array([[[RED, GREEN, BLUE]] * 2], np.uint8)
    for source in (path, str(path), path.read_bytes(), np.asarray(picture())):
        pixels = image_array(source)
        np.testing.assert_array_equal(pixels, expected, strict=True)
        assert pixels.flags.writeable
        assert pixels.flags.c_contiguous


def test_orientation_in_exif() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees to the left: a viewer turns it back
    pixels = image_array(encoded(picture(), "TIFF", exif=exif))
    np.testing.assert_array_equal(pixels[0], [[RED] * 2, [GREEN] * 2, [BLUE] * 2])


def test_damaged_exif_does_not_matter() -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(image_array(data), image_array(encoded(picture(), "JPEG")))


@pytest.mark.parametrize(
    ("mode", "file_format", "expected"),
    [
        ("P", "PNG", [RED, GREEN, BLUE]),
        ("P", "GIF", [RED, GREEN, BLUE]),
        ("CMYK", "TIFF", [RED, GREEN, BLUE]),
        ("RGBA", "PNG", [RED, GREEN, BLUE]),
        # ITU-R 601: 0.299, 0.587, 0.114
        ("L", "PNG", [(76,) * 3, (150,) * 3, (29,) * 3]),
        ("LA", "PNG", [(76,) * 3, (150,) * 3, (29,) * 3]),
    ],
)
def test_modes(mode: str, file_format: str, expected: list[tuple[int, ...]]) -> None:
    image = picture() if file_format == "GIF" else picture(mode)
    pixels = image_array(encoded(image, file_format))
    np.testing.assert_array_equal(pixels[0, 0], expected)


def test_grey_levels_of_a_coloured_image() -> None:
    pixels = image_array(encoded(picture(), "PNG"), "L")
    np.testing.assert_array_equal(pixels, np.array([[[[76], [150], [29]]] * 2]))


def test_black_and_white() -> None:
    image = Image.fromarray(np.array([[True, False]]))
    np.testing.assert_array_equal(image_array(encoded(image, "PNG"))[0, 0], [WHITE, (0, 0, 0)])


def test_transparent_is_white() -> None:
    image = picture("RGBA")
    image.putalpha(Image.fromarray(np.array([[255, 0, 51]] * 2, np.uint8)))
    seen = [RED, WHITE, (204, 204, 255)]
    np.testing.assert_array_equal(image_array(encoded(image, "PNG"))[0, 0], seen)
    palette = encoded(picture("P"), "PNG", transparency=picture("P").getpixel((1, 0)))
    np.testing.assert_array_equal(image_array(palette)[0, 0], [RED, WHITE, BLUE])


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_levels(file_format: str) -> None:
    levels = np.array([[0, 257, 129 * 257, 65535, 128, 129]], np.uint16)
    pixels = image_array(encoded(Image.fromarray(levels), file_format), "L")
    np.testing.assert_array_equal(pixels[0, 0, :, 0], [0, 1, 129, 255, 0, 1])


def test_first_frame_of_several() -> None:
    frames = [Image.new("RGB", (3, 2), color) for color in (RED, BLUE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(image_array(data)[0, 0], [RED] * 3)


def refusal(source: Any, color: str = "RGB") -> str:
    with pytest.raises(ImageError) as caught:
        image_array(source, color)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    missing = tmp_path / "cat.png"
    assert refusal(missing) == f"{missing} does not exist. Give the path of an image file."
    assert refusal(tmp_path).startswith(
        f"{tmp_path} cannot be read as an image: Is a directory"
    )
    (tmp_path / "empty.png").write_bytes(b"")
    assert "empty.png cannot be read as an image: of no known format." in refusal(
        tmp_path / "empty.png"
    )
    (tmp_path / "text.jpg").write_text("no image")
    assert refusal(tmp_path / "text.jpg").endswith(
        "Give a whole JPEG, PNG, WebP, GIF, BMP or TIFF file."
    )


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"])
def test_truncated_files(file_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), file_format)
    message = refusal(data[: len(data) // 2])
    assert message.startswith(
        f"The image of {len(data) // 2} bytes cannot be read as an image"
    )


def test_damaged_files_never_escape() -> None:
    random = np.random.default_rng(0)
    whole = [encoded(picture(), f) for f in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP")]
    refused = 0
    for _ in range(300):
        data = bytearray(whole[random.integers(len(whole))])
        for position in random.integers(0, len(data), 4):
            data[position] = random.integers(256)
        try:
            image_array(bytes(data))
        except ImageError:
            refused += 1
    assert refused > 50


def test_image_bombs() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    for side in (10_000, 60_000):  # a warning of Pillow's, and an error
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        data = (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
        )
        assert refusal(data) == (
            f"The image of {len(data)} bytes has more than 89,478,485 pixels. "
            "Make it smaller first."
        )


def test_too_long_and_narrow_to_be_resized() -> None:
    line = np.zeros((2, 80_000, 3), np.uint8)
    with pytest.raises(ImageError) as caught:
        tensor_from_image(line, IMAGENET)
    assert str(caught.value) == (
        "The image uint8 [2, 80000, 3] is 80000 x 2 pixels, too long and narrow to be resized "
        "to 10240000 x 256. Crop it first."
    )


def test_unknown_range_of_grey_levels() -> None:
    levels = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert "floating-point grey levels" in refusal(encoded(Image.fromarray(levels), "TIFF"))
    wide = np.array([[0, 65536]], np.int32)
    assert "grey levels 0 to 65536, expected 16 bits" in refusal(
        encoded(Image.fromarray(wide), "TIFF")
    )


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (
            np.zeros((4, 4, 3), np.float32),
            "The image float32 [4, 4, 3]: expected uint8 [H, W, C]. Give decoded 8-bit pixels.",
        ),
        (
            np.zeros((0, 4, 3), np.uint8),
            "The image uint8 [0, 4, 3]: expected uint8 [H, W, C]. Give decoded 8-bit pixels.",
        ),
        (
            np.zeros((4, 4, 1), np.uint8),
            "The image uint8 [4, 4, 1]: expected 3 channels (RGB). Convert it first.",
        ),
    ],
)
def test_refuses_other_arrays(pixels: np.ndarray, message: str) -> None:
    assert refusal(pixels) == message


@pytest.mark.parametrize(
    "damage",
    [
        {"interpolation": "lanczos"},
        {"color": "CMYK"},
        {"crop_size": [224]},
        {"crop_size": [0, 224]},
        {"resize_size": -1},
        {"std": [0.0, 1.0, 1.0]},
        {"mean": [0.5]},
        {"mean": [float("nan")] * 3},
    ],
)
def test_damaged_preprocessing(damage: dict[str, Any]) -> None:
    with pytest.raises(BundleError) as caught:
        tensor_from_image(np.zeros((4, 4, 3), np.uint8), {**IMAGENET, **damage})
    message = str(caught.value)
    assert message.startswith("The bundle's preprocessing is {'color': ")
    assert message.endswith("Export the bundle again.")


def test_missing_field() -> None:
    fields = {k: v for k, v in IMAGENET.items() if k != "mean"}
    with pytest.raises(BundleError, match="expected color, resize_size, crop_size"):
        tensor_from_image(np.zeros((4, 4, 3), np.uint8), fields)
