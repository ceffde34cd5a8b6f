"""ResNet with pre-activation, for small images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from kuiper.models._shapes import image_shape


class PreActBlock(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride): twice BatchNorm, ReLU, 3 x 3 convolution.

    The shortcut is the identity, or a 1 x 1 convolution of the first activation where the shape changes.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm_1 = nn.BatchNorm2d(inputs)
        self.convolution_1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(outputs)
        self.convolution_2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.norm_1(x))
        kept = x if self.shortcut is None else self.shortcut(active)
        return kept + self.convolution_2(functional.relu(self.norm_2(self.convolution_1(active))))


def preact_resnet18(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Eight pre-activation blocks (He et al. 2016b) of 64 to 512 channels: 11,171,146 parameters on CIFAR-10.

    It begins with a 3 x 3 convolution of stride 1, as is customary for 32 x 32 images. As the
    implementation in common use, the one that 11.17M and published accuracies go with, and unlike the
    paper's own networks, it has no BatchNorm and ReLU between the last block and the pooling.

    Args:
        shape: of one sample, (channels, height, width), at least 16 x 16.
        classes: logits per sample.

    Raises:
        SpecError: samples that are not images or too small.
    """
    channels, _, _ = image_shape("preact_resnet18", shape, smallest=16)
    layers: list[nn.Module] = [nn.Conv2d(channels, 64, 3, padding=1, bias=False)]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [PreActBlock(inputs, outputs, stride), PreActBlock(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
