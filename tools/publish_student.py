"""Reduce a training checkpoint to the tensors that inference needs.

It keeps the student's tensors (weights, scales, ranges; the averaged ones if
EMA was on) and the class names. The result loads anywhere with
``torch.load(weights_only=True)``, even without mmgor.

python tools/publish_student.py work_dirs/NAME/epoch_12.pth student.pth
"""

import argparse
from io import BytesIO
from pathlib import Path
from typing import Any

import _common  # noqa: F401
import torch

from mmgor import __version__
from mmgor.io.checkpoint import check_sound, strip_training_keys
from mmgor.io.checkpoint_reader import named_weights, read_checkpoint
from mmgor.io.checksums import write_checkpoint
from mmgor.io.class_names import checkpoint_classes


def publish(source: Path, target: Path) -> dict[str, int]:
    """Write the reduced checkpoint.

    Args:
        source (Path): Training checkpoint.
        target (Path): The new file.

    Returns:
        dict[str, int]: Number of ``kept`` and ``dropped`` keys, and
        ``source_bytes`` and ``target_bytes`` of the files.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        ValueError: If ``source`` can't be read, has no weights, a weight
            that is not finite or an unexpected meta, or if both paths are
            the same file.
    """
    if not source.is_file():
        raise FileNotFoundError(f'checkpoint not found: {source}')
    if source.resolve() == target.resolve():
        raise ValueError(f'{target} is the input; give another output file.')
    checkpoint = read_checkpoint(source)
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise ValueError(
            f'{source} has no state_dict; expected a checkpoint that '
            'tools/train.py wrote.'
        )
    state_dict = strip_training_keys(named_weights(source, checkpoint))
    _check_tensors(source, state_dict)
    check_sound({}, state_dict, f'checkpoint {source}')
    kept = {key: value.clone() for key, value in state_dict.items()}
    meta: dict[str, Any] = dict(mmgor_version=__version__)
    classes = checkpoint_classes(checkpoint.get('meta') or {}, str(source))
    if classes:
        meta['dataset_meta'] = dict(classes=list(classes))
    buffer = BytesIO()  # torch's own writer does not report a full disk
    torch.save(dict(state_dict=kept, meta=meta), buffer)
    write_checkpoint(target, buffer.getvalue())
    return dict(
        kept=len(kept),
        dropped=len(checkpoint['state_dict']) - len(kept),
        source_bytes=source.stat().st_size,
        target_bytes=target.stat().st_size,
    )


def _check_tensors(source: Path, state_dict: dict[str, Any]) -> None:
    others = {
        key: type(value).__name__
        for key, value in state_dict.items()
        if not isinstance(value, torch.Tensor)
    }
    if others:
        raise ValueError(
            f'{source} has entries that are not tensors: {others}; expected '
            'a checkpoint that tools/train.py wrote.'
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', type=Path, help='training checkpoint')
    parser.add_argument('target', type=Path, help='file to write')
    args = parser.parse_args()
    done = publish(args.source, args.target)
    print(
        f'{args.target}: kept {done["kept"]} tensors, dropped '
        f'{done["dropped"]}; {done["source_bytes"] / 1e6:.2f} MB -> '
        f'{done["target_bytes"] / 1e6:.2f} MB'
    )


if __name__ == '__main__':
    main()
