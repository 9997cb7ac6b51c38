"""Draw the shapes of the generated scenes as masks."""

import cv2
import numpy as np

CLASSES = ('disc', 'ring', 'box', 'triangle', 'cross')


def shape_mask(rng: np.random.Generator, name: str, size: int) -> np.ndarray:
    """One rotated shape somewhere in the image.

    Args:
        rng (np.random.Generator): Chooses place, size, stretch and angle.
        name (str): One of ``CLASSES``.
        size (int): Side of the image in pixels.

    Returns:
        np.ndarray: bool of shape (size, size).
    """
    radius = size * rng.uniform(0.1, 0.25)
    centre = rng.uniform(radius, size - radius, 2)
    stretch = rng.uniform(0.7, 1.0)
    angle = rng.uniform(0, 2 * np.pi)
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(
        mask, [_placed(_outline(name), centre, radius, stretch, angle)], 1
    )
    if name == 'ring':
        hole = _placed(_outline('disc') * 0.55, centre, radius, stretch, angle)
        cv2.fillPoly(mask, [hole], 0)
    return mask.astype(bool)


def _outline(name: str) -> np.ndarray:
    """Corners of a shape in the unit circle, shape (n, 2)."""
    if name in ('disc', 'ring'):
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        return np.stack([np.cos(turn), np.sin(turn)], 1)
    if name == 'box':
        return 0.75 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    if name == 'triangle':
        turn = np.array([0, 2, 4]) * np.pi / 3
        return np.stack([np.cos(turn), np.sin(turn)], 1)
    arm = 0.3
    quarter = np.array([[arm, arm], [arm, 1], [-arm, 1]])
    corners, rotation = [quarter], np.array([[0, 1], [-1, 0]])
    for _ in range(3):
        corners.append(corners[-1] @ rotation)
    return np.concatenate(corners)


def _placed(
    outline: np.ndarray,
    centre: np.ndarray,
    radius: float,
    stretch: float,
    angle: float,
) -> np.ndarray:
    """Stretch, rotate, scale and move corners; integers, as OpenCV needs."""
    turn = np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )
    corners = outline * [1, stretch] @ turn * radius + centre
    return corners.round().astype(np.int32)
