"""Evaluate a checkpoint or an exported file, such as .onnx.

The flags are the same as in mmdet's tools/test.py.

python tools/test.py configs/gor/retinanet_r18_w4_from_r101.py CHECKPOINT
"""

import argparse
import os
import warnings
from copy import deepcopy
from pathlib import Path

from _common import add_common_arguments, build_runner, read_config
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config, ConfigDict

from mmgor.datasets import check_evaluation_data
from mmgor.deploy.runtime.runtime import BACKENDS
from mmgor.deploy.runtime.runtime_config import runtime_model
from mmgor.io.config_reader import loader_datasets

META_KEYS = (
    'img_id',
    'img_path',
    'ori_shape',
    'img_shape',
    'scale_factor',
    'flip',
    'flip_direction',
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test a detector')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint', help='checkpoint file or URL, or an exported file'
    )
    parser.add_argument(
        '--rest',
        metavar='CHECKPOINT',
        help='checkpoint of an exported file that has only a part of its '
        'detector, such as backbone, neck and RPN; PyTorch runs the rest',
    )
    parser.add_argument('--out', help='write predictions to this .pkl file')
    parser.add_argument(
        '--show', action='store_true', help='show images with boxes'
    )
    parser.add_argument(
        '--show-dir',
        help='write images with boxes to work_dir/timestamp/SHOW_DIR',
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds per image'
    )
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation'
    )
    add_common_arguments(parser)
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out expected a .pkl file, got {args.out}')
    return args


def enable_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation; the default is a flip."""
    if 'tta_model' not in cfg:
        warnings.warn(
            'no tta_model in the config; using a flip and NMS', stacklevel=2
        )
        cfg.tta_model = dict(
            type='DetTTAModel',
            tta_cfg=dict(
                nms=dict(type='nms', iou_threshold=0.5), max_per_img=100
            ),
        )
    datasets = loader_datasets(cfg, 'test_dataloader')
    if 'tta_pipeline' not in cfg:
        cfg.tta_pipeline = deepcopy(datasets[0].pipeline)
        flips = [dict(type='RandomFlip', prob=p) for p in (1.0, 0.0)]
        cfg.tta_pipeline[-1] = dict(
            type='TestTimeAug',
            transforms=[
                flips,
                [dict(type='PackDetInputs', meta_keys=META_KEYS)],
            ],
        )
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline


def main() -> None:
    args = parse_args()
    setup_cache_size_limit_of_dynamo()
    cfg = read_config(args)
    if Path(args.checkpoint).suffix.lower() in BACKENDS:
        cfg.model = runtime_model(cfg, args.checkpoint, args.rest)
        cfg.load_from, cfg.resume = None, False
    elif args.rest:
        raise ValueError(
            '--rest expected an exported file before it '
            f'({" or ".join(BACKENDS)}), got {args.checkpoint}. A checkpoint '
            'has all parts: leave out --rest.'
        )
    else:
        cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
    if args.tta:
        enable_tta(cfg)
    # Only once: large annotation files take long to read.
    if os.environ['LOCAL_RANK'] == '0':
        test = cfg.get('test_dataloader'), cfg.get('test_evaluator')
        check_evaluation_data(*test)
    runner = build_runner(cfg)
    if args.out:
        runner.test_evaluator.metrics.append(
            DumpDetResults(out_file_path=args.out)
        )
    runner.test()


if __name__ == '__main__':
    main()
