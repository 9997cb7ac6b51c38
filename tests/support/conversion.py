"""Float detectors' configs as files, for conversions."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmgor.conversion.convert import convert
from mmgor.conversion.request import Request
from mmgor.registry import MODELS
from tests.support.students import tiny

RETINANET = 'retinanet/retinanet_r18_fpn_1x_coco'


def whole(model: dict, **more) -> Config:
    """A training config around a model."""
    dataset = dict(
        type='CocoDataset',
        data_root='data/',
        ann_file='train.json',
        pipeline=[dict(type='PackDetInputs')],
        metainfo=dict(classes=('a', 'b', 'c')),
    )
    return Config(
        dict(
            default_scope='mmdet',
            model=model,
            train_dataloader=dict(batch_size=2, dataset=dataset),
            val_dataloader=dict(batch_size=1, dataset=dataset),
            test_dataloader=dict(batch_size=1, dataset=dataset),
            val_evaluator=dict(type='CocoMetric', metric='bbox'),
            test_evaluator=dict(type='CocoMetric', metric='bbox'),
            train_cfg=dict(max_epochs=12, val_interval=1),
            param_scheduler=[
                dict(type='MultiStepLR', end=12, milestones=[8, 11])
            ],
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            custom_hooks=[dict(type='SyncNormHook')],
            **more,
        )
    )


def write_float(folder: Path, name: str = RETINANET, **more) -> Path:
    """A tiny float detector's config with three classes.

    Args:
        folder (Path): Where it is written.
        name (str): One of :data:`tests.support.students.STUDENTS`.
        **more: Further entries of the config.
    """
    model = tiny(name)
    for head in (model.get('bbox_head'), model.get('roi_head')):
        head = (head or {}).get('bbox_head', head)
        if head is not None:
            head['num_classes'] = 3
    path = folder / f'{Path(name).name}.py'
    whole(model, **more).dump(path)
    return path


def write_weights(config: Path) -> Path:
    """Random weights of a config's detector, as a checkpoint."""
    model = MODELS.build(Config.fromfile(config).model)
    model.init_weights()
    path = config.with_suffix('.pth')
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def run(config, out, **asked):
    """Convert a config.

    Returns:
        tuple[Config, str]: The student's config, and all that was said.
    """
    said = []
    trial = convert(Request(str(config), out, **asked), said.append)
    assert trial.still == []
    return Config.fromfile(out), '\n'.join(said)


def refuse(kind, match, config, out, **asked):
    """Make sure that a conversion is refused and writes no file."""
    before = {*out.parent.iterdir()}
    with pytest.raises(kind, match=match):
        convert(Request(str(config), out, **asked), lambda _: None)
    assert {*out.parent.iterdir()} == before
