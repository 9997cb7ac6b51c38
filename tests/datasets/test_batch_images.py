"""The warning about a bad step names the images of the batch."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from torch import nn

from mmgor.datasets.batch_images import name_images
from mmgor.hooks import NonFiniteLossHook
from tests.support.models import make_batch

NAN = float('nan')


def batch_of(boxes=None):
    batch = make_batch(side=64)
    for name, sample in zip('ab', batch['data_samples']):
        sample.set_metainfo(dict(img_path=f'{name}.jpg'))
    if boxes is not None:
        batch['data_samples'][1].gt_instances.bboxes = boxes
    return batch


def test_the_warning_names_the_images_of_the_batch():
    told = []
    runner = SimpleNamespace(
        iter=6,
        model=nn.Linear(1, 1),
        logger=SimpleNamespace(warning=told.append),
    )
    outputs = dict(loss=torch.tensor(float('inf')))
    hook = NonFiniteLossHook()
    hook.after_train_iter(runner, 6, batch_of(), outputs)
    assert (
        "iteration 7: non-finite ['loss'] images ['a.jpg', 'b.jpg']"
        in (told[0])
    )
    assert 'do not fit' not in told[0]


@pytest.mark.parametrize(
    'box',
    [
        [1.0, 2.0, 70.0, 9.0],
        [1.0, -5.0, 7.0, 9.0],
        [64.0, 2.0, 64.0, 9.0],
        [1.0, 2.0, NAN, 9.0],
    ],
)
def test_an_image_with_boxes_that_do_not_fit_is_named(box):
    boxes = torch.tensor([[1.0, 2.0, 8.0, 9.0], box, box])
    for kind in (boxes, HorizontalBoxes(boxes)):
        told = name_images(batch_of(kind[:2]))
        assert told.endswith(
            "(boxes that do not fit their image in ['b.jpg'])"
        )


@pytest.mark.parametrize(
    'batch', [None, [], {}, dict(data_samples=None), make_batch()]
)
def test_batches_that_do_not_name_their_files(batch):
    assert name_images(batch) == ''
