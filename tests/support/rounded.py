"""Small networks in which every tensor is rounded, as frozen ones are.

They call the operators of a frozen network, so that an export can be tested
without a detector. A module that rounds takes its range from the first tensor
that it sees.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgor.deploy.export.onnx_ops import dequantize, quantize_dequantize


class Rounding(nn.Module):
    """Rounds a tensor to ``bits`` bits; signed if the first one has a value
    below zero. Modules may share it."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: int = 8) -> None:
        super().__init__()
        self.bits = bits
        self.bounds = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.bounds == (0, 0):
            half = 2 ** (self.bits - 1)
            signed = bool(x.min() < 0)
            self.bounds = (-half, half - 1) if signed else (0, 2 * half - 1)
            dtype = torch.int8 if signed else torch.uint8
            # A fifth of the range is clipped, so that clipping is seen.
            scale = 0.8 * x.abs().max() / self.bounds[1]
            self.register_buffer('scale', scale)
            self.register_buffer('zero_point', torch.tensor(0, dtype=dtype))
        return quantize_dequantize(
            x, self.scale, self.zero_point, *self.bounds, 1
        )


class Sigmoid256(Rounding):
    """A sigmoid whose output is rounded to steps of 1/256."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds = (0, 255)
        self.register_buffer('scale', torch.tensor(1 / 256))
        self.register_buffer('zero_point', torch.tensor(0, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.sigmoid(x))


class Conv(nn.Conv2d):
    """A convolution with integer weights; its input is rounded outside."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        bits: int = 8,
    ) -> None:
        super().__init__(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups
        )
        most = 2 ** (bits - 1) - 1
        weight = self.weight.detach()
        scale = weight.abs().flatten(1).amax(1) / most
        integers = torch.round(weight / scale.view(-1, 1, 1, 1))
        self.register_buffer('integers', integers.to(torch.int8))
        self.register_buffer('weight_scale', scale)

    def forward(self, x: Tensor) -> Tensor:
        weight = dequantize(self.integers, self.weight_scale)
        return self._conv_forward(x, weight, self.bias)


class SiLU(nn.Module):
    """x * sigmoid(x), with x and the sigmoid rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.before = Rounding()
        self.sigmoid = Sigmoid256()

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return x * self.sigmoid(x)


class Residual(nn.Module):
    """Two convolutions beside a shortcut, as in a ResNet."""

    def __init__(self, width: int, bits: int) -> None:
        super().__init__()
        self.first = Conv(width, width, bits=bits)
        self.second = Conv(width, width, bits=bits)
        self.inner, self.sum, self.out = (
            Rounding(bits),
            Rounding(),
            Rounding(),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(F.relu(self.first(x)))
        y = self.sum(self.second(y))
        return self.out(F.relu(x + y))


class CSP(nn.Module):
    """A cross-stage-partial block of YOLOX, with depthwise convolutions."""

    def __init__(self, width: int, bits: int) -> None:
        super().__init__()
        half = width // 2
        self.main = Conv(width, half, 1, bits=bits)
        self.short = Conv(width, half, 1, bits=bits)
        self.depthwise = Conv(half, half, 3, groups=half, bits=bits)
        self.pointwise = Conv(half, half, 1, bits=bits)
        self.final = Conv(width, width, 1, bits=bits)
        self.acts = nn.ModuleList(SiLU() for _ in range(5))
        self.inner, self.middle = Rounding(), Rounding(bits)
        self.joined, self.out = Rounding(bits), Rounding()

    def forward(self, x: Tensor) -> Tensor:
        a = self.inner(self.acts[0](self.main(x)))
        b = self.joined(self.acts[1](self.short(x)))
        y = self.middle(self.acts[2](self.depthwise(a)))
        y = self.inner(self.acts[3](self.pointwise(y)))
        a = self.joined(a + y)
        joined = self.joined(torch.cat([a, b], 1))
        return self.out(self.acts[4](self.final(joined)))


class SPP(nn.Module):
    """Spatial pyramid pooling: three poolings and a concatenation."""

    def __init__(self, width: int, bits: int) -> None:
        super().__init__()
        self.last = Conv(4 * width, width, 1, bits=bits)
        self.grid, self.out = Rounding(), Rounding()

    def forward(self, x: Tensor) -> Tensor:
        x = self.grid(x)
        pooled = [self.grid(F.max_pool2d(x, k, 1, k // 2)) for k in (5, 9, 13)]
        joined = self.grid(torch.cat([x, *pooled], 1))
        return self.out(F.relu(self.last(joined)))


class TopDown(nn.Module):
    """The top-down step of an FPN between two levels."""

    def __init__(self, width: int, bits: int) -> None:
        super().__init__()
        self.down = Conv(width, width, 3, 2, bits=bits)
        self.lateral = nn.ModuleList(
            Conv(width, width, 1, bits=bits) for _ in range(2)
        )
        self.smooth = Conv(width, width, bits=bits)
        self.coarse = Rounding(bits)
        self.sides = nn.ModuleList(Rounding() for _ in range(2))
        self.sum, self.out = Rounding(bits), Rounding()

    def forward(self, x: Tensor) -> Tensor:
        coarse = self.coarse(F.relu(self.down(x)))
        top = self.sides[1](self.lateral[1](coarse))
        fine = self.sides[0](self.lateral[0](x))
        top = self.sides[1](F.interpolate(top, size=fine.shape[2:]))
        return self.out(self.smooth(self.sum(fine + top)))


class Focus(nn.Module):
    """Four shifted halves of the input, joined, then a convolution."""

    def __init__(self, width: int, bits: int) -> None:
        super().__init__()
        self.conv = Conv(4 * width, width, bits=bits)
        self.grid, self.out = Rounding(), Rounding()

    def forward(self, x: Tensor) -> Tensor:
        x = self.grid(x)
        parts = [
            x[..., i::2, j::2] for j, i in ((0, 0), (0, 1), (1, 0), (1, 1))
        ]
        joined = self.grid(torch.cat(parts, 1))
        return self.out(F.relu(self.conv(joined)))


class TwoGrids(nn.Module):
    """A layer and a concatenation round what another layer has rounded."""

    def __init__(self, bits: int, signed: bool) -> None:
        super().__init__()
        self.act = nn.Identity() if signed else nn.ReLU()
        self.stem, self.layer, self.last = Conv(3, 4), Conv(4, 4), Conv(8, 4)
        self.image, self.first, self.output = (Rounding() for _ in range(3))
        self.second = Rounding(bits)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.first(self.act(self.stem(self.image(images))))
        again = self.second(x)
        y = self.second(self.act(self.layer(again)))
        joined = self.second(torch.cat([y, again], 1))
        return [self.output(self.last(joined)), x]


class Stack(nn.Module):
    """A stem, then blocks that keep the number of channels."""

    def __init__(self, blocks: list[nn.Module], width: int, bits: int) -> None:
        super().__init__()
        self.image, self.grid = Rounding(), Rounding(bits)
        self.stem = Conv(3, width, 3, 2)
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> Tensor:
        x = self.grid(F.relu(self.stem(self.image(images))))
        return self.blocks(x)

    def limit_unsigned(self, most: int) -> None:
        """Let unsigned ranges end at ``most``, as symmetric targets ask."""
        for module in self.modules():
            if isinstance(module, Rounding) and module.bounds[0] == 0:
                high = min(module.bounds[1], most)
                module.scale *= module.bounds[1] / high
                module.bounds = (0, high)


BLOCKS: dict[str, type] = dict(
    residual=Residual, csp=CSP, spp=SPP, top_down=TopDown, focus=Focus
)


def rounded(
    *names: str, width: int = 8, bits: int = 8, size: int = 32
) -> tuple[Stack, Tensor]:
    """A network with its ranges set, and images for it.

    Args:
        names (str): Keys of :data:`BLOCKS`, one per block.
        width (int): Number of channels.
        bits (int): Bits of weights and of the inputs of convolutions; the
            stem and all other tensors have 8.
        size (int): Height and width of the images, in pixels.
    """
    torch.manual_seed(0)
    blocks = [BLOCKS[name](width, bits) for name in names]
    network = Stack(blocks, width, bits).eval()
    with torch.no_grad():
        network(torch.randn(2, 3, size, size))
    return network, torch.randn(1, 3, size, size)
