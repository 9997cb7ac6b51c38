"""The demo's arms: a shipped config each, filled in and trained."""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmgor.io.atomic_write import write_text, writing

from .data import DataFolder
from .progress import REPOSITORY, run_condensed

CONFIGS = {
    'teacher': 'retinanet_mbv2.py',
    'atss': 'atss_mbv2.py',
    'yolox': 'yolox_nano.py',
    'float': 'retinanet_r18half.py',
    'float2': 'retinanet_r18half.py',
    'qat': 'retinanet_r18half_w4.py',
    'fixed': 'retinanet_r18half_w4_fixed_from_mbv2.py',
    'gor': 'retinanet_r18half_w4_from_mbv2.py',
    'from_retinanet': 'retinanet_r18half_w4_from_retinanet.py',
    'from_atss': 'retinanet_r18half_w4_from_atss.py',
    'from_yolox': 'retinanet_r18half_w4_from_yolox.py',
    'ekd': 'retinanet_r18half_w4_from_ekd.py',
}
#: Trained once, with seed 0: name among an arm's teachers -> arm.
TEACHERS = {'retinanet': 'teacher', 'atss': 'atss', 'yolox': 'yolox'}
#: Arm -> its teachers.
TAUGHT = {
    'fixed': ('retinanet',),
    'gor': ('retinanet',),
    'from_retinanet': ('retinanet',),
    'from_atss': ('atss',),
    'from_yolox': ('yolox',),
    'ekd': ('retinanet', 'atss', 'yolox'),
}
#: Arms that start from the float student's weights, for as many epochs.
CONTINUED = ('float2', 'qat', *TAUGHT)
TITLES = {
    'teacher': 'teacher, float',
    'atss': 'teacher ATSS-MobileNetV2, float',
    'yolox': 'teacher YOLOX-nano, float',
    'float': 'student, float',
    'float2': 'student, float, trained as long',
    'qat': 'student, W4A4 without KD',
    'fixed': 'student, W4A4, KD with fixed weight 1',
    'gor': 'student, W4A4, KD weighed by GoR',
    'from_retinanet': 'student, W4A4, GoR, from RetinaNet',
    'from_atss': 'student, W4A4, GoR, from ATSS',
    'from_yolox': 'student, W4A4, GoR, from YOLOX-nano',
    'ekd': 'student, W4A4, GoR, from all three (EKD)',
}


@dataclass
class Arm:
    """One training run.

    Args:
        name (str): A key of ``CONFIGS``.
        seed (int): Of the run.
        work_dir (Path): Where it writes.
        config (Config): Complete config.
        sources (tuple[Path, ...]): Files it is made from: annotations and
            the results of the arms it starts from or learns from.
    """

    name: str
    seed: int
    work_dir: Path
    config: Config
    sources: tuple[Path, ...] = ()

    @property
    def hash(self) -> str:
        """Of the config and the sources, to tell a finished arm.

        A teacher trained again keeps its path, and so the config of the
        students that it teaches; its result is what changes.
        """
        digest = hashlib.sha256(self.config.pretty_text.encode())
        for source in self.sources:
            digest.update(source.read_bytes() if source.is_file() else b'')
        return digest.hexdigest()[:12]

    @property
    def config_file(self) -> Path:
        """The complete config on disk."""
        return self.work_dir / 'config.py'

    @property
    def checkpoint(self) -> Path:
        """The last epoch's weights."""
        epochs = self.config.train_cfg.max_epochs
        return self.work_dir / f'epoch_{epochs}.pth'

    @property
    def result_file(self) -> Path:
        """mAP and AP50 of the last epoch, written when the arm is done."""
        return self.work_dir / 'result.json'

    def result(self) -> dict | None:
        """The stored result if this very arm was trained, else None."""
        if not (self.result_file.is_file() and self.checkpoint.is_file()):
            return None
        stored = json.loads(self.result_file.read_text())
        return stored if stored['hash'] == self.hash else None


def build_arm(
    name: str,
    seed: int,
    data: DataFolder,
    work_dir: Path,
    epochs: int | None = None,
    backbone: Path | None = None,
    yolox: Path | None = None,
) -> Arm:
    """Fill a shipped demo config in for one arm.

    Args:
        name (str): A key of ``CONFIGS``.
        seed (int): Of the run; the teacher is trained once, with seed 0.
        data (DataFolder): What to train on.
        work_dir (Path): The demo's folder.
        epochs (int, optional): Instead of the config's.
        backbone (Path, optional): ImageNet weights of the teacher's backbone,
            a MobileNetV2. Without them the teacher is a ResNet-18 from
            scratch, which a MobileNetV2 does not reach on few pictures.
        yolox (Path, optional): Weights that the YOLOX teacher starts from.
    """
    file = CONFIGS[name]
    if name == 'teacher' and backbone is None:
        file = 'retinanet_r18.py'
    cfg = Config.fromfile(REPOSITORY / 'configs' / 'demo' / file)
    folder = _folder(name, seed, work_dir)
    options: dict[str, Any] = {
        'work_dir': str(folder),
        'randomness': dict(seed=seed),
        'model.bbox_head.num_classes': len(data.classes),
    }
    options.update(data_options(data))
    cfg.merge_from_dict(options)
    if epochs is not None:
        set_epochs(cfg, epochs)
    if name in ('teacher', 'atss') and backbone is not None:
        _use_backbone(cfg, backbone)
    if name == 'yolox' and yolox is not None:
        cfg.load_from = str(yolox.resolve())
    sources = [data.root / 'train.json', data.root / 'eval.json']
    if name in CONTINUED:
        start = build_arm('float', seed, data, work_dir, epochs)
        cfg.load_from = str(start.checkpoint)
        sources.append(start.result_file)
    teachers = {}
    for key in TAUGHT.get(name, ()):
        teacher = build_arm(
            TEACHERS[key], 0, data, work_dir, epochs, backbone, yolox
        )
        if name in ('fixed', 'gor'):
            key = 'mbv2' if backbone else 'r18'
        teachers[key] = dict(
            config=str(teacher.config_file), checkpoint=str(teacher.checkpoint)
        )
        sources.append(teacher.result_file)
    if teachers:
        cfg.model.teachers = teachers
    return Arm(name, seed, folder, cfg, tuple(sources))


def _folder(name: str, seed: int, work_dir: Path) -> Path:
    return work_dir / (
        name if name in TEACHERS.values() else f'{name}_seed{seed}'
    )


def data_options(data: DataFolder) -> dict[str, Any]:
    """What puts a data folder into a config.

    Its pipelines resize in the third step in training, where annotations are
    loaded first, and in the second in evaluation.

    Args:
        data (DataFolder): Folder, classes and size.

    Returns:
        dict: For ``Config.merge_from_dict``.
    """
    root = str(data.root) + '/'
    options: dict[str, Any] = {}
    for split in ('train', 'val', 'test'):
        prefix = f'{split}_dataloader.dataset.'
        options[prefix + 'data_root'] = root
        options[prefix + 'metainfo'] = dict(classes=data.classes)
        position = 2 if split == 'train' else 1
        options[f'{prefix}pipeline.{position}.scale'] = (data.side,) * 2
    for split in ('val', 'test'):
        options[f'{split}_evaluator.ann_file'] = root + 'eval.json'
    return options


def set_epochs(cfg: Config, epochs: int) -> None:
    """Train and anneal for so many epochs, evaluate after the last.

    Args:
        cfg (Config): Its last ``param_scheduler`` is a cosine in epochs.
        epochs (int): At least 1.

    Raises:
        ValueError: If it is another schedule.
    """
    if 'T_max' not in cfg.param_scheduler[-1]:
        raise ValueError(
            'to set the epochs, a cosine with T_max is expected as the last '
            f'param_scheduler, got {dict(cfg.param_scheduler[-1])}; use a '
            'config that ends with one, e.g. configs/demo/*.py.'
        )
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = epochs
    cosine = cfg.param_scheduler[-1]
    cosine['end'] = cosine['T_max'] = epochs


def _use_backbone(cfg: Config, backbone: Path) -> None:
    """Pretrained weights, with a lower rate for them."""
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(backbone.resolve())
    )
    cfg.optim_wrapper.paramwise_cfg = dict(
        custom_keys=dict(backbone=dict(lr_mult=0.3))
    )


def train_arm(arm: Arm, tell: Callable[[str], None]) -> dict:
    """Train an arm with tools/train.py, unless it is done; give its result.

    Args:
        arm (Arm): What to train.
        tell (Callable): Takes lines for the user.

    Returns:
        dict: ``mAP``, ``AP50`` (both of 1), ``hash``.

    Raises:
        RuntimeError: If training fails, with the end of its log, or if it
            logged nothing.
    """
    done = arm.result()
    if done is not None:
        tell(f'{arm.work_dir.name}: done before, not trained again')
        return done
    arm.work_dir.mkdir(parents=True, exist_ok=True)
    with writing(arm.config_file) as part:
        arm.config.dump(part)
    command = [
        sys.executable,
        '-u',
        str(REPOSITORY / 'tools' / 'train.py'),
        str(arm.config_file),
    ]
    tell(f'$ python tools/train.py {arm.config_file}')
    log = arm.work_dir / 'train.log'
    run_condensed(
        command, log, lambda line: tell(f'{arm.work_dir.name}  {line}')
    )
    result = dict(_metrics(arm.work_dir), hash=arm.hash)
    write_text(arm.result_file, json.dumps(result, indent=1) + '\n')
    return result


def _metrics(work_dir: Path) -> dict[str, float]:
    """mAP and AP50 that the newest run logged last.

    mmdet logs no metric when no box passed the score threshold: 0 then. An
    earlier run's number in the same folder is never taken instead.
    """
    runs = sorted(work_dir.glob('*/vis_data'))
    scalars = runs[-1] / 'scalars.json' if runs else None
    if scalars is None or not scalars.is_file():
        raise RuntimeError(
            f'no scalars.json of the newest run in {work_dir}; expected '
            "visualizer.vis_backends=[dict(type='LocalVisBackend')]."
        )
    for line in scalars.read_text().splitlines()[::-1]:
        record = json.loads(line)
        if 'coco/bbox_mAP' in record:
            return dict(
                mAP=record['coco/bbox_mAP'], AP50=record['coco/bbox_mAP_50']
            )
    return dict(mAP=0.0, AP50=0.0)
