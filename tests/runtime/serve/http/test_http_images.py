"""Images over HTTP at a real server: their classes, and bodies that are not images."""

import io
import struct
import zlib

import httpx
import pytest
from PIL import Image


def image_file(value: int, kind: str = "PNG", size: tuple[int, int] = (16, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_images_become_classes(client: httpx.Client, kind: str) -> None:
    for value, label in ((250, "bright"), (5, "dark")):
        answer = client.post("/v2/models/mean/classify?k=1", content=image_file(value, kind))
        assert answer.status_code == 200, answer.text
        (best,) = answer.json()["classes"]
        assert best["label"] == label and best["score"] > 0.9


def png_bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises pixels that it does not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, data)
        for kind, data in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "cannot be read as an image"),
        (b"GIF89a not really", 400, "expected JPEG, PNG or WebP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400, "cannot be read as an image"),
        (image_file(9)[:45], 400, "cannot be read as an image"),
        (png_bomb(2000, 2000), 413, "more than 1,000,000 pixels"),
        (png_bomb(100_000, 100_000), 413, "more than 1,000,000 pixels"),
        (png_bomb(1000, 1000), 400, "cannot be read as an image"),
        (png_bomb(1, 900_000), 413, "as sent or resized"),
    ],
)
def test_bodies_that_are_not_images(
    client: httpx.Client, machine_folder: str, body: bytes, status: int, message: str
) -> None:
    answer = client.post("/v2/models/mean/classify", content=body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"] and machine_folder not in answer.text


def test_classify_refuses_models_without_images_and_bad_k(client: httpx.Client) -> None:
    answer = client.post("/v2/models/every_dtype/classify", content=image_file(1))
    assert answer.status_code == 400 and "how images become" in answer.json()["error"]
    for k in ("0", "-1", "a", "1.5", "1000000"):
        answer = client.post(
            "/v2/models/mean/classify", params={"k": k}, content=image_file(1)
        )
        assert answer.status_code == 400 and "expected 1 to 999,999" in answer.json()["error"]
