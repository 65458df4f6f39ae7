"""What several test files share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def photo_folder() -> Path:
    """scikit-image's photos: ``chelsea.png`` (a cat), ``coffee.png``, ``rocket.jpg``, ..."""
    import skimage

    return Path(skimage.__file__).parent / "data"
