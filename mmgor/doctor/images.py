"""Checks of a data set's image files."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import mmcv

from mmgor.datasets.image_files import READ, ImageFile, look_at, spread
from mmgor.io.config_reader import type_name

from .findings import ERROR, OK, WARNING, Finding

#: Images of each annotation file that are decoded. Formats other than JPEG and
#: PNG, and JPEG files of more pixels than Pillow opens, are looked at in no
#: other way.
DECODED = 16
_SHOWN = 3


def image_findings(
    where: str, files: list[str], content: dict, colour: bool = True
) -> Iterator[Finding]:
    """Whether image files exist, are complete, have their size and decode.

    Args:
        where (str): What the findings are about.
        files (list[str]): Paths, one for each entry of ``images``.
        content (dict): A COCO file.
        colour (bool): Whether they are loaded as three channels of 8 bits.
    """
    missing = {file: None for file in files if not os.path.isfile(file)}
    if missing:
        yield Finding(
            ERROR,
            where,
            f'{len(missing)} of {len(files)} image files are missing, e.g. '
            f'{next(iter(missing))}',
            "correct data_root and data_prefix=dict(img='images/')",
        )
    there = [
        (file, image)
        for file, image in zip(files, content['images'])
        if file not in missing
    ]
    read = [(*pair, look_at(pair[0])) for pair in spread(there, READ)]
    sample = {file for file, *_ in spread(read, DECODED)}
    known = [
        file
        for file, _, found in read
        if found.fault or found.size or file in sample
    ]
    unknown = len(read) - len(known)
    faults = [
        fault
        for file, image, found in read
        if (fault := _fault(file, image, found, file in sample))
    ]
    if faults:
        more = len(faults) - _SHOWN
        yield Finding(
            ERROR,
            where,
            f'{len(faults)} of {len(known)} image files: '
            + '; '.join(faults[:_SHOWN])
            + (f'; and {more} more' if more > 0 else ''),
            'copy the images again, or remove them from the file; if they '
            f'were rotated or resized, make {where.split(" ", 1)[-1]} again',
        )
    elif known:
        yield Finding(
            OK,
            where,
            f'{len(known)} image files are complete and have their size; '
            f'{len(sample)} of them were decoded'
            + (f'; {unknown} others were not looked at' if unknown else ''),
        )
    if colour:
        yield from _lost(where, read)


def in_colour(dataset: Any) -> bool:
    """Whether a data set loads its images as three channels of 8 bits.

    Args:
        dataset (dict): Its config.
    """
    steps = [s for s in dataset.get('pipeline') or [] if isinstance(s, dict)]
    loaders = [s for s in steps if type_name(s) == 'LoadImageFromFile']
    return any(s.get('color_type', 'color') == 'color' for s in loaders)


def _fault(file: str, image: dict, found: ImageFile, decode: bool) -> str:
    """Why an image does not fit its entry; '' if nothing speaks against it.

    Args:
        file (str): The image.
        image (dict): Its entry.
        found (ImageFile): What it is like.
        decode (bool): Whether all of it is looked at.
    """
    if found.fault:
        return f'{file} {found.fault}'
    size = found.size
    if decode:
        try:
            pixels = mmcv.imread(file)
        except (OSError, ValueError, cv2.error) as error:
            return f'{file} does not open ({error})'
        if pixels is None:
            return f'{file} does not open as an image'
        size = pixels.shape[1], pixels.shape[0]
    wanted = image['width'], image['height']
    if size is not None and size != wanted:
        return f'{file} is {size} pixels wide and high, expected {wanted}'
    return ''


def _lost(
    where: str, read: Sequence[tuple[str, dict, ImageFile]]
) -> Iterator[Finding]:
    """What mmdet drops of images that are no colour images of 8 bits."""
    counts = Counter(found.lost for *_, found in read if found.lost)
    for lost, count in counts.items():
        example = next(file for file, _, x in read if x.lost == lost)
        yield Finding(
            WARNING,
            where,
            f'{count} of {len(read)} images lose {lost}, e.g. {example}: '
            'mmdet loads three channels of 8 bits',
            'save them as images of 8 bits without alpha that look as they '
            'should',
        )
