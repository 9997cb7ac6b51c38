"""Small modules of stock layers, and quantized copies of them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgor.quantization import QuantPolicy, calibrate
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.tensors.prepare import round_tensors


class Residual(nn.Module):
    """relu(conv2(relu(conv1(x))) + x), and a convolution that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 1)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv3 = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv0(x))
        out = self.conv2(self.relu(self.conv1(x)))
        out += x
        return self.conv3(self.relu(out))


class Joined(nn.Module):
    """Concatenates a map, its pooling and its enlarged average."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 1)
        self.conv1 = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv0(x))
        pooled = F.max_pool2d(x, 3, 1, 1)
        small = F.avg_pool2d(x, 2)
        large = F.interpolate(small, scale_factor=2)
        return self.conv1(torch.cat([x, pooled, large], 1))


class Gated(nn.Module):
    """SiLU, written in one function or in two."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 1)
        self.conv1 = nn.Conv2d(4, 4, 1)
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv0(x)
        x = F.silu(x) if self.whole else x * torch.sigmoid(x)
        return self.conv1(x)


def quantized(
    module: nn.Module,
    images: Tensor | None = None,
    first: tuple[str, ...] = (),
    **quant: object,
) -> nn.Module:
    """Quantize a module in place with ``tensors='all'``, and calibrate it."""
    policy = QuantPolicy(tensors='all', **quant)
    quantize_layers(module, policy, set(first))
    inputs = [dict(x=torch.zeros(1, 3, 8, 8))]
    round_tensors(module, policy, inputs, given=False)
    images = batch() if images is None else images
    calibrate(module, [images], module)
    return module.eval()


def batch() -> Tensor:
    """Two images of noise."""
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
