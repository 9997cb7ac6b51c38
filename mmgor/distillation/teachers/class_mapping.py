"""Class lists of student and teacher, mapped by name."""

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

#: In a class index: the teacher does not know this class.
UNKNOWN = -1


def class_index(
    student: Sequence[str], teacher: Sequence[str], teacher_name: str
) -> list[int]:
    """Where the teacher has each of the student's classes.

    Args:
        student (Sequence[str]): K names.
        teacher (Sequence[str]): Its names, in the order of its outputs.
        teacher_name (str): For the message.

    Returns:
        list[int]: K positions in the teacher's list; -1 for a class that it
        lacks.

    Raises:
        ValueError: If no class is in both, or one is twice in a list.
    """
    _check_different(student, "the student's data")
    _check_different(teacher, f'teacher {teacher_name!r}')
    position = {name: i for i, name in enumerate(teacher)}
    index = [position.get(name, UNKNOWN) for name in student]
    if all(i == UNKNOWN for i in index):
        raise ValueError(
            f'teacher {teacher_name!r} knows none of the classes of the '
            f"student's data: expected some of {list(student)[:10]}, got "
            f'{list(teacher)[:10]}. If only the spelling differs, set '
            f'teachers=dict({teacher_name}=dict(classes=[...], ...)).'
        )
    return index


def _check_different(names: Sequence[str], owner: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f'classes {twice} are more than once in the list of {owner}, '
            f'{list(names)[:10]}; expected different names. Correct its '
            'classes=[...].'
        )


def check_class_index(
    index: Sequence[int], outputs: int, teacher_outputs: int | None, name: str
) -> None:
    """Make sure that a class index fits the tapped heads.

    Args:
        index (Sequence[int]): From :func:`class_index`.
        outputs (int): Classes of the student's tapped head.
        teacher_outputs (int, optional): Of the teacher's; None: unknown.
        name (str): The teacher's, for the message.

    Raises:
        ValueError: If the student's head has not one output a class, or the
            teacher's lacks one that the index names.
    """
    if len(index) != outputs:
        raise ValueError(
            f"the student's tapped head has {outputs} classes, its training "
            f'data {len(index)}; expected as many. Set num_classes of that '
            'head, or metainfo=dict(classes=[...]) in the data set.'
        )
    if teacher_outputs is not None and max(index) >= teacher_outputs:
        raise ValueError(
            f'the tapped head of teacher {name!r} has {teacher_outputs} '
            f'classes, its list of names has one at position {max(index)}; '
            'expected as many. Set teacher_tap to its box head, or '
            f'teachers=dict({name}=dict(classes=[...], ...)).'
        )


def take_classes(x: Tensor, index: Tensor) -> Tensor:
    """A teacher's values in the student's class order.

    Args:
        x (Tensor): Shape (..., K_t).
        index (Tensor): From :func:`class_index`, shape (K, ).

    Returns:
        Tensor: Shape (..., K); what stands at unknown classes means nothing.
    """
    return x.index_select(-1, index.clamp(min=0))


def to_student_labels(labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """A teacher's labels as the student's.

    Args:
        labels (Tensor): Positions in the teacher's list, shape (n, ).
        index (Tensor): From :func:`class_index`, shape (K, ).

    Returns:
        tuple[Tensor, Tensor]: Positions in the student's list, shape (n, ),
        and whether the student has the class, bool, shape (n, ).
    """
    same = labels[:, None] == index
    return same.long().argmax(1), same.any(1)
