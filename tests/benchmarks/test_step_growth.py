"""benchmarks/step_growth.py: students with no to three teachers."""

import step_growth


def test_students_of_each_number_of_teachers():
    for count in range(4):
        model = step_growth.with_teachers(count).model
        heads = model.get('kd_heads', {})
        assert len(model.get('teachers', {})) == count
        assert len(heads) == (count and count + 1)  # scores, and boxes of each
        named = {name for head in heads.values() for name in listed(head)}
        assert named == set(model.get('teachers', {}))


def listed(head):
    return [head.teacher] if isinstance(head.teacher, str) else head.teacher
