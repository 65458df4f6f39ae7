"""What --image-size says, and what it refuses in one line."""

import pytest

from dlzoo.errors import ArgumentError
from dlzoo.export.plan.image_size import DYNAMIC, ImageSize, SizeRange, parse_image_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("256,320", (256, 320)),
        ("256x320", (256, 320)),
        ("dynamic", DYNAMIC),
        ("224..512", SizeRange(low=224, high=512)),
    ],
)
def test_a_text_becomes_a_size(text: str | None, expected: ImageSize) -> None:
    assert parse_image_size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "big", "256", "0,5", "-1,5", "5..5", "9..5", "0..5", "1..", "1.5,2", "1,2,3"]
)
def test_what_is_no_size_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ArgumentError) as error:
        parse_image_size(text)
    assert str(error.value).startswith(f"`image_size` got {text!r}, expected height,width")
    assert "\n" not in str(error.value)


def test_the_nearest_size_of_a_range() -> None:
    sizes = SizeRange(low=224, high=512)
    assert [sizes.nearest(size) for size in (1, 224, 300, 900)] == [224, 224, 300, 512]
    assert DYNAMIC.nearest(900) == 900
