"""Preprocessing of images for the zoo's networks: one constant per recipe.

A card has one of these; published weights that were trained differently have another.
"""

from __future__ import annotations

from dlzoo.zoo.registry import Preprocessing

#: Mean and standard deviation of the ImageNet training set's RGB values in [0, 1].
#: Source: torchvision, ``transforms/_presets.py``, ``ImageClassification``.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _imagenet(crop_size: int, *, resize_size: int) -> Preprocessing:
    return Preprocessing(
        resize_size=resize_size,
        crop_size=(crop_size, crop_size),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


#: Shorter side 256, centre crop 224 x 224. Source: torchvision's
#: ``IMAGENET1K_V1`` weights of AlexNet, VGG, GoogLeNet, ResNet, MobileNetV2, SqueezeNet,
#: DenseNet and ViT-B/16.
IMAGENET_224 = _imagenet(224, resize_size=256)

#: Source: torchvision, ``IMAGENET1K_V2`` of ResNet-50/101/152 and MobileNetV2.
IMAGENET_224_RESIZE_232 = _imagenet(224, resize_size=232)

#: Source: torchvision, ``ConvNeXt_Tiny_Weights.IMAGENET1K_V1``.
IMAGENET_224_RESIZE_236 = _imagenet(224, resize_size=236)

#: Source: timm, ``cspdarknet53.ra_in1k``: 256 pixels at a crop fraction of 0.887, and
#: floor(256 / 0.887) = 288.
IMAGENET_256 = _imagenet(256, resize_size=288)

#: Source: torchvision, ``Inception_V3_Weights.IMAGENET1K_V1``.
IMAGENET_299 = _imagenet(299, resize_size=342)

#: A 28 x 28 digit centred in a 32 x 32 field, so that its strokes reach the middle of the
#: receptive fields. A pixel of 0 (background) becomes -0.1 and one of 255 (ink) becomes 1.175:
#: (0 - 20/255) / (200/255) = -0.1 and (1 - 20/255) / (200/255) = 1.175.
#: Source: LeCun et al. 1998, section II.B. MNIST stores ink as 255.
MNIST_LENET5 = Preprocessing(
    color="L",
    resize_size=28,
    crop_size=(32, 32),
    mean=(20 / 255,),
    std=(200 / 255,),
)

#: The same field, normalized by the mean and standard deviation of MNIST's training pixels.
#: Source: PyTorch's MNIST example (``examples/mnist/main.py``).
MNIST_32 = Preprocessing(
    color="L",
    resize_size=28,
    crop_size=(32, 32),
    mean=(0.1307,),
    std=(0.3081,),
)

#: CIFAR-10 at its own size, with the mean and standard deviation of its training pixels.
#: Source: the ResNet authors' ``fb.resnet.torch``, ``datasets/cifar10.lua``, in 255ths.
CIFAR_32 = Preprocessing(
    resize_size=32,
    crop_size=(32, 32),
    mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
    std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
)
