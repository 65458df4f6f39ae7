"""Resizing, cropping, scaling and normalizing as a module, exported within the model's graph.

Shapes: N batch, H and W image height and width, C channels, h and w the network's height and
width, O positions along an axis of the output, I pixels of the input from which they are
computed, M = N * C planes, L = N * C * I lines.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.registry import Preprocessing

#: Pillow resamples 8-bit images in fixed point with this many fractional bits.
#: Source: Pillow, ``Resample.c``, ``PRECISION_BITS = 32 - 8 - 2``.
_COEFFICIENT_BITS = 22
#: Half of these: a coefficient is ``high * 2^11 + low``, and both fit 11 bits exactly.
_HALF = float(2 ** (_COEFFICIENT_BITS // 2))

#: Radius of each filter, in pixels of the coarser grid.
_FILTER_RADIUS = {"bilinear": 1, "bicubic": 2}

#: Windows along a row. Each is one matrix product over only the pixels it needs, and about 25
#: more nodes. 12 megapixels took 235 ms of one core with one window, 115 with 4 and 79 with 8
#: (Pillow: 79); photos of 0.1 megapixels took 4 to 5 with any number.
_NUM_WINDOWS = 4


class ImagePreprocessor(nn.Module):
    """Turn 8-bit images of any size into the network's input, with exactly Pillow's pixels.

    ``x = (crop(resize(image)) / 255 - mean) / std``

    The shorter side becomes ``resize_size`` and the longer one keeps the aspect ratio, rounded
    down; the centre is cropped, and padded with 0 where the image is smaller. Without a
    ``resize_size`` the image is squeezed to ``crop_size``. Resizing is antialiased: the radius of
    the filter grows with the reduction. Rows are resized before columns. (Pillow 13 resizes the
    columns of some tall images first, Pillow up to 12 never does.)

    Each axis is resampled by a matrix that is computed from the image's shape. Its entries are
    Pillow's 22-bit fixed-point numbers, split into two halves of 11 bits, so that every product
    and sum is a whole number that float32 (and TF32) represents exactly: the pixels equal
    Pillow's, on any hardware and in any order of summation. (Sums of the lower half are certain to
    be exact up to a 32-fold reduction, 16-fold for bicubic.) Only pixels within the crop are
    computed. ONNX ``Resize`` with ``antialias=1`` differs from Pillow by up to 2 levels.

    **Source**: Pillow, ``Resample.c``; torchvision, ``transforms/functional.py`` (sizes, crop).

    **Shape**: uint8 [N, H, W, C], H and W at least 1, to [N, C, h, w] in the type of ``mean``;
    C is 3 (RGB) or 1 (colour "L": the caller converts to grey levels).

    **ONNX**: about 250 nodes of opset 18, without ``Resize``: the coefficients in float64 (Range,
    Floor, ...) from scalar arithmetic on the shape, then a Gather, and Slice, Cast, MatMul for
    each window. N, H and W can be dynamic.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.num_channels = {"RGB": 3, "L": 1}[preprocessing.color]
        self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).reshape(-1, 1, 1))

    def forward(self, image_NHWC: Tensor) -> Tensor:
        """Prepare a batch of images of one size.

        Raises:
            ArgumentError: ``image_NHWC`` has the wrong type or shape.
        """
        if image_NHWC.dtype != torch.uint8 or image_NHWC.shape[3:] != (self.num_channels,):
            raise ArgumentError(
                f"`image_NHWC` got {str(image_NHWC.dtype).removeprefix('torch.')} "
                f"{list(image_NHWC.shape)}, expected uint8 [N, H, W, {self.num_channels}]. "
                "Give the decoded pixels, with the channels last."
            )
        num_images, height, width, num_channels = image_NHWC.shape
        crop_height, crop_width = self.preprocessing.crop_size
        resized_height, resized_width = self._resized_size(height, width)
        device = image_NHWC.device
        rows = _Axis(height, resized_height, crop_height, self.preprocessing, device)
        columns = _Axis(width, resized_width, crop_width, self.preprocessing, device)

        # Rows first, and only those that the vertical pass needs. They are gathered rather than
        # sliced, because torch.export cannot derive the length of a slice between symbols.
        row_start, row_matrix_IO = rows.windows(1)[0]
        row_length = row_matrix_IO.shape[0]
        image_NIWC = image_NHWC.index_select(
            1, row_start + torch.arange(row_length, device=device)
        )
        lines_LW = image_NIWC.permute(0, 3, 1, 2).reshape(-1, width)
        strips = []
        for start, matrix_IO in columns.windows(_NUM_WINDOWS):
            strip_LI = lines_LW[:, start : start + matrix_IO.shape[0]].to(torch.float32)
            strips.append(_pixels_from_products(torch.matmul(strip_LI, matrix_IO), dim=1))
        strip_MIw = torch.cat(strips, dim=1).reshape(-1, row_length, crop_width)
        products = torch.matmul(row_matrix_IO.transpose(0, 1), strip_MIw)
        pixels_Mhw = _pixels_from_products(products, dim=1)
        pixels_NChw = pixels_Mhw.reshape(num_images, num_channels, crop_height, crop_width)
        return (pixels_NChw.to(self.mean.dtype) / 255 - self.mean) / self.std

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        size = self.preprocessing.resize_size
        if size is None:
            return self.preprocessing.crop_size
        shorter = _smaller(height, width)
        return size * height // shorter, size * width // shorter


class _Axis:
    """Resampling and cropping along one axis of an image.

    Sizes are Python integers or symbols of ``torch.export``. Arithmetic stays in whole numbers,
    and numerators of ``//`` and ``%`` are never negative, since for those ONNX's ``Div`` rounds
    towards zero but Python towards minus infinity.
    """

    def __init__(
        self,
        size: int,
        resized_size: int,
        crop_size: int,
        preprocessing: Preprocessing,
        device: torch.device,
    ) -> None:
        self.device = device
        self.size = size
        self.resized_size = resized_size
        self.crop_size = crop_size
        self.is_bicubic = preprocessing.interpolation == "bicubic"
        #: The filter's radius in input pixels, times ``resized_size``.
        self.radius_numerator = _FILTER_RADIUS[preprocessing.interpolation] * _larger(
            size, resized_size
        )
        # Both sides are at least `resize_size` after resizing.
        shortest = preprocessing.resize_size
        self.may_need_padding = shortest is not None and shortest < crop_size
        excess = resized_size - crop_size
        #: First position of the crop, in resized pixels: excess / 2, with halves rounded to the even
        #: number above 0 and away from 0 below, where torchvision pads.
        if self.may_need_padding:
            surplus, missing = _larger(excess, 0), _larger(-excess, 0)
            self.crop_start = surplus // 2 + surplus % 4 // 3 - missing // 2
        else:
            self.crop_start = excess // 2 + excess % 4 // 3

    def windows(self, num_windows: int) -> list[tuple[int, Tensor]]:
        """Split the crop into windows, each computed from only the pixels that it needs.

        Returns:
            For each window its first pixel and the matrix [I, 2 * O] that turns I pixels into O
            positions, with the higher halves of the coefficients beside the lower ones.
        """
        count = -(-self.crop_size // num_windows)
        positions = range(0, self.crop_size, count)
        # The pixels under the filter: from the first position's centre minus the radius to the
        # last one's plus the radius, rounded outwards.
        length = _smaller(
            self.size,
            ((count - 1) * self.size + 2 * self.radius_numerator) // self.resized_size + 2,
        )
        starts = [self._first_pixel(self.crop_start + o, length) for o in positions]
        counts = [min(count, self.crop_size - o) for o in positions]
        start_O = torch.cat(
            [self._scalar(start).expand(n) for start, n in zip(starts, counts, strict=True)]
        )
        high_IO, low_IO = self._coefficients(start_O, length)
        # Slices, here and below: opset 17 has no form of what split() becomes in opset 18.
        parts = [slice(o, o + n) for o, n in zip(positions, counts, strict=True)]
        matrices = [torch.cat([high_IO[:, part], low_IO[:, part]], dim=1) for part in parts]
        return list(zip(starts, matrices, strict=True))

    def _first_pixel(self, position: int, length: int) -> int:
        """The first pixel under the filter, at most so large that ``length`` pixels follow."""
        numerator = (
            (2 * position + 1) * self.size - 2 * self.radius_numerator + self.resized_size
        )
        return _smaller(_larger(numerator, 0) // (2 * self.resized_size), self.size - length)

    def _coefficients(self, start_O: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Pillow's coefficients, with float64 operations in its own order, as two halves.

        ``w[i, o] = f((i - center[o] + 0.5) / max(scale, 1))``, divided by its sum over i,
        with ``center[o] = (o + 0.5) * scale``; then ``round(w * 2^22) = high * 2^11 + low``.
        """
        scale = self._scalar(self.size) / self._scalar(self.resized_size)
        position_O = self._scalar(self.crop_start) + self._count_up(self.crop_size)
        center_O = (position_O + 0.5) * scale
        pixel_IO = start_O + self._count_up(length).unsqueeze(1)
        distance_IO = ((pixel_IO - center_O + 0.5) * (1.0 / scale.clamp(min=1.0))).abs()
        if self.is_bicubic:
            weight_IO = _cubic(distance_IO)
        else:
            weight_IO = (1.0 - distance_IO).clamp(min=0.0)
        weight_IO = weight_IO / weight_IO.sum(dim=0, keepdim=True)
        if self.may_need_padding:
            is_inside_O = (position_O >= 0) & (position_O < self._scalar(self.resized_size))
            weight_IO = torch.where(is_inside_O, weight_IO, 0.0)
        scaled_IO = weight_IO * 2.0**_COEFFICIENT_BITS
        if self.is_bicubic:  # halves are rounded away from 0
            fixed_IO = torch.sign(scaled_IO) * torch.floor(scaled_IO.abs() + 0.5)
        else:
            fixed_IO = torch.floor(scaled_IO + 0.5)
        high_IO = torch.floor(fixed_IO * (1 / _HALF) + 0.5)
        low_IO = fixed_IO - high_IO * _HALF
        return high_IO.to(torch.float32), low_IO.to(torch.float32)

    def _scalar(self, size: int) -> Tensor:
        return torch.scalar_tensor(size, dtype=torch.float64, device=self.device)

    def _count_up(self, size: int) -> Tensor:
        return torch.arange(size, dtype=torch.float64, device=self.device)


def _smaller(a: int, b: int) -> int:
    """``min`` that also accepts symbols of ``torch.export``."""
    return cast(int, torch.sym_min(a, b))  # type: ignore[no-untyped-call]


def _larger(a: int, b: int) -> int:
    """``max`` that also accepts symbols of ``torch.export``."""
    return cast(int, torch.sym_max(a, b))  # type: ignore[no-untyped-call]


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic filter with a = -0.5, for distances of 0 and more.

    Source: Keys 1981, "Cubic convolution interpolation for digital image processing", eq. 15.
    """
    a = -0.5
    near = ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0
    far = (((distance - 5.0) * distance + 8.0) * distance - 4.0) * a
    return torch.where(distance < 1.0, near, torch.where(distance < 2.0, far, 0.0))


def _pixels_from_products(products: Tensor, *, dim: int) -> Tensor:
    """Whole pixels from the sums of pixels times the coefficients' halves, one after the other.

    ``floor((high * 2^11 + low + 2^21) / 2^22)``, clipped to 0 ... 255, in steps that are exact.
    """
    count = products.shape[dim] // 2
    high, low = products.narrow(dim, 0, count), products.narrow(dim, count, count)
    carry = torch.floor(low * (1 / _HALF))
    return torch.floor((high + carry + _HALF / 2) * (1 / _HALF)).clamp(0.0, 255.0)
