"""Findings are shown, counted, and made of exceptions."""

from mmgor.doctor.findings import ERROR, OK, WARNING, Finding, guarded, summary


def test_a_finding_is_one_line_and_what_to_type():
    assert str(Finding(OK, 'torch', '2.13')) == 'ok       torch: 2.13'
    shown = str(Finding(ERROR, 'mmcv', 'broken', 'pip install mmcv'))
    assert shown.splitlines() == [
        'error    mmcv: broken',
        '         -> pip install mmcv',
    ]


def test_a_check_that_raises_is_an_error():
    def check():
        yield Finding(OK, 'a', 'b')
        raise KeyError('c')

    first, second = guarded('disk', check, 'free some')
    assert first.status == OK
    assert second == Finding(ERROR, 'disk', "KeyError: 'c'", 'free some')


def test_summary():
    statuses = [OK, WARNING, WARNING]
    findings = [Finding(status, '', '') for status in statuses]
    assert summary(findings) == '3 checks: 1 ok, 2 warnings, 0 errors'
