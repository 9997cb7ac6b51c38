"""Forward passes that round every tensor, against passes written by hand."""

import pickle
from copy import deepcopy
from inspect import signature

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmgor.quantization import (
    BaseQuantizer,
    LSQQuantizer,
    QuantPolicy,
    calibrate,
)
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.quantizers.marks import mark
from mmgor.quantization.tensors.grids import check_given
from mmgor.quantization.tensors.operations import Kind
from mmgor.quantization.tensors.prepare import round_tensors

from .toys import Gated, Joined, Residual, batch, quantized


def conv(layer, x):
    """The convolution of a rounded input with the rounded weight."""
    return F.conv2d(
        x, layer.quantized_weight(), layer.bias, padding=layer.padding
    )


def test_both_sides_of_a_sum_are_rounded():
    net, x = quantized(Residual()), batch()
    new = net.tensor_quantizer
    q1, q2, q3 = (getattr(net, f'conv{i}').input_quantizer for i in (1, 2, 3))
    assert new['conv1'].bits == 8 and q1.bits == 4
    first = new['conv1'](F.relu(conv(net.conv0, net.conv0.input_quantizer(x))))
    inner = conv(net.conv1, q1(first))
    branch = new['sum'](conv(net.conv2, q2(F.relu(inner))))
    wanted = conv(net.conv3, q3(F.relu(branch + first)))
    assert torch.equal(net(x), new['output_0'](wanted))


def test_a_concatenation_has_one_grid():
    net, x = quantized(Joined()), batch()
    grid = net.conv1.input_quantizer
    x0 = grid(F.relu(conv(net.conv0, net.conv0.input_quantizer(x))))
    pooled = F.max_pool2d(x0, 3, 1, 1)
    large = F.interpolate(grid(F.avg_pool2d(x0, 2)), scale_factor=2)
    wanted = conv(net.conv1, torch.cat([x0, pooled, large], 1))
    wanted = net.tensor_quantizer['output_0'](wanted)
    torch.testing.assert_close(net(x), wanted)
    assert [*net.tensor_quantizer] == ['output_0']


@pytest.mark.parametrize('whole', [True, False])
def test_silu_reads_a_rounded_tensor_and_a_fixed_sigmoid(whole):
    net, x = quantized(Gated(whole)), batch()
    name = 'silu' if whole else 'sigmoid_2'
    before = net.tensor_quantizer[name](
        conv(net.conv0, net.conv0.input_quantizer(x))
    )
    gate = (torch.sigmoid(before) * 256).round().clamp(0, 255) / 256
    wanted = conv(net.conv1, net.conv1.input_quantizer(before * gate))
    wanted = net.tensor_quantizer['output_0'](wanted)
    torch.testing.assert_close(net(x), wanted)


def test_what_is_returned_lies_on_the_grid():
    net = quantized(Residual())
    grid = net.tensor_quantizer['output_0'].grid(torch.zeros(1, 4, 1, 1))
    steps = net(batch()) / grid.scale
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)


def test_a_direct_call_of_forward_rounds_too():
    net = quantized(Residual())
    assert torch.equal(net.forward(batch()), net(batch()))


def test_a_copy_rounds_with_its_own_quantizers():
    net, x = quantized(Residual()), batch()
    copied = deepcopy(net)
    before = net(x)
    with torch.no_grad():
        copied.tensor_quantizer['sum'].log_scale += 1
    assert torch.equal(net(x), before)
    assert not torch.equal(copied(x), before)


def test_a_pickled_module_rounds():
    net, x = quantized(Residual()), batch()
    copied = pickle.loads(pickle.dumps(net))
    assert torch.equal(copied(x), net(x))


def test_a_compiled_module_rounds():
    net, x = quantized(Residual()), batch()
    assert torch.equal(torch.compile(net, backend='eager')(x), net(x))


def test_modules_keep_their_own_signatures():
    class Named(Residual):
        def forward(self, images):
            return super().forward(images)

    net = Residual()
    wanted = signature(net.forward)
    quantized(net)
    other = Named()
    quantize_layers(other, QuantPolicy(tensors='all'), set())
    inputs = [dict(images=torch.zeros(1, 3, 8, 8))]
    round_tensors(other, QuantPolicy(tensors='all'), inputs, given=False)
    assert signature(net.forward) == wanted
    assert [*signature(other.forward).parameters] == ['images']


@pytest.mark.parametrize('reentrant', [True, False])
def test_a_second_run_of_a_part_is_refused(reentrant):
    """It would not round sums, and give wrong gradients."""

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 3, 1)
            self.block = Residual()

        def forward(self, x):
            x = self.stem(x)
            return checkpoint(self.block, x, use_reentrant=reentrant)

    net = quantized(Checkpointed()).train()
    with pytest.raises(RuntimeError, match='conv0 a second time'):
        net(batch()).sum().backward()


class Changed(nn.Module):
    """Reads a tensor, changes it in place, and reads it again."""

    def __init__(self):
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 1)
        self.conv1 = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = torch.cat([self.conv0(x)], 1)
        first = self.conv1(x)
        x[:, 0] = 0.3
        second = self.conv1(x)
        x *= 0.7
        return first + second + self.conv1(x)


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_a_tensor_that_has_changed_is_rounded_again(mode):
    net, seen = quantized(Changed()), []
    grid = net.conv1.input_quantizer
    net.conv1.register_forward_hook(
        lambda _, read, __: seen.append(read[0].clone())
    )
    with mode():
        x = grid(conv(net.conv0, net.conv0.input_quantizer(batch())))
        net(batch())
        wanted = [x.clone()]
        x[:, 0] = 0.3
        wanted += [grid(x), grid(x * 0.7)]
        assert all(map(torch.equal, seen, wanted))


def test_another_shape_of_a_rounded_tensor_is_rounded():
    class Reshaped(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv0 = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.conv0(x.flatten(2).unflatten(2, x.shape[2:]))

    net, policy = Reshaped(), QuantPolicy(tensors='all')
    quantize_layers(net, policy, set())
    round_tensors(net, policy, [dict(x=torch.zeros(1, 3, 8, 8))])
    assert net.rounding_plan.given == {'conv0'}


def test_a_shared_quantizer_is_one_parameter():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = nn.Conv2d(3, 4, 1)
            self.right = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.left(x), self.right(x)

    net = quantized(Fork())
    assert net.right.input_quantizer is net.left.input_quantizer
    keys = [key for key in net.state_dict() if 'input_quantizer' in key]
    assert {key.partition('.')[0] for key in keys} == {'left'}
    copied = deepcopy(net)
    assert copied.right.input_quantizer is copied.left.input_quantizer
    assert copied.right.input_quantizer is not net.right.input_quantizer
    fresh = Fork()
    quantized(fresh)
    assert not fresh.load_state_dict(net.state_dict()).missing_keys
    assert torch.equal(fresh(batch())[1], net(batch())[1])


def test_a_tensor_is_rounded_once_per_pass():
    net = quantized(Residual())
    calls = []
    for quantizer in net.modules():
        if isinstance(quantizer, BaseQuantizer):
            quantizer.quantize = counted(quantizer.quantize, calls)
    net(batch())
    weights = 4
    # Inputs of four layers, both sides of the sum, and the output.
    assert len(calls) == weights + 7


def counted(function, calls):
    def count(*args):
        calls.append(args)
        return function(*args)

    return count


def test_every_scale_gets_a_gradient():
    for toy in (Residual(), Joined(), Gated(True)):
        net = quantized(toy).train()
        net(batch()).square().sum().backward()
        idle = [n for n, p in net.named_parameters() if p.grad is None]
        assert not idle


def test_grids_of_layers_and_tensors_have_their_bits():
    net = quantized(Residual(), first=('conv0',), w_bits=4, a_bits=4)
    assert net.conv0.input_quantizer.bits == 8
    assert net.conv1.input_quantizer.bits == 4
    assert net.tensor_quantizer['sum'].bits == 8
    assert net.tensor_quantizer['output_0'].bits == 4
    net = quantized(Residual(), a_bits=4, tensor_bits=6)
    assert net.tensor_quantizer['sum'].bits == 6


def test_a_frozen_module_keeps_its_scales():
    net = Residual().requires_grad_(False)
    quantized(net)
    assert not any(p.requires_grad for p in net.parameters())


def test_other_operations_than_planned_are_an_error():
    class Moody(Residual):
        extra = False

        def forward(self, x):
            out = super().forward(x)
            return out + out if self.extra else out

    net = quantized(Moody())
    net.extra = True
    with pytest.raises(RuntimeError, match='expected Moody to call no more'):
        net(batch())
    net.extra = False
    net(batch())  # the error left nothing behind


def test_a_dropped_path_is_rounded_as_the_branch_is():
    """DropPath multiplies in training mode only."""

    class Dropped(Residual):
        def __init__(self):
            super().__init__()
            self.drop = DropPath(0.5)

        def forward(self, x):
            x = self.relu(self.conv0(x))
            out = self.drop(self.conv2(self.conv1(x)))
            return self.conv3(out + x)

    net = quantized(Dropped())
    kinds = [step.kind for step in net.rounding_plan.steps]
    assert kinds == [Kind.RELU, Kind.SUM]
    grid = net.tensor_quantizer['output_0'].grid(torch.zeros(1, 4, 1, 1))
    steps = net.train()(batch()) / grid.scale
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)


def test_another_number_of_returned_tensors_is_an_error():
    class Auxiliary(Residual):
        def forward(self, x):
            out = super().forward(x)
            return (out, x) if self.training else out

    net = Auxiliary()
    with pytest.raises(RuntimeError, match=r'to return 1 tensors.*got 2'):
        quantized(net)


def test_a_tensor_of_another_slot_is_rounded_again():
    quantizer = LSQQuantizer(4, num_scales=2)
    quantizer.choose_range(signed=True)
    scale = torch.tensor([0.1, 0.25])
    quantizer.set_ranges(scale, scale, scale, scale)
    x = mark(torch.tensor([0.3]), quantizer, 0)
    assert quantizer(x, 0) is quantizer(x) is x
    torch.testing.assert_close(quantizer(x, 1), torch.tensor([0.25]))


def test_a_given_tensor_may_get_borders():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(F.pad(x, (1, 1, 1, 1)))

    net = Padded()
    policy = QuantPolicy(tensors='all')
    quantize_layers(net, policy, set())
    round_tensors(net, policy, [dict(x=torch.zeros(1, 3, 8, 8))])
    before = quantized(Residual()).conv0.input_quantizer
    calibrate(net, [mark(before(batch()), before, 0)], net)
    x = before(batch())
    wanted = conv(net.conv, F.pad(x, (1, 1, 1, 1)))
    got = net(mark(x, before, 0))
    assert torch.equal(got, net.tensor_quantizer['output_0'](wanted))


def test_a_given_tensor_that_was_not_rounded_is_an_error():
    x = torch.zeros(1)
    message = r"tensors='all', which most values of target imply.*same target"
    with pytest.raises(RuntimeError, match=message):
        check_given(x, 'lateral_convs.0.conv')
    check_given(mark(x, nn.Identity(), 0), 'lateral_convs.0.conv')
