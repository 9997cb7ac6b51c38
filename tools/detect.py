"""Detect objects in an image, a folder or a video, and draw them.

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
    parser.add_argument('model', help='exported file, such as .onnx')
    parser.add_argument('input', type=Path, help='image, folder or video')
    parser.add_argument(
        '--out', type=Path, required=True, help='folder to write to'
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='lowest score that is drawn (default: %(default)s)',
    )
    args = parser.parse_args()
    if not args.input.exists():
        parser.error(f'input not found: {args.input}')
    folder = args.input if args.input.is_dir() else args.input.parent
    if args.out.resolve() == folder.resolve():
        parser.error(f'--out {args.out} would overwrite the input')
    return args


def detect_images(detector: Detector, source: Path, out: Path) -> int:
    """Write the images of a file or folder with boxes, under their names.

    Args:
        detector (Detector): Finds the boxes.
        source (Path): Image or folder.
        out (Path): Folder to write to.

    Returns:
        int: Number of images that were skipped because they can't be used.
    """
    skipped = 0
    for path in list_images(source):
        try:
            (sample,) = detector(path)
        except ValueError as error:
            # One bad image should not stop thousands of others.
            print(f'skipped: {error}', file=sys.stderr)
            skipped += 1
            continue
        target = out / Path(path).name
        write_image(target, detector.draw(mmcv.imread(path), sample))
        print(f'{target}: {describe(detector, sample)}')
    return skipped


def detect_video(detector: Detector, source: Path, out: Path) -> None:
    """Write a video with boxes as .mp4; an error leaves no file behind."""
    target = out / f'{source.stem}.mp4'
    with writing(target) as part:
        frames = write_video(detector, source, part)
    print(f'{target}: {frames} frames')


def write_video(detector: Detector, source: Path, target: Path) -> int:
    """Write a video with boxes; returns the number of its frames."""
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
    """Make sure that all frames are on the disk: OpenCV does not say.

    Args:
        path (Path): The video.
        frames (int): Number of frames that were written.

    Raises:
        OSError: If the video has another number of frames.
    """
    written = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))
    if written != frames:
        raise OSError(
            f'{path} was not written completely: expected {frames} frames, '
            f'got {max(written, 0)}. Free space on the disk.'
        )


def describe(detector: Detector, sample: DetDataSample) -> str:
    """The number of objects per class, such as "2 person, 1 dog"."""
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
        sys.exit(f'skipped images: {skipped}, see above')


if __name__ == '__main__':
    main()
