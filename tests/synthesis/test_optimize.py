from itertools import chain

import pytest
import torch
from mmengine.structures import InstanceData

from mmgor.registry import MODELS
from mmgor.synthesis import optimize_images
from mmgor.synthesis.boxes import sample_boxes
from mmgor.synthesis.images import smooth_noise, total_variation
from mmgor.synthesis.optimize import task_loss
from mmgor.synthesis.statistics import recorded_statistics
from tests.support.models import make_batch, retinanet_cfg
from tests.support.virtual_cuda import virtual_cuda


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MODELS.build(retinanet_cfg()).eval().requires_grad_(False)


def start(count=2, side=64):
    generator = torch.Generator().manual_seed(0)
    images = smooth_noise(generator, count, (side, side))
    objects = [sample_boxes(generator, (side, side), 3) for _ in images]
    boxes, labels = ([*part] for part in zip(*objects))
    return images, boxes, labels


def test_losses_fall_and_only_images_change(model):
    images, boxes, labels = start()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    kept = images.clone()
    seen = []
    made = optimize_images(
        model, images, boxes, labels, 20, lambda *args: seen.append(args)
    )
    assert [step for step, _ in seen] == list(range(1, 21))
    first, last = seen[0][1], seen[-1][1]
    assert set(first) == {'statistics', 'task', 'smooth'}
    assert last['statistics'] < 0.9 * first['statistics']
    assert sum(last.values()) < 0.95 * sum(first.values())
    assert first['task'] == pytest.approx(first['statistics'] / 2)
    assert made.shape == images.shape and not made.requires_grad
    assert made.min() >= 0 and made.max() <= 1
    assert images.equal(kept) and not made.equal(images)
    for key, value in model.state_dict().items():
        assert value.equal(before[key]), key


def test_the_task_loss_is_that_of_the_detector(model):
    batch = make_batch()
    pixels = batch['inputs'].sigmoid()
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(img_shape=(64, 64)))
    given = 255 * pixels.flip(1)  # the model takes RGB
    mean, std = (
        torch.tensor(v).reshape(3, 1, 1)
        for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    )
    losses = model((given - mean) / std, batch['data_samples'], mode='loss')
    expected = sum(sum(parts) for parts in losses.values())
    found = task_loss(model, pixels, batch['data_samples'])
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_the_first_step_by_hand(model):
    images, boxes, labels = start()
    batch = make_batch()
    for sample, box, label in zip(batch['data_samples'], boxes, labels):
        sample.gt_instances = InstanceData(bboxes=box, labels=label)
    pixels = images.clone().requires_grad_()
    with recorded_statistics(model) as recorder:
        task = task_loss(model, pixels, batch['data_samples'])
        statistics = recorder.loss()
    weight = 0.5 * (statistics / task).item()
    smooth = total_variation(pixels)
    (statistics + weight * task + smooth).backward()
    # Adam's first step is the rate times the sign of the gradient.
    moved = images - 0.01 * pixels.grad / (pixels.grad.abs() + 1e-8)
    seen = []
    made = optimize_images(
        model, images, boxes, labels, 1, lambda *args: seen.append(args[1])
    )
    assert seen[0] == pytest.approx(
        dict(
            statistics=statistics.item(),
            task=weight * task.item(),
            smooth=smooth.item(),
        ),
        rel=1e-4,
    )
    near = (made - moved.clamp(0, 1)).abs() < 1e-4
    assert near.float().mean() > 0.99


def test_a_model_in_training_is_evaluated_and_keeps_its_buffers(model):
    plain, modes = model.loss, []
    model.register_buffer('calls', torch.zeros(()))

    def loss(inputs, samples):
        model.calls += 1
        modes.append([part.training for part in model.modules()])
        return plain(inputs, samples)

    model.loss = loss
    model.train().requires_grad_(True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimize_images(model, *start(), 3)
    assert len(modes) == 3 and not any(chain(*modes))
    for key, value in model.state_dict().items():
        assert value.equal(before[key]), key
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize('factor', [0.0, torch.nan, torch.inf])
def test_a_loss_that_is_of_no_use_at_the_start(model, factor):
    plain = model.loss
    model.loss = lambda *args: {
        k: [factor * x for x in v] for k, v in plain(*args).items()
    }
    with pytest.raises(ValueError, match='a finite number above 0, got'):
        optimize_images(model, *start(), 3)


def test_a_loss_that_is_not_finite_later(model):
    def spoil(step, losses):
        torch.nn.init.constant_(model.bbox_head.retina_cls.bias, torch.nan)

    with pytest.raises(FloatingPointError, match='step 2: expected finite'):
        optimize_images(model, *start(), 3, spoil)


def test_images_are_made_where_the_model_is():
    images, boxes, labels = start()
    with virtual_cuda():
        model = MODELS.build(retinanet_cfg()).cuda()
        made = optimize_images(model, images, boxes, labels, 2)
        assert made.device.type == 'cuda'
        assert made.cpu().shape == images.shape
