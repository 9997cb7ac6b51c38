"""MMYOLO's table of labels as samples, and back."""

import torch
from mmdet.structures import DetDataSample

from mmgor.distillation.batch_samples import as_samples, as_table

META = dict(batch_input_shape=(64, 96))


def test_a_list_is_returned_as_it_is():
    samples = [DetDataSample()]
    assert as_samples(samples) is samples


def test_a_table_of_labels():
    # Image, label, box: nothing in the first of three images.
    table = torch.tensor(
        [
            [1.0, 2.0, 0.0, 1.0, 8.0, 9.0],
            [1.0, 0.0, 3.0, 3.0, 5.0, 5.0],
            [2.0, 1.0, 2.0, 4.0, 6.0, 8.0],
        ]
    )
    kept = table.clone()
    samples = as_samples(dict(bboxes_labels=table, img_metas=[META] * 3))
    found = [sample.gt_instances for sample in samples]
    assert [x.labels.tolist() for x in found] == [[], [2, 0], [1]]
    assert found[1].bboxes.tolist() == [[0, 1, 8, 9], [3, 3, 5, 5]]
    assert found[2].bboxes.tolist() == [[2, 4, 6, 8]]
    for sample in samples:
        assert sample.metainfo == dict(img_shape=(64, 96), **META)
    table.zero_()  # as the loss of YOLOv5 writes into it
    assert torch.equal(as_table(found), kept)


def test_a_batch_without_objects():
    table = torch.zeros(0, 6)
    samples = as_samples(dict(bboxes_labels=table, img_metas=[META] * 2))
    found = [sample.gt_instances for sample in samples]
    assert [len(x) for x in found] == [0, 0]
    assert as_table(found).shape == (0, 6)
