import gc

import pytest
import torch

from mmgor.deploy.description.pte import pack_pte
from mmgor.deploy.executorch.conversion import convert
from mmgor.deploy.runtime.runtime import open_runtime
from tests.support.frozen import SmallNetwork
from tests.support.metadata import small_metadata

pytest.importorskip('executorch')


@pytest.fixture(scope='module')
def program():
    torch.manual_seed(0)
    network = SmallNetwork(unit=1.07).eval()
    return convert(network, torch.randn(1, 3, 16, 24))[0]


def write(program, folder, **changes):
    path = folder / 'file.pte'
    path.write_bytes(pack_pte(program, small_metadata(**changes)))
    return path


def test_a_file_runs_and_leaves_earlier_results(program, tmp_path):
    runtime = open_runtime(write(program, tmp_path), threads=1)
    gc.collect()  # the program and its bytes are kept
    images = torch.randn(1, 3, 16, 24)
    (first,) = runtime(images)
    before = first.clone()
    (other,) = runtime(torch.zeros(1, 3, 16, 24))
    assert (other != before).any()
    torch.testing.assert_close(first, before, rtol=0, atol=0)
    torch.testing.assert_close(runtime(images)[0], before, rtol=0, atol=0)


@pytest.mark.parametrize(
    'changes',
    [
        dict(outputs=['a', 'b']),
        dict(
            input=dict(
                name='images',
                batch=1,
                channels=3,
                height=16,
                width=32,
                divisor=8,
            )
        ),
    ],
    ids=['outputs', 'input'],
)
def test_metadata_has_to_fit_the_program(program, tmp_path, changes):
    path = write(program, tmp_path, **changes)
    with pytest.raises(ValueError, match='can not be used: its metadata'):
        open_runtime(path)


def test_half_a_program_is_refused(program, tmp_path):
    path = write(program[: len(program) // 2], tmp_path)
    with pytest.raises(ValueError, match=r'could not be opened by ExecuTorch'):
        open_runtime(path)
