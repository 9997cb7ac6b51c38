"""Compare speed and mAP of exported students with float32 and other tools.

All arms run with batch size 1 on the same images. They take turns on every
image, so that a machine that slows down slows all of them.

The other tools are the 8-bit post-training quantization (PTQ) of the runtimes,
applied to the float student and calibrated on training images:

- ONNX Runtime's static quantization: per channel, QDQ, and 7-bit weights on
  CPUs without VNNI, as its manual says. The ranges go to the largest value or
  to a percentile.
- NNCF for OpenVINO: its default, and its preset "mixed", which has zero points
  (for activations like SiLU).

It needs the packages of mmgor[deploy], and nncf. With --litert it needs those
of mmgor[litert], too.

python benchmarks/latency.py FLOAT_CONFIG FLOAT_CHECKPOINT \
    --student W4A4 CONFIG CHECKPOINT --size 256 320 --map
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import nncf
import onnx
import openvino
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from onnxruntime import quantization
from torch import Tensor

from mmgor.deploy import open_runtime, runtime_model
from mmgor.deploy.description.checksum import append_onnx_checksum
from mmgor.deploy.description.metadata import KEY, make_metadata
from mmgor.deploy.description.tflite import pack_tflite
from mmgor.deploy.export.exporter import export_detector
from mmgor.deploy.export.network import Network
from mmgor.deploy.export.onnx_ops import OPSET
from mmgor.deploy.export.saving import save_onnx, save_openvino, to_openvino
from mmgor.deploy.head_outputs import flatten, name_outputs
from mmgor.deploy.input_size import size_divisor
from mmgor.deploy.litert.conversion import name_ends
from mmgor.deploy.loading import class_names, load_detector
from mmgor.deploy.optional_imports import require
from mmgor.deploy.runtime.integer_kernels import has_vnni
from mmgor.image_channels import COLOUR, image_channels
from mmgor.io.config_reader import unwrapped_datasets

FLOAT = 'float32'
BACKENDS = {
    '.onnx': 'ONNX Runtime',
    '.xml': 'OpenVINO',
    '.tflite': 'LiteRT',
}
# File names of the other arms.
TAKEN = ('float', 'static', 'percentile', 'nncf', 'mixed')
# For a percentile ONNX Runtime keeps every activation of every image.
PERCENTILE_IMAGES = 32


@dataclass
class Arm:
    """A file in a runtime.

    Args:
        name (str): Name in the table.
        path (Path): The file.
        cfg (Config): Config that evaluates it.
        integer_kernels (bool): See ``open_runtime``.
    """

    name: str
    path: Path
    cfg: Config
    integer_kernels: bool = False
    times: list[float] = field(default_factory=list)

    @property
    def backend(self) -> str:
        return BACKENDS[self.path.suffix]

    @property
    def size(self) -> int:
        """In bytes, with the weights."""
        files = [self.path]
        if self.path.suffix == '.xml':
            files.append(self.path.with_suffix('.bin'))
        return sum(file.stat().st_size for file in files)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config of the float student')
    parser.add_argument('checkpoint', help='checkpoint of the float student')
    parser.add_argument(
        '--student',
        nargs=3,
        action='append',
        default=[],
        metavar=('NAME', 'CONFIG', 'CHECKPOINT'),
        help='quantized student; may be given several times',
    )
    parser.add_argument(
        '--size', nargs=2, type=int, required=True, metavar=('H', 'W')
    )
    parser.add_argument(
        '--images', type=int, default=16, help='number of test images'
    )
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument(
        '--calibration',
        type=int,
        default=300,
        help='number of training images for PTQ',
    )
    parser.add_argument('--map', action='store_true', help='also evaluate')
    parser.add_argument('--litert', action='store_true', help='also LiteRT')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='key=value, for every config',
    )
    args = parser.parse_args()
    names = [name for name, _, _ in args.student]
    if len({*names, *TAKEN}) < len(names) + len(TAKEN):
        parser.error(f'--student: names must differ and be none of {TAKEN}')
    # OpenVINO ends a file name at a comma.
    if any(mark in name for name in names for mark in ',/'):
        parser.error(f'--student: expected names without , and /, got {names}')
    return args


def read_config(path: str, args: argparse.Namespace) -> Config:
    """A config with the command line's options."""
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(args.cfg_options)
    return cfg


def images(
    cfg: Config, model: Any, size: list[int], count: int, split: str
) -> Iterator[Tensor]:
    """Preprocessed and padded images of a split, shape (1, C, H, W) each."""
    loader = deepcopy(cfg.test_dataloader)
    if split == 'train':
        source = next(unwrapped_datasets(cfg.train_dataloader.dataset))
        target = next(unwrapped_datasets(loader.dataset))
        for key in ('ann_file', 'data_prefix', 'data_root'):
            if key in source:
                target[key] = source[key]
    loader.update(batch_size=1, num_workers=0, persistent_workers=False)
    for batch in islice(Runner.build_dataloader(loader), count):
        inputs = model.data_preprocessor(batch, False)['inputs']
        missing = [want - got for want, got in zip(size, inputs.shape[2:])]
        if min(missing) < 0:
            raise ValueError(
                f'a padded image of {tuple(inputs.shape[2:])} (height, '
                f'width) is larger than {tuple(size)}; type a --size that '
                'holds all images.'
            )
        yield torch.nn.functional.pad(inputs, (0, missing[1], 0, missing[0]))


def export_float(cfg: Config, model: Any, path: Path, size: list[int]) -> None:
    """Export the float student, with the metadata of a quantized one."""
    network = Network(model).eval()
    channels = image_channels(model) or COLOUR
    zeros = torch.zeros(1, channels, *size)
    with torch.no_grad():
        names = name_outputs(network.outputs(zeros))
    program = torch.onnx.export(
        network,
        (zeros,),
        input_names=['images'],
        output_names=flatten(names),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    save_onnx(program.model, float_metadata(cfg, model, size, names), path)


def float_metadata(
    cfg: Config, model: Any, size: list[int], names: Any
) -> dict:
    """The metadata that a quantized student's file has."""
    classes, divisor = class_names(cfg, model), size_divisor(cfg)
    return make_metadata(cfg, model, classes, (1, *size), divisor, names)


def export_float_litert(
    cfg: Config, model: Any, path: Path, size: list[int]
) -> None:
    """Export the float student to LiteRT."""
    litert_torch = require('litert_torch')
    utils = require('ai_edge_litert.tools.flatbuffer_utils')
    network = Network(model).eval()
    zeros = torch.zeros(1, image_channels(model) or COLOUR, *size)
    with torch.no_grad():
        names = name_outputs(network.outputs(zeros))
    content = litert_torch.convert(network, (zeros,)).model_content()
    converted = utils.read_model_from_bytearray(content)
    name_ends(converted, flatten(names))
    text = json.dumps(float_metadata(cfg, model, size, names))
    path.write_bytes(pack_tflite(converted, text))


class Reader(quantization.CalibrationDataReader):
    """Gives ONNX Runtime one calibration image after another."""

    def __init__(self, images: Iterator[Tensor]) -> None:
        self.images = images

    def get_next(self) -> dict | None:
        image = next(self.images, None)
        return None if image is None else dict(images=image.numpy())


def quantize_onnx(
    source: Path, target: Path, data: list[Tensor], **recipe: Any
) -> None:
    """Quantize with ONNX Runtime's static quantization."""
    prepared = target.with_suffix('.prepared.onnx')
    quantization.shape_inference.quant_pre_process(source, prepared)
    quantization.quantize_static(
        prepared,
        target,
        Reader(iter(data)),
        per_channel=True,
        reduce_range=not has_vnni(),
        **recipe,
    )
    prepared.unlink()
    properties = {p.key: p.value for p in onnx.load(source).metadata_props}
    model = onnx.load(target)
    onnx.helper.set_model_props(model, {KEY: properties[KEY]})
    onnx.save(model, target)
    append_onnx_checksum(target)


def quantize_openvino(
    source: Path, target: Path, data: list[Tensor], **recipe: Any
) -> None:
    """Quantize with NNCF's post-training quantization."""
    model = openvino.Core().read_model(source)
    text = model.get_rt_info([KEY]).value
    quantized = nncf.quantize(
        model,
        nncf.Dataset(data, lambda image: image.numpy()),
        subset_size=len(data),
        **recipe,
    )
    save_openvino(quantized, text, target)


def peers(plain: Path, data: list[Tensor], cfg: Config) -> list[Arm]:
    """Quantize the float student with the runtimes' own tools."""
    static, percentile, default, mixed = (
        plain.with_name(name)
        for name in ('static.onnx', 'percentile.onnx', 'nncf.xml', 'mixed.xml')
    )
    quantize_onnx(plain, static, data)
    quantize_onnx(
        plain,
        percentile,
        data[:PERCENTILE_IMAGES],
        calibrate_method=quantization.CalibrationMethod.Percentile,
    )
    ir = plain.with_suffix('.xml')
    quantize_openvino(ir, default, data)
    preset = nncf.QuantizationPreset.MIXED
    quantize_openvino(ir, mixed, data, preset=preset)
    bits = f'W{8 if has_vnni() else 7}A8'
    return [
        Arm(f"ONNX Runtime's PTQ, {bits}", static, cfg, True),
        Arm(f"ONNX Runtime's PTQ, {bits}, percentile", percentile, cfg, True),
        Arm('NNCF PTQ, W8A8', default, cfg, True),
        Arm('NNCF PTQ, W8A8, mixed', mixed, cfg, True),
    ]


def build_arms(args: argparse.Namespace, folder: Path) -> list[Arm]:
    """Write the files of all arms."""
    cfg = read_config(args.config, args)
    model = load_detector(cfg, args.checkpoint)
    data = list(images(cfg, model, args.size, args.calibration, 'train'))
    plain = folder / 'float.onnx'
    export_float(cfg, model, plain, args.size)
    to_openvino(plain, plain.with_suffix('.xml'))
    arms = [
        Arm(FLOAT, plain, cfg),
        Arm(FLOAT, plain.with_suffix('.xml'), cfg),
        *peers(plain, data, cfg),
    ]
    suffixes = ['.onnx', '.xml']
    if args.litert:
        path = plain.with_suffix('.tflite')
        export_float_litert(cfg, model, path, args.size)
        arms.append(Arm(FLOAT, path, cfg, True))
        suffixes.append('.tflite')
    for name, config, checkpoint in args.student:
        student_cfg = read_config(config, args)
        student = load_detector(student_cfg, checkpoint)
        classes = class_names(student_cfg, student)
        for suffix in suffixes:
            path = folder / f'{name}{suffix}'
            export_detector(
                student, student_cfg, path, tuple(args.size), classes
            )
            if suffix != '.tflite':  # LiteRT has integer kernels only
                arms.append(Arm(f'mmgor {name}', path, student_cfg))
            kernels = f'mmgor {name}, integer kernels'
            arms.append(Arm(kernels, path, student_cfg, True))
    return arms


def measure(
    arms: list[Arm], images: list[Tensor], args: argparse.Namespace
) -> None:
    """Fill ``times`` with one value per image and round, in seconds."""
    runtimes = [
        open_runtime(arm.path, args.threads, arm.integer_kernels)
        for arm in arms
    ]
    for round_ in range(args.rounds + 1):  # the first one warms up
        for image in images:
            for arm, runtime in zip(arms, runtimes):
                started = time.perf_counter()
                runtime(image)
                spent = time.perf_counter() - started
                if round_:
                    arm.times.append(spent)


def evaluate(arm: Arm, folder: Path, threads: int) -> float:
    """COCO mAP in points, on the config's test set."""
    cfg = deepcopy(arm.cfg)
    cfg.model = runtime_model(cfg, arm.path)
    cfg.model.update(integer_kernels=arm.integer_kernels, threads=threads)
    cfg.load_from, cfg.work_dir = None, str(folder / 'test')
    # No worker processes beside the runtimes' threads.
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    metrics = Runner.from_cfg(cfg).test()
    return 100 * metrics.get('coco/bbox_mAP', 0.0)


def row(arm: Arm, arms: list[Arm], score: str) -> str:
    """One line of the table, with the speed relative to float32 in the same
    runtime."""
    floats = next(
        a for a in arms if a.backend == arm.backend and a.name == FLOAT
    )
    ratio = median(f / t for f, t in zip(floats.times, arm.times))
    low, _, high = quantiles(arm.times, n=4)
    return (
        f'| {arm.backend} | {arm.name} | {arm.size / 1e6:.2f} | '
        f'{1e3 * median(arm.times):.1f} ({1e3 * low:.1f} to '
        f'{1e3 * high:.1f}) | {ratio:.2f} | {score} |'
    )


def main() -> None:
    args = parse_args()
    register_all_modules()
    logging.getLogger('nncf').setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arms = build_arms(args, folder)
        cfg = arms[0].cfg
        model = load_detector(cfg, None)
        count = args.images
        inputs = list(images(cfg, model, args.size, count, 'test'))
        measure(arms, inputs, args)
        arms.sort(key=lambda arm: [*BACKENDS.values()].index(arm.backend))
        scores = [
            f'{evaluate(arm, folder, args.threads):.1f}' if args.map else ''
            for arm in arms
        ]
        lines = [
            '| runtime | model | MB | median ms (quartiles) | '
            'times as fast as float32 | mAP |',
            '|---|---|---|---|---|---|',
            *(row(arm, arms, score) for arm, score in zip(arms, scores)),
        ]
    vnni = 'with' if has_vnni() else 'without'
    print(
        f'\n1 x 3 x {args.size[0]} x {args.size[1]}, {args.threads} '
        f'thread(s), CPU {vnni} VNNI, {len(inputs)} images, '
        f'{args.rounds} rounds\n'
    )
    print('\n'.join(lines))


if __name__ == '__main__':
    main()
