"""MMYOLO's shipped detectors at tiny sizes, float and quantized."""

import copy
from functools import cache
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from torch import Tensor

# Name -> shipped config.
STUDENTS = dict(
    yolov5='yolov5/yolov5_n-v61_syncbn_fast_8xb16-300e_coco',
    yolov6='yolov6/yolov6_n_syncbn_fast_8xb32-300e_coco',
    yolov7='yolov7/yolov7_tiny_syncbn_fast_8x16b-300e_coco',
    yolov8='yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco',
    ppyoloe='ppyoloe/ppyoloe_s_fast_8xb32-300e_coco',
    rtmdet='rtmdet/rtmdet_tiny_syncbn_fast_8xb32-300e_coco',
    yolox='yolox/yolox_nano_fast_8xb8-300e_coco',
)
CLASSES = ('ant', 'bee', 'fly')
SIDE = 128
# For each stride of 8, 16 and 32.
SIZES = (12, 40, 100)


@cache
def shipped(name: str) -> Any:
    """The whole config, as MMYOLO's wheel has it."""
    return get_config(f'mmyolo::{STUDENTS[name]}.py')


def tiny(
    name: str, factor: float = 0.125, classes: int = len(CLASSES)
) -> ConfigDict:
    """The model of a shipped config with fewer channels and classes."""
    model = copy.deepcopy(shipped(name).model)
    parts = model.backbone, model.neck, model.bbox_head.head_module
    for part in parts:
        part.widen_factor = factor
    for part in (model.backbone, model.neck, model.bbox_head):
        part.pop('init_cfg', None)
    model.bbox_head.head_module.num_classes = classes
    for assigner in (model.get('train_cfg') or {}).values():
        if isinstance(assigner, dict) and 'num_classes' in assigner:
            assigner.num_classes = classes
    for augment in model.data_preprocessor.get('batch_augments', []):
        augment.random_size_range = (SIDE, SIDE)
    return model


def quantized(model: ConfigDict, **quant: Any) -> ConfigDict:
    """The same model with backbone, neck and head wrapped."""
    model = copy.deepcopy(model)
    for key in ('backbone', 'neck', 'bbox_head'):
        part, argument = model[key], key.rpartition('_')[2]
        part[argument] = part.pop('type')
        part['type'] = f'Quant{argument.capitalize()}'
        part['quant'] = quant or dict(w_bits=4, a_bits=4)
    return model


def vary(model: Any) -> None:
    """Weights that let scores and boxes differ; some heads start from 0.

    Boxes get a side of about 3 strides. Otherwise assigners that ask for
    overlap would give no object to the coarse levels.
    """
    torch.manual_seed(0)
    for key, p in model.named_parameters():
        if key.endswith('.weight') and p.ndim > 1:
            torch.nn.init.normal_(p, std=p[0].numel() ** -0.5)
        elif 'reg_preds' in key and key.endswith('.bias') and len(p) > 4:
            p.data = torch.arange(len(p) // 4).repeat(4) * -0.5


def images(count: int = 2) -> Tensor:
    """Noise, uint8, shape (count, 3, SIDE, SIDE)."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, SIDE, SIDE)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def items() -> list[dict[str, Any]]:
    """Two images as a data set gives them, with boxes for every stride."""
    found = []
    for i, image in enumerate(images()):
        corners = [(8 + 9 * i + 5 * k, 12 + 7 * k) for k in range(3)]
        boxes = [[x, y, x + s, y + s] for (x, y), s in zip(corners, SIZES)]
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(SIDE, SIDE),
                ori_shape=(SIDE, SIDE),
                scale_factor=(1.0, 1.0),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.tensor(boxes).float()),
            labels=torch.arange(3),
        )
        found.append(dict(inputs=image, data_samples=sample))
    return found


def batch(name: str) -> dict[str, Any]:
    """The same as MMYOLO's loader gives it: one table of labels."""
    from mmyolo.datasets.utils import yolov5_collate

    collate = dict(shipped(name).train_dataloader.collate_fn)
    collate.pop('type')
    return yolov5_collate(items(), **collate)


def with_teacher(
    student: ConfigDict, teacher: ConfigDict, path: Any, **heads: Any
) -> ConfigDict:
    """A student of one teacher, whose weights lie at ``path``."""
    student.update(
        detector=student.type,
        type='GoRDetector',
        teachers=dict(big=dict(config=teacher, checkpoint=str(path))),
        kd_heads=heads,
        gor_weighting=dict(type='GoRWeighting'),
    )
    return student
