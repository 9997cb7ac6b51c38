"""benchmarks/operating_points.py by hand."""

import json
import sys

import operating_points
import pytest

BOX, OTHER, FAR = [0, 0, 10, 10], [20, 20, 10, 10], [40, 40, 10, 10]


def write(folder):
    """Two images, one empty; three boxes of two classes."""
    labels = [(1, 1, BOX, 0), (1, 1, OTHER, 0), (1, 2, BOX, 0), (1, 1, FAR, 1)]
    truth = dict(
        images=[dict(id=1), dict(id=2)],
        categories=[dict(id=1), dict(id=2)],
        annotations=[
            dict(
                id=i + 1,
                image_id=image,
                category_id=category,
                bbox=box,
                area=100,
                iscrowd=crowd,
            )
            for i, (image, category, box, crowd) in enumerate(labels)
        ],
    )
    found = [
        (1, 1, BOX, 0.9),
        (1, 1, BOX, 0.8),  # twice
        (1, 2, OTHER, 0.7),  # not of this class
        (1, 1, FAR, 0.6),  # in a crowd: does not count
        (1, 2, BOX, 0.4),
        (2, 1, BOX, 0.35),  # an empty image
        (1, 1, [20, 20, 10, 4], 0.2),  # IoU 0.4
    ]
    results = [
        dict(image_id=i, category_id=c, bbox=b, score=s)
        for i, c, b, s in found
    ]
    (folder / 'eval.json').write_text(json.dumps(truth))
    (folder / 'a.bbox.json').write_text(json.dumps(results))
    return folder / 'eval.json', folder / 'a.bbox.json'


def test_operating_points_by_hand(tmp_path):
    matches = operating_points.match(*write(tmp_path))
    point = operating_points.operating_point
    assert point(matches, 0.5) == (1.5, 1 / 3, 1 / 3, 1 / 3)
    assert point(matches, 0.3) == (2.5, 2 / 5, 2 / 3, 4 / 8)
    assert point(matches, 0.1) == (3.0, 2 / 6, 2 / 3, 4 / 9)
    assert point(matches, 0.95) == (0.0, 0.0, 0.0, 0.0)


def test_the_table(tmp_path, monkeypatch, capsys):
    truth, results = write(tmp_path)
    argv = ['x', str(truth), str(results), str(results), '--thresholds', '0.3']
    monkeypatch.setattr(sys, 'argv', argv)
    operating_points.main()
    assert capsys.readouterr().out.splitlines()[-1] == (
        '| 0.3 | 2.5 | 40.0 | 66.7 | 50.0 |'
    )
    monkeypatch.setattr(sys, 'argv', ['x', str(truth), 'gone.json'])
    with pytest.raises(SystemExit):
        operating_points.main()
    assert 'expected a JSON file, got gone.json' in capsys.readouterr().err
