"""Which boxes and images of a COCO file mmdet's CocoDataset trains on.

It leaves out the others silently. The rules are those of its
``parse_data_info`` and ``filter_data`` (mmdet 3.3).
"""

from collections import Counter
from collections.abc import Collection
from typing import Any

USED = 'used'
CROWD = 'a crowd (iscrowd=1)'
OTHER_CLASS = 'of a category that is not among the classes'
IGNORED = 'marked to be ignored'
NO_AREA = "without the key 'area'"
#: Reasons that occur in good files; any other is worth a warning.
USUAL = {USED, CROWD, OTHER_CLASS, IGNORED}


def trained_categories(content: dict, classes: Collection[str]) -> set:
    """Ids of the categories whose names are among the classes."""
    categories = content['categories']
    return {c['id'] for c in categories if c['name'] in classes}


def box_fates(content: dict, classes: Collection[str]) -> Counter[str]:
    """Count the boxes that are used, and those left out for each reason.

    Args:
        content (dict): A COCO file whose entries were checked.
        classes (Collection[str]): Names of the classes to train.

    Returns:
        Counter[str]: Number of boxes by ``USED`` or a reason.
    """
    images = {image['id']: image for image in content['images']}
    known = {category['id'] for category in content['categories']}
    trained = trained_categories(content, classes)
    return Counter(
        _fate(box, images.get(box['image_id']), known, trained)
        for box in content.get('annotations') or []
    )


def _fate(box: dict, image: dict | None, known: set, trained: set) -> str:
    if image is None:
        return 'of an image that is not in the file'
    if box.get('ignore'):
        return IGNORED
    left, top, width, height = box['bbox']
    across = _overlap(left, width, image['width'])
    if not (across and _overlap(top, height, image['height'])):
        return 'outside its image, or without an area'
    if 'area' not in box:
        return NO_AREA
    if not (box['area'] > 0 and width >= 1 and height >= 1):
        return 'below 1 pixel wide or high, or of area 0'
    if box['category_id'] not in known:
        return 'of a category_id that is not in the file'
    if box['category_id'] not in trained:
        return OTHER_CLASS
    return CROWD if box.get('iscrowd') else USED


def _overlap(start: float, length: float, limit: float) -> bool:
    """Whether a box covers a part of an axis; False for NaN, too."""
    return min(start + length, limit) > max(start, 0)


def kept_images(
    content: dict, classes: Collection[str], filter_cfg: Any
) -> list[dict]:
    """Images that remain after a data set's ``filter_cfg``.

    Args:
        content (dict): See :func:`box_fates`.
        classes (Collection[str]): See :func:`box_fates`.
        filter_cfg (dict, optional): With ``min_size`` (pixels) and
            ``filter_empty_gt``.

    Returns:
        list[dict]: Entries of ``images``.
    """
    smallest = (filter_cfg or {}).get('min_size', 0)
    filtered = (filter_cfg or {}).get('filter_empty_gt', False)
    trained = trained_categories(content, classes)
    boxes = content.get('annotations') or []
    labelled = {b['image_id'] for b in boxes if b['category_id'] in trained}
    return [
        image
        for image in content['images']
        if min(image['width'], image['height']) >= smallest
        and (image['id'] in labelled or not filtered)
    ]
