"""Time and memory of one training step, also relative to other steps.

The demo's student trains on random images (batches of 8, 240 x 320 px, sides
rounded up to multiples of 32). The arms take turns, so a machine whose speed
drifts slows all of them alike; the ratio of two arms is taken in each round,
and the median over the rounds is printed. Memory is the peak of the resident
set (CPU) or of the allocator (CUDA) in a step after warm-up; each arm runs in
its own process for that. The floor of a step with teachers is a step of the
float student and the forward passes of the stock teachers, all in float32;
the arm `floor` has both in one step, with one teacher.
Arms with _amp train under bfloat16 autocast, those with _channels_last with
ChannelsLastHook; of those with _compiled, the whole step is compiled, as
mmengine's `compile=True` does it.

python benchmarks/step_time.py [--rounds 15] [--device cpu] [--eager]
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData

import mmgor  # noqa: F401
from mmgor.distillation import Teacher
from mmgor.hooks.channels_last_hook import use_channels_last
from mmgor.hooks.optimizer_groups import join_groups
from mmgor.quantization import calibrate, uncalibrated_layers
from mmgor.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'demo'
ARMS = {
    'float': 'retinanet_r18half.py',
    'floor': 'retinanet_r18half.py',
    'qat': 'retinanet_r18half_w4.py',
    'fixed': 'retinanet_r18half_w4_fixed_from_mbv2.py',
    'gor': 'retinanet_r18half_w4_from_mbv2.py',
    'ekd': 'retinanet_r18half_w4_from_ekd.py',
    'float_amp': 'retinanet_r18half.py',
    'qat_amp': 'retinanet_r18half_w4.py',
    'gor_amp': 'retinanet_r18half_w4_from_mbv2.py',
    'float_channels_last': 'retinanet_r18half.py',
    'qat_channels_last': 'retinanet_r18half_w4.py',
    'gor_channels_last': 'retinanet_r18half_w4_from_mbv2.py',
    'float_compiled': 'retinanet_r18half.py',
    'qat_compiled': 'retinanet_r18half_w4.py',
    'gor_compiled': 'retinanet_r18half_w4_from_mbv2.py',
    'gor_amp_compiled': 'retinanet_r18half_w4_from_mbv2.py',
}
TEACHERS = {
    'mbv2': 'retinanet_mbv2.py',
    'retinanet': 'retinanet_mbv2.py',
    'atss': 'atss_mbv2.py',
    'yolox': 'yolox_nano.py',
}
CLASSES = ['0', '1', '2']  # of the student and all teachers
WARM_UP = 4
# mmengine's history of the losses is compiled anew up to 8 times.
COMPILED_WARM_UP = 12


def make_batch(args: argparse.Namespace, device: str) -> dict[str, Any]:
    """Random images with twelve boxes each."""
    generator = torch.Generator().manual_seed(0)
    height, width = args.size
    samples = []
    for _ in range(args.batch):
        corner = torch.rand(12, 2, generator=generator) * torch.tensor(
            [width * 0.8, height * 0.8]
        )
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(height, width),
                pad_shape=(height, width),
                batch_input_shape=(height, width),
                scale_factor=(1.0, 1.0),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + height * 0.15], 1),
            labels=torch.randint(0, 3, (12,), generator=generator),
        )
        samples.append(sample.to(device))
    inputs = torch.randn(args.batch, 3, height, width, generator=generator)
    return dict(inputs=inputs.to(device), data_samples=samples)


def student_config(arm: str) -> Config:
    """The config of an arm."""
    cfg = Config.fromfile(CONFIGS / ARMS[arm])
    if '_amp' in arm:
        cfg.optim_wrapper.type = 'Bfloat16OptimWrapper'
    return cfg


def build(cfg: Config, args: argparse.Namespace, weights: Path) -> Any:
    """A calibrated model in training mode, and its optimizer."""
    for name in cfg.model.get('teachers', {}):
        cfg.model.teachers[name].update(teacher_spec(name, weights))
    torch.manual_seed(0)
    # Otherwise a line per parameter is printed between the tables.
    MMLogger.get_current_instance().setLevel('WARNING')
    model = MODELS.build(cfg.model)
    model.init_weights()
    if hasattr(model, 'map_classes'):
        model.map_classes(CLASSES)
    model.to(args.device).train()
    if uncalibrated_layers(model):
        batch = make_batch(args, args.device)
        calibrate(model, [batch], lambda b: model(**b, mode='tensor'))
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    # As QuantCalibrationHook does.
    join_groups(wrapper.optimizer)
    groups = wrapper.optimizer.param_groups
    groups[:] = map(dict, groups)
    return model, wrapper


def save_teachers(weights: Path) -> None:
    """Save untrained teachers; a step takes as long as with trained ones."""
    weights.mkdir(parents=True, exist_ok=True)
    for name, file in TEACHERS.items():
        cfg = Config.fromfile(CONFIGS / file)
        state_dict = MODELS.build(cfg.model).state_dict()
        torch.save(state_dict, weights / f'{name}.pth')


def teacher_spec(name: str, weights: Path) -> dict[str, Any]:
    """Config of a teacher: its config file, weights and classes."""
    return dict(
        config=str(CONFIGS / TEACHERS[name]),
        checkpoint=str(weights / f'{name}.pth'),
        classes=CLASSES,
    )


def step_of(
    model: Any,
    wrapper: Any,
    batch: dict,
    beside: Callable[[], Any] = lambda: None,
) -> Callable[[], None]:
    """One full training step as a function, with what ``beside`` returns kept
    in memory."""

    def step() -> None:
        with wrapper.optim_context(model):
            loss, _ = model.parse_losses(model(**batch, mode='loss'))
        kept = beside()
        wrapper.update_params(loss)
        del kept

    return step


def step_for(
    arm: str, args: argparse.Namespace, weights: Path, batch: dict
) -> Callable[[], None]:
    """:func:`step_of` for one of the arms."""
    model, wrapper = build(student_config(arm), args, weights)
    if arm.endswith('_channels_last'):
        use_channels_last(model)
    if arm == 'floor':
        teacher = stock_forward('mbv2', args, batch)
        return step_of(model, wrapper, batch, teacher)
    step = step_of(model, wrapper, batch)
    return torch.compile(step) if arm.endswith('_compiled') else step


def teacher_forward(
    name: str, args: argparse.Namespace, weights: Path, batch: dict
) -> Callable[[], None]:
    """A teacher's forward pass, as in a training step with KD."""
    teacher = Teacher(name, **teacher_spec(name, weights))
    teacher.build(torch.device(args.device))
    preprocessor = teacher.model.data_preprocessor

    def step() -> None:
        teacher.forward_taps(
            batch['inputs'],
            preprocessor,
            batch['data_samples'],
            ['neck', 'bbox_head'],
        )

    return step


def stock_forward(
    name: str, args: argparse.Namespace, batch: dict
) -> Callable[[], Any]:
    """A forward pass of the stock detector in float32, as the floor has it."""
    model: Any = MODELS.build(Config.fromfile(CONFIGS / TEACHERS[name]).model)
    model.to(args.device).eval().requires_grad_(False)

    def step() -> Any:
        with torch.no_grad():
            features = model.extract_feat(batch['inputs'])
            return features, model.bbox_head(features)

    return step


def timed(step: Callable[[], Any], device: str) -> float:
    """Time of one call in seconds."""
    start = time.perf_counter()
    step()
    if device != 'cpu':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def warm_up(name: str, step: Callable[[], Any]) -> None:
    """The first steps of an arm, which compile and reserve memory."""
    compiles = name.endswith('_compiled')
    for _ in range(COMPILED_WARM_UP if compiles else WARM_UP):
        step()


def measure_time(args: argparse.Namespace, weights: Path) -> dict[str, list]:
    """Time of each arm in seconds, one value per round."""
    batch = make_batch(args, args.device)
    steps = {arm: step_for(arm, args, weights, batch) for arm in args.arms}
    for name in TEACHERS:
        steps[name] = teacher_forward(name, args, weights, batch)
        steps[f'{name}_stock'] = stock_forward(name, args, batch)
    for name, step in steps.items():
        warm_up(name, step)
    seconds: dict[str, list] = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            seconds[name].append(timed(step, args.device))
    return seconds


def measure_memory(arm: str, args: argparse.Namespace, weights: Path) -> float:
    """Peak memory of this process during a step, in bytes."""
    register_all_modules()
    batch = make_batch(args, args.device)
    step = step_for(arm, args, weights, batch)
    warm_up(arm, step)
    if args.device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    # On Linux, writing 5 resets the peak of the resident set.
    Path('/proc/self/clear_refs').write_text('5')
    step()
    status = Path('/proc/self/status').read_text()
    line = next(x for x in status.splitlines() if x.startswith('VmHWM'))
    return 1024.0 * int(line.split()[1])


def in_own_process(arm: str, args: argparse.Namespace, weights: Path) -> float:
    """Run :func:`measure_memory` in a new process."""
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(measure_memory, (arm, args, weights))


def ratio_line(label: str, above: list[float], below: list[float]) -> str:
    """Median and quartiles of the ratio ``above / below`` in each round."""
    ratios = [a / b for a, b in zip(above, below)]
    low, _, high = quantiles(ratios, n=4)
    return f'{label:60s} {median(ratios):.3f}  ({low:.3f} to {high:.3f})'


def sums(seconds: dict[str, list], names: Sequence[str]) -> list[float]:
    """The times of several arms together, one value per round."""
    return [sum(times) for times in zip(*(seconds[n] for n in names))]


def report(seconds: dict[str, list], memory: dict[str, float]) -> None:
    """Print median times, then ratios of times and of memory."""
    for name, values in seconds.items():
        extra = ''
        if name in memory:
            extra = f'   peak {memory[name] / 2**20:.0f} MiB'
        print(f'{name:20s} {1000 * median(values):8.1f} ms{extra}')
    floor = seconds['floor']
    floor3 = ('float', 'retinanet_stock', 'atss_stock', 'yolox_stock')
    parts = ('qat', 'retinanet', 'atss', 'yolox')
    three = 'float step + 3 stock teachers'
    rows = [
        ('QAT step / float step', 'qat', seconds['float']),
        (
            'QAT step with AMP / float step with AMP',
            'qat_amp',
            seconds['float_amp'],
        ),
        (
            'QAT step channels-last / float step',
            'qat_channels_last',
            seconds['float'],
        ),
        (
            'QAT step channels-last / float step channels-last',
            'qat_channels_last',
            seconds['float_channels_last'],
        ),
        (
            'float step channels-last / float step',
            'float_channels_last',
            seconds['float'],
        ),
        ('GoR step / floor', 'gor', floor),
        ('GoR step channels-last / floor', 'gor_channels_last', floor),
        ('GoR step with AMP / floor', 'gor_amp', floor),
        ('GoR step / fixed-weight step', 'gor', seconds['fixed']),
        (f'EKD step / ({three})', 'ekd', sums(seconds, floor3)),
        ('EKD step / (QAT step + 3 teachers)', 'ekd', sums(seconds, parts)),
        ('teacher / stock teacher', 'mbv2', seconds['mbv2_stock']),
    ]
    if 'gor_compiled' in seconds:
        rows += compiled_rows(seconds)
    print('\nratio of times: median (quartiles) over rounds')
    for label, arm, below in rows:
        print(ratio_line(label, seconds[arm], below))
    for arm in memory:
        for below in [name for name in ('float', 'floor') if name != arm]:
            label = f'peak memory, {arm} / {below}'
            print(f'{label:60s} {memory[arm] / memory[below]:.3f}')


def compiled_rows(seconds: dict[str, list]) -> list[tuple]:
    """Label, arm and what its times are divided by."""
    float_step = seconds['float_compiled']
    floor = sums(seconds, ('float_compiled', 'mbv2_stock'))
    return [
        (
            'compiled QAT step / compiled float step',
            'qat_compiled',
            float_step,
        ),
        ('compiled QAT step / float step', 'qat_compiled', seconds['float']),
        (
            'compiled GoR step / (compiled float step + stock teacher)',
            'gor_compiled',
            floor,
        ),
        (
            'compiled GoR step with AMP / floor',
            'gor_amp_compiled',
            seconds['floor'],
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--size', type=int, nargs=2, default=[240, 320])
    parser.add_argument('--device', default='cpu')
    parser.add_argument(
        '--eager',
        action='store_true',
        help='leave out the compiled arms, which take minutes to compile',
    )
    parser.add_argument('--json', type=Path, help='also write all numbers')
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error(f'--rounds: expected at least 2, got {args.rounds}')
    args.arms = [
        arm for arm in ARMS if not (args.eager and arm.endswith('_compiled'))
    ]
    args.size = [side + -side % 32 for side in args.size]
    register_all_modules()
    weights = Path('work_dirs/benchmark_teachers')
    save_teachers(weights)
    memory = {arm: in_own_process(arm, args, weights) for arm in args.arms}
    seconds = measure_time(args, weights)
    if args.json is not None:
        numbers = dict(seconds=seconds, memory_bytes=memory)
        args.json.write_text(json.dumps(numbers))
    report(seconds, memory)


if __name__ == '__main__':
    main()
