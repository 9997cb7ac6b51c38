"""What logit KD has to know of a dense head, and whether outputs fit it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class HeadSpec:
    """How a dense head classifies.

    Attributes:
        use_sigmoid (bool): Binary scores a class, or one softmax.
        num_classes (int): Class channels an anchor; with the background
            class, which mmdet puts last, where it is a softmax.
        activated (bool): Outputs are probabilities, not logits (TOOD).
    """

    use_sigmoid: bool
    num_classes: int
    activated: bool = False

    def __str__(self) -> str:
        kind = 'sigmoid' if self.use_sigmoid else 'softmax'
        return f'{kind} head with {self.num_classes} class outputs'


def head_spec(head: nn.Module, allow_activated: bool = False) -> HeadSpec:
    """Read the facts of a head.

    Args:
        head (nn.Module): A dense mmdet head.
        allow_activated (bool): Accept a head that gives probabilities.

    Raises:
        ValueError: If it does not tell them, or gives no logits and
            ``allow_activated`` is False.
    """
    loss = getattr(head, 'loss_cls', None)
    sigmoid = getattr(
        loss, 'use_sigmoid', getattr(head, 'use_sigmoid_cls', None)
    )
    channels = getattr(
        head, 'cls_out_channels', getattr(head, 'num_classes', None)
    )
    if sigmoid is None or channels is None:
        raise ValueError(
            f'{type(head).__name__} does not tell how it classifies; expected '
            'a dense mmdet head with loss_cls.use_sigmoid and '
            'cls_out_channels. Tap another head, or use a FeatureKDHead.'
        )
    # TOOD: the loss takes probabilities, since the head already applied the
    # sigmoid; a second one would squeeze every score into 0.5 to 0.73.
    activated = bool(getattr(loss, 'activated', False))
    if activated and not allow_activated:
        raise ValueError(
            f'{type(head).__name__} gives probabilities '
            '(loss_cls.activated=True), expected a head that gives logits. '
            'Use a FeatureKDHead.'
        )
    return HeadSpec(bool(sigmoid), int(channels), activated)


def anchors_per_level(head: nn.Module) -> list[int] | None:
    """Anchors a location of each level; None where the head tells none."""
    generator = getattr(head, 'prior_generator', None)
    counts = getattr(generator, 'num_base_priors', None)
    return None if counts is None else list(counts)


def check_logits(
    levels: Sequence[Tensor],
    num_classes: int,
    anchors: Sequence[int] | None,
    output_index: int,
) -> None:
    """Make sure that a head's output holds class logits.

    Box deltas have a multiple of K channels often enough to be taken for
    logits without a word.

    Args:
        levels (Sequence[Tensor]): One a level, shape (N, A * K, H, W).
        num_classes (int): K.
        anchors (Sequence[int], optional): A of each level, where known.
        output_index (int): For the message.

    Raises:
        ValueError: If the channels do not fit.
    """
    for level, x in enumerate(levels):
        channels = x.shape[1]
        if anchors is None or level >= len(anchors):
            fits = channels % num_classes == 0
            expected = f'a multiple of {num_classes} classes'
        else:
            fits = channels == anchors[level] * num_classes
            expected = f'{anchors[level]} anchors x {num_classes} classes'
        if not fits:
            raise ValueError(
                f'output_index={output_index} holds no class logits: level '
                f'{level} has {channels} channels, expected {expected}. Most '
                'mmdet heads give class logits first, output_index=0; where '
                'this one does not, use a ScoreKDHead.'
            )


def check_same_levels(
    student: Sequence[Tensor], teacher: Sequence[Tensor], teacher_name: str
) -> None:
    """Make sure that logits of one layout can be compared level by level.

    Raises:
        ValueError: If the number of levels differs.
    """
    if len(student) != len(teacher):
        raise ValueError(
            f"the student's head has {len(student)} levels, that of teacher "
            f'{teacher_name!r} {len(teacher)}; logit KD needs the same '
            'pyramid. Use a ScoreKDHead, which matches levels by stride.'
        )
