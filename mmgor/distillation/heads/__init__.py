"""KD heads: where a teacher's output meets the student's."""
