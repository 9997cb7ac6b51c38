"""ChannelsLastHook changes the memory layout and no result."""

import copy

import pytest
import torch
from mmcv.ops import ModulatedDeformConv2dPack, RoIAlign
from mmengine.runner import Runner
from torch import nn
from torch.testing import assert_close

from mmgor.hooks.channels_last_hook import use_channels_last
from mmgor.quantization import calibrate
from mmgor.quantization.quantizers.marks import mark, mark_of
from mmgor.registry import MODELS
from tests.support.models import make_batch, quantized_cfg
from tests.support.training import scene_teacher, tiny_scenes, training_config


def has_layout(x):
    """Not those with one channel or pixel, which have both layouts."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return last and not x.is_contiguous()


@pytest.fixture(scope='module')
def student():
    torch.manual_seed(0)
    model = MODELS.build(quantized_cfg()).train()
    model.init_weights()
    batch = make_batch()
    calibrate(model, [batch], lambda b: model(**b, mode='tensor'))
    return model


def losses_and_gradients(model, half):
    with torch.autocast('cpu', torch.bfloat16, enabled=half):
        loss, _ = model.parse_losses(model(**make_batch(), mode='loss'))
    loss.backward()
    return loss, {name: p.grad for name, p in model.named_parameters()}


# Sums in another order may round to the other of two neighbours of a grid.
@pytest.mark.parametrize(('half', 'most'), [(False, 1e-3), (True, 3e-2)])
def test_a_student_computes_the_same(student, half, most):
    plain, other = copy.deepcopy(student), copy.deepcopy(student)
    use_channels_last(other)
    loss, gradients = losses_and_gradients(plain, half)
    got, others = losses_and_gradients(other, half)
    assert_close(got, loss, rtol=most, atol=0)
    for name in ('backbone.conv1.weight', 'bbox_head.retina_cls.weight'):
        assert others[name].is_contiguous()
        apart = (others[name] - gradients[name]).norm()
        assert apart <= 30 * most * gradients[name].norm(), name


def test_maps_keep_the_layout(student):
    model = copy.deepcopy(student)
    use_channels_last(model)
    maps = model.extract_feat(make_batch()['inputs'])
    assert [has_layout(x) for x in maps] == [x.shape[-1] > 1 for x in maps]


def test_a_model_without_a_backbone():
    with pytest.raises(ValueError, match=r"Sequential with \['0'\]"):
        use_channels_last(nn.Sequential(nn.Conv2d(3, 8, 3)))


class Deformed(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3, padding=1)
        self.deform = ModulatedDeformConv2dPack(8, 8, 3, padding=1)
        self.pool = RoIAlign((7, 7), 1.0, 2)

    def forward(self, x):
        boxes = x.new_tensor([[0, 1, 1, 9, 9], [1, 2, 3, 12, 10]])
        return self.pool(self.deform(self.backbone(x)), boxes)


def test_compiled_operators_get_the_layout_that_they_know():
    """Without a copy, RoIAlign and this convolution give other numbers."""
    torch.manual_seed(0)
    plain = Deformed()
    nn.init.normal_(plain.deform.conv_offset.weight)
    other = copy.deepcopy(plain)
    use_channels_last(other)
    use_channels_last(other)
    assert len(other.pool._forward_pre_hooks) == 1
    x = torch.randn(2, 3, 12, 16)
    assert has_layout(other.backbone(x))
    want, got = plain(x), other(x)
    assert_close(got, want, rtol=1e-4, atol=1e-4)
    for y in (want, got):
        y.square().sum().backward()
    pairs = zip(other.parameters(), plain.parameters(), strict=True)
    for mine, reference in pairs:
        assert_close(mine.grad, reference.grad, rtol=1e-3, atol=1e-3)


def test_a_copy_lies_on_the_same_grid():
    layer = nn.Module()
    layer.deform_sampling = None  # marks a head that calls an operator
    model = nn.Module()
    model.backbone, model.head = nn.Identity(), layer
    layer.forward = lambda x: x
    use_channels_last(model)
    x = torch.rand(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    quantizer = nn.Identity()
    found = layer(mark(x, quantizer, 1))
    assert found.is_contiguous()
    assert mark_of(found) == (quantizer, 1)


def test_a_resumed_training_is_the_same(tmp_path):
    """With EMA, bit for bit."""
    scenes = tiny_scenes(tmp_path / 'scenes')
    teacher = scene_teacher(tmp_path)

    def train(name, resume=None):
        config = training_config(scenes, tmp_path / name, teacher, epochs=2)
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
        config.custom_hooks += [
            dict(type='EMAHook'),
            dict(type='ChannelsLastHook'),
        ]
        config.resume, config.load_from = resume is not None, resume
        runner = Runner.from_cfg(config)
        runner.train()
        return runner

    straight = train('straight')
    resumed = train('resumed', str(tmp_path / 'straight' / 'epoch_1.pth'))
    want, got = (r.model.state_dict() for r in (straight, resumed))
    assert all(torch.equal(got[key], want[key]) for key in want)
    states = [
        runner.optim_wrapper.optimizer.state_dict()['state']
        for runner in (straight, resumed)
    ]
    for one, other in zip(*(state.values() for state in states)):
        assert all(torch.equal(one[key], other[key]) for key in one)
    maps = straight.model.extract_feat(make_batch()['inputs'])
    assert has_layout(maps[0])
