from mmgor.listing import listed


def test_all_entries_where_they_are_few():
    assert listed([]) == ''
    assert listed(['a', 'b'], most=2) == 'a, b'


def test_the_first_entries_and_how_many_more_there_are():
    assert listed('abcdefg') == 'a, b, c, d, e and 2 more'
    assert listed(['a x', 'b y', 'c'], '; ', 2) == 'a x; b y; and 1 more'
