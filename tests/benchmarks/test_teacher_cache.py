"""benchmarks/teacher_cache.py: every arm is timed, and the cache is filled."""

import pytest
import teacher_cache


@pytest.mark.slow
def test_every_arm_is_timed(capsys):
    sizes = ['--batch', '1', '--batches', '2', '--size', '64', '64']
    teacher_cache.main(['--rounds', '2', *sizes])
    printed = capsys.readouterr().out
    for kind in teacher_cache.KINDS:
        for place in ('teacher', 'cache', 'memory'):
            assert f'\n{kind}, {place} ' in printed
            assert f'{kind}, {place} / QAT' in printed
        # An entry of a 64 px image: logits alone are 4 x 9 x 3 x 64 bytes.
        size = printed.split(f'{kind}: ')[1].split()[0]
        assert float(size) > 0.006
