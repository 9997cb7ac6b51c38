"""Data and epochs are put into mmdet's own configs, whatever their form."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from experiments.filling import put_data, set_epochs
from mmgor.datasets.data_folder import DataFolder
from mmgor.io.config_reader import loader_datasets

DATA = DataFolder(Path('/data'), ('a', 'b'), 640)


def classes_in(part):
    """Every num_classes of a model, whichever head it is in."""
    if isinstance(part, list | tuple):
        return {n for each in part for n in classes_in(each)}
    if not isinstance(part, dict):
        return set()
    own = {part['num_classes']} if 'num_classes' in part else set()
    return own | classes_in(list(part.values()))


@pytest.mark.parametrize(
    'name, heads, scale',
    [
        ('retinanet/retinanet_r50_fpn_1x_coco.py', {2}, (640, 640)),
        # One class head for each of three stages, mosaics in wrappers, masks.
        ('cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', {2}, (640, 640)),
        ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', {2}, (640, 640)),
        ('yolox/yolox_s_8xb8-300e_coco.py', {2}, None),
    ],
)
def test_data_in_any_layout(name, heads, scale):
    cfg = get_config(f'mmdet::{name}')
    put_data(cfg, DATA, '<data:cells>')
    assert classes_in(cfg.model) == heads
    for split, file in (('train', 'train.json'), ('val', 'eval.json')):
        (dataset,) = loader_datasets(cfg, f'{split}_dataloader')
        assert dataset.data_root == '<data:cells>/'
        assert dataset.ann_file == file
        assert dataset.data_prefix == dict(img='images/')
        assert dataset.metainfo == dict(classes=('a', 'b'))
        scales = [
            step.scale for step in dataset.pipeline if step.type == 'Resize'
        ]
        assert not scales or scale in (None, *scales)
    assert cfg.val_evaluator.ann_file == '<data:cells>/eval.json'


def test_images_are_not_enlarged_but_shrunk():
    cfg = get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    put_data(cfg, DataFolder(Path('/data'), ('a',), 4000), '/data')
    assert cfg.val_dataloader.dataset.pipeline[1].scale == (1333, 800)


def test_other_data_sets_are_refused():
    cfg = get_config('mmdet::pascal_voc/ssd300_voc0712.py')
    with pytest.raises(ValueError, match='expected one data set in train_da'):
        put_data(cfg, DATA, '/data')
    cfg = Config(
        dict(
            cfg.to_dict(),
            **{
                f'{split}_dataloader': dict(dataset=dict(type='CocoDataset'))
                for split in ('train', 'val', 'test')
            },
            model=dict(type='FCN'),
        )
    )
    with pytest.raises(ValueError, match='expected a head with num_classes'):
        put_data(cfg, DATA, '/data')


def test_epochs_of_any_schedule():
    steps = dict(type='MultiStepLR', begin=0, end=12, milestones=[8, 11])
    cosine = dict(type='CosineAnnealingLR', T_max=12, begin=1, end=12)
    warm_up = dict(type='LinearLR', by_epoch=False, begin=0, end=500)
    train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12)
    for schedulers, last in (
        ([warm_up, steps], dict(steps, end=6)),
        ([warm_up, cosine], dict(cosine, end=6, T_max=6)),
        ([warm_up], warm_up),
        (cosine, None),
    ):
        cfg = Config(dict(train_cfg=train_cfg, param_scheduler=schedulers))
        set_epochs(cfg, 6)
        assert cfg.train_cfg.max_epochs == cfg.train_cfg.val_interval == 6
        if last is not None:
            assert cfg.param_scheduler[-1] == last
            assert cfg.param_scheduler[0] == schedulers[0]
        else:
            assert cfg.param_scheduler.T_max == 6
    cfg = Config(dict(train_cfg=dict(max_epochs=12)))  # no scheduler at all
    set_epochs(cfg, 6)
    cfg = Config(dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=9)))
    with pytest.raises(ValueError, match='Write epochs: null for this arm'):
        set_epochs(cfg, 6)
