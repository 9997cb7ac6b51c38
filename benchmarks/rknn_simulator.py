"""Run a file of the target 'rknn' in the simulator of rknn-toolkit2.

The toolkit converts the file without quantizing it again, and computes on
this CPU what the NPU would. ONNX Runtime computes the same file node by node.

The toolkit asks for its own versions of torch and numpy. So give it a Python
environment of its own; mmgor need not be in it:

pip install rknn-toolkit2
python benchmarks/rknn_simulator.py student.onnx --platform rk3588
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rknn.api import RKNN


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('model', type=Path, help='.onnx file')
    parser.add_argument('--platform', default='rk3588', help='Rockchip chip')
    return parser.parse_args()


def simulate(path: Path, platform: str, images: NDArray) -> list[NDArray]:
    """Outputs of the simulator.

    Raises:
        RuntimeError: If the toolkit can't load, build or run the file.
    """
    rknn = RKNN(verbose=False)
    rknn.config(target_platform=platform)
    steps = (
        ('load', lambda: rknn.load_onnx(model=str(path))),
        ('build', lambda: rknn.build(do_quantization=False)),
        ('run', rknn.init_runtime),
    )
    for name, step in steps:
        if step() != 0:
            raise RuntimeError(f'rknn-toolkit2 could not {name} {path}.')
    return rknn.inference(inputs=[images], data_format='nchw')


def main() -> None:
    args = parse_args()
    path = args.model.resolve()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    )
    session = onnxruntime.InferenceSession(path, options)
    (source,) = session.get_inputs()
    images = np.random.default_rng(0).standard_normal(source.shape)
    images = images.astype(np.float32)
    wanted = session.run(None, {source.name: images})
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the toolkit leaves files where it runs
        got = simulate(path, args.platform, images)
    for end, ours, theirs in zip(session.get_outputs(), wanted, got):
        apart = np.abs(ours - theirs).mean() / ours.std()
        print(f'{end.name}: mean difference {apart:.4f} standard deviations')


if __name__ == '__main__':
    main()
