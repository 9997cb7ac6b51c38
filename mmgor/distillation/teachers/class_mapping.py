"""Classes of student and teacher: which is which.

Student and teacher may list classes in another order, or have only some in
common. Names are matched. A *class index* is the result: for each of the
student's K classes its position in the teacher's list, or :data:`UNKNOWN`.
"""

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

#: Entry of a class index where the teacher does not know the class.
UNKNOWN = -1


def class_index(
    student: Sequence[str], teacher: Sequence[str], teacher_name: str
) -> list[int]:
    """Find the student's classes in the teacher's list, by name.

    Args:
        student (Sequence[str]): Names of the student's K classes.
        teacher (Sequence[str]): Names of the teacher's classes, in the order
            of its outputs.
        teacher_name (str): Name of the teacher, for the message.

    Returns:
        list[int]: K positions in the teacher's list; -1 for a class that the
        teacher does not know.

    Raises:
        ValueError: If no class is in both lists, or a list has one twice.

    Example:
        >>> class_index(['cat', 'dog', 'bus'], ['dog', 'cat'], 'r101')
        [1, 0, -1]
    """
    _check_distinct(student, "the student's data")
    _check_distinct(teacher, f'teacher {teacher_name!r}')
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


def _check_distinct(names: Sequence[str], owner: str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(
            f'classes {repeated} appear more than once in the list of '
            f'{owner}, {list(names)[:10]}; expected distinct names. Correct '
            'its classes=[...].'
        )


def check_class_index(
    index: Sequence[int], outputs: int, teacher_outputs: int | None, name: str
) -> None:
    """Make sure that a class index fits the tapped heads.

    Args:
        index (Sequence[int]): From :func:`class_index`.
        outputs (int): Number of classes of the student's tapped head.
        teacher_outputs (int, optional): Number of classes of the teacher's
            tapped head; None if unknown.
        name (str): Name of the teacher, for the message.

    Raises:
        ValueError: If the student's head does not have one output per class,
            or the index names an output that the teacher's head lacks.
    """
    if len(index) != outputs:
        raise ValueError(
            f"the student's tapped head has {outputs} classes, its training "
            f'data has {len(index)}; expected the same number. Set '
            'num_classes of that head, or metainfo=dict(classes=[...]) of '
            'the dataset.'
        )
    if teacher_outputs is not None and max(index) >= teacher_outputs:
        raise ValueError(
            f'the tapped head of teacher {name!r} has {teacher_outputs} '
            'classes, but a class of the student is at position '
            f"{max(index)} of the teacher's class list; expected a head with "
            'one output per name. Set teacher_tap to its box head, or '
            f'teachers=dict({name}=dict(classes=[...], ...)).'
        )


def take_classes(x: Tensor, index: Tensor) -> Tensor:
    """Bring a teacher's values into the student's class order.

    Args:
        x (Tensor): Values of the teacher's classes, shape (..., K_t).
        index (Tensor): Class index, shape (K, ).

    Returns:
        Tensor: Shape (..., K). Values of unknown classes are arbitrary; mask
        them.
    """
    return x.index_select(-1, index.clamp(min=0))


def to_student_labels(labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Translate a teacher's labels into the student's.

    Args:
        labels (Tensor): Positions in the teacher's list, shape (n, ).
        index (Tensor): Class index, shape (K, ).

    Returns:
        tuple[Tensor, Tensor]: Positions in the student's list, shape (n, ),
        and whether the student has the class, bool, shape (n, ).
    """
    same = labels[:, None] == index
    return same.long().argmax(1), same.any(1)
