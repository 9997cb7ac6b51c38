"""Draw what an exported detector finds in a picture, a folder or a video.

python tools/detect.py student.onnx street.jpg --out detections
"""

import argparse
import sys
from pathlib import Path

import _common  # noqa: F401
import cv2
import mmcv
from mmdet.structures import DetDataSample
from mmdet.utils.misc import IMG_EXTENSIONS

from mmgor.deploy.runtime.detector import Detector
from mmgor.deploy.runtime.images import list_images, open_video
from mmgor.io.atomic_write import write_image, writing


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('model', help='.onnx or .xml of tools/export.py')
    parser.add_argument('input', type=Path, help='picture, folder or video')
    parser.add_argument(
        '--out', type=Path, required=True, help='folder to write to'
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='lowest score shown'
    )
    args = parser.parse_args()
    if not args.input.exists():
        parser.error(f'input not found: {args.input}')
    folder = args.input if args.input.is_dir() else args.input.parent
    if args.out.resolve() == folder.resolve():
        parser.error(f'--out {args.out} would overwrite the input')
    return args


def detect_images(detector: Detector, source: Path, out: Path) -> int:
    """Write every picture of ``source`` with its boxes, under its name; give
    the number of those that can't be used.
    """
    skipped = 0
    for path in list_images(source):
        try:
            (sample,) = detector(path)
        except ValueError as error:
            # One of thousands should not stop the others.
            print(f'skipped: {error}', file=sys.stderr)
            skipped += 1
            continue
        target = out / Path(path).name
        write_image(target, detector.draw(mmcv.imread(path), sample))
        print(f'{target}: {describe(detector, sample)}')
    return skipped


def detect_video(detector: Detector, source: Path, out: Path) -> None:
    """Write the video with boxes as .mp4; nothing half-written stays."""
    target = out / f'{source.stem}.mp4'
    with writing(target) as part:
        frames = write_video(detector, source, part)
    print(f'{target}: {frames} frames')


def write_video(detector: Detector, source: Path, target: Path) -> int:
    """Write the video with boxes; give the number of its frames."""
    video = open_video(source)
    codec = cv2.VideoWriter_fourcc(*'mp4v')
    writer = cv2.VideoWriter(str(target), codec, video.fps, video.resolution)
    if not writer.isOpened():
        raise RuntimeError(f'OpenCV can not write {target}.')
    frames = 0
    try:
        for frame, sample in detector.video(source):
            writer.write(detector.draw(frame, sample))
            frames += 1
    finally:
        writer.release()
    check_video(target, frames)
    return frames


def check_video(path: Path, frames: int) -> None:
    """OpenCV's writer says nothing of frames that did not get to the disk.

    Raises:
        OSError: If there are others than ``frames``.
    """
    written = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))
    if written != frames:
        raise OSError(
            f'{path} was not written as a whole: expected {frames} frames, '
            f'got {max(written, 0)}. Make room on the disk.'
        )


def describe(detector: Detector, sample: DetDataSample) -> str:
    """As in "2 person, 1 dog"."""
    labels = sample.pred_instances.labels.tolist()
    counts = [
        f'{labels.count(label)} {detector.classes[label]}'
        for label in sorted(set(labels))
    ]
    return ', '.join(counts) or 'nothing'


def main() -> None:
    args = parse_args()
    detector = Detector(args.model, score_thr=args.score_thr)
    single = args.input.is_file()
    if single and args.input.suffix.lower() not in IMG_EXTENSIONS:
        detect_video(detector, args.input, args.out)
        return
    skipped = detect_images(detector, args.input, args.out)
    if skipped:
        sys.exit(f'skipped pictures: {skipped}, see above')


if __name__ == '__main__':
    main()
