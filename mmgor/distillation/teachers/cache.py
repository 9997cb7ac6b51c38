"""Keeps what a teacher has returned for an image, on disk.

An entry is found by the teacher's own input for one image, as it is after all
augmentation, and by the teacher's weights and config. It helps where the same
input comes again: without random augmentation, or with few outcomes such as
flips.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import mmcv
import mmdet
import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmgor.distillation.recorder import DETECTIONS
from mmgor.io.atomic_write import writing
from mmgor.io.config_values import known_keys, mapping, number, text
from mmgor.version import __version__

from .fast_form import FEATURES
from .forward import HEADS

_SUFFIX = '.pt'
_CHECK = 32  # bytes of the checksum at the end of an entry
_FIELDS = ('bboxes', 'scores', 'labels')
_PARTS = (*FEATURES, *HEADS)
# After so many images, the log says how many were known.
_REPORT = 1000


class OutputCache:
    """The outputs of one teacher, one file for each image.

    Files are added until the folder is full; none is removed, since images
    come in a new order in every epoch. A damaged file counts as missing, and
    outputs that are not finite are not kept.

    Args:
        owner (str): Name of the teacher, for the log.
        folder (str | Path): The teacher has a folder of its name in it.
        max_gib (float): Most that the teacher's folder may hold, in GiB.

    Raises:
        ValueError: If ``max_gib`` is not above 0.
    """

    def __init__(
        self, owner: str, folder: str | Path, max_gib: float = 20.0
    ) -> None:
        self.owner = owner
        self.folder = Path(folder) / owner
        gib = number(f'teachers.{owner}.cache.max_gib', max_gib, '(0, inf)')
        self._most = int(gib * 2**30) // get_world_size()
        self._held: int | None = None
        self._digest = b''
        self._seen = self._known = 0

    def bind(self, model: nn.Module, settings: Sequence[str]) -> None:
        """Take over a teacher; entries of any other are not found.

        Args:
            model (nn.Module): With its weights.
            settings (Sequence[str]): Its config and how it computes.

        Raises:
            OSError: If the folder can't be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        digest = blake2b(digest_size=_CHECK)
        packages = __version__, mmdet.__version__, mmcv.__version__
        for word in (*packages, torch.__version__, *settings, repr(model)):
            digest.update(f'{word}\n'.encode())
        for key, value in model.state_dict().items():
            digest.update(key.encode())
            if isinstance(value, Tensor):
                digest.update(_bytes(value))
        self._digest = digest.digest()

    def through(
        self,
        inputs: Tensor,
        samples: list,
        names: Sequence[str],
        run: Callable[[Tensor, list], dict[str, Any]],
    ) -> dict[str, Any]:
        """The outputs for a batch; the teacher runs on unknown images only.

        Args:
            inputs (Tensor): The teacher's input, shape (N, C, H, W).
            samples (Sequence[DetDataSample]): N samples.
            names (Sequence[str]): Taps.
            run (Callable): Runs the teacher on some of the images.

        Returns:
            dict[str, Any]: Tap -> output.

        Raises:
            ValueError: If an output can't be split into images.
        """
        _check_names(names)
        images = inputs.contiguous().cpu()
        keys = [
            self._key(image, sample, names)
            for image, sample in zip(images, samples)
        ]
        found = [self._read(key) for key in keys]
        new = [i for i, entry in enumerate(found) if entry is None]
        if new:
            outputs = run(inputs[new], [samples[i] for i in new])
            for j, i in enumerate(new):
                found[i] = {
                    name: _of_image(name, outputs[name], j, len(new))
                    for name in names
                }
                if _is_finite(found[i]):  # or it would stay so for ever
                    self._write(keys[i], found[i])
        self._report(len(keys), len(keys) - len(new))
        return {
            name: _joined(name, [entry[name] for entry in found], inputs)
            for name in names
        }

    def _key(self, image: Tensor, sample: Any, names: Iterable[str]) -> str:
        digest = blake2b(self._digest, digest_size=_CHECK)
        # Detections are clipped to the image, which is not all of the input.
        shape = tuple(sample.metainfo['img_shape'][:2])
        digest.update(
            repr((tuple(image.shape), shape, *sorted(names))).encode()
        )
        digest.update(_bytes(image))
        return digest.hexdigest()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f'{key}{_SUFFIX}'

    def _read(self, key: str) -> Any:
        """The entry of a key; None if it is missing, damaged or asks for
        code to be run."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        content, checksum = content[:-_CHECK], content[-_CHECK:]
        if blake2b(content, digest_size=_CHECK).digest() != checksum:
            return None
        try:
            return torch.load(io.BytesIO(content), weights_only=True)
        except Exception:  # the unpickler raises whatever it meets
            return None

    def _write(self, key: str, entry: Any) -> None:
        if self._held is None:
            self._held = _size(self.folder) // get_world_size()
        if self._held >= self._most:
            return
        buffer = io.BytesIO()
        torch.save(entry, buffer)
        content = buffer.getvalue()
        checksum = blake2b(content, digest_size=_CHECK).digest()
        fault = 'is full'
        try:
            with writing(self._path(key)) as part:
                part.write_bytes(content + checksum)
            self._held += len(content) + _CHECK
        except OSError as error:  # such as a full disk
            fault, self._held = f'can not be written ({error})', self._most
        if self._held >= self._most:
            print_log(
                f'the cache of teacher {self.owner!r} in {self.folder} '
                f'{fault}; further images are not kept.',
                'current',
            )

    def _report(self, seen: int, known: int) -> None:
        before = self._seen // _REPORT
        self._seen, self._known = self._seen + seen, self._known + known
        if self._seen // _REPORT == before:
            return
        print_log(
            f'teacher {self.owner!r}: {self._known / self._seen:.0%} of '
            f'{self._seen} images were in {self.folder}. Random '
            'augmentation makes new images each time.',
            'current',
        )


def output_cache(owner: str, settings: Any) -> OutputCache:
    """The cache of a teacher.

    Args:
        owner (str): Name of the teacher.
        settings (dict): Arguments of :class:`OutputCache`.

    Raises:
        ValueError: If there is no folder, or a setting is unknown or wrong.
    """
    key = f'teachers.{owner}.cache'
    example = "dict(folder='work_dirs/teacher_cache', max_gib=20)"
    given = mapping(key, settings, example)
    known_keys(key, given, ['folder', 'max_gib'])
    text(f'{key}.folder', given.get('folder'), 'work_dirs/teacher_cache')
    return OutputCache(owner, **given)


def _size(folder: Path) -> int:
    """Bytes of the entries in a folder; other processes may add to it."""
    found = 0
    for file in folder.rglob(f'*{_SUFFIX}'):
        if not file.name.startswith('.'):  # the temporary file of a writer
            found += file.stat().st_size
    return found


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if name != DETECTIONS and name.partition('.')[0] not in _PARTS:
            raise ValueError(
                f'a cache holds what {", ".join(_PARTS)} and the detections '
                f'give, got the tap {name!r}, whose first axis may not be '
                'that of the images. Remove `cache` of this teacher.'
            )


def _bytes(tensor: Tensor) -> Any:
    """The memory of a tensor, without a copy on the CPU."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data


def _of_image(name: str, output: Any, index: int, count: int) -> Any:
    """An image's part of an output, in tuples, lists and dicts."""
    if name == DETECTIONS:
        found = output[index]
        return {key: getattr(found, key).cpu() for key in _FIELDS}
    if isinstance(output, Tensor):
        if len(output) != count:
            raise ValueError(
                f'the tap {name!r} returns a tensor of shape '
                f'{tuple(output.shape)} for {count} images; expected one '
                'entry per image. Remove `cache` of this teacher.'
            )
        return output[index : index + 1].cpu().clone()
    if output is None:
        return None
    if type(output) in (tuple, list):
        return type(output)(_of_image(name, x, index, count) for x in output)
    if type(output) is dict:
        return {k: _of_image(name, x, index, count) for k, x in output.items()}
    raise ValueError(
        f'the tap {name!r} returns a {type(output).__name__}; a cache holds '
        'tensors in tuples, lists and dicts. Remove `cache` of this teacher.'
    )


def _is_finite(entry: Any) -> bool:
    """Whether an image's outputs are finite, however nested."""
    return all(
        bool(x.isfinite().all())
        for x in tree_leaves(entry)
        if isinstance(x, Tensor)
    )


def _joined(name: str, entries: Sequence[Any], like: Tensor) -> Any:
    """The output of a batch, on the device of ``like``."""
    if name == DETECTIONS:
        return [
            InstanceData(**{k: v.to(like.device) for k, v in entry.items()})
            for entry in entries
        ]
    first = entries[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(list(entries)).to(like.device)
    if isinstance(first, dict):
        return {k: _joined(name, [e[k] for e in entries], like) for k in first}
    parts = (_joined(name, part, like) for part in zip(*entries))
    return type(first)(parts)
