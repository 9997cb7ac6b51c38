import copy

from mmgor.deploy.litert.shared_constants import share_constants


def test_equal_constants_are_stored_once(model):
    graph = model.subgraphs[0]
    tensor = max(
        graph.tensors,
        key=lambda t: len(
            model.buffers[t.buffer].data
            if model.buffers[t.buffer].data is not None
            else []
        ),
    )
    for _ in range(2):
        twin = copy.deepcopy(tensor)
        twin.buffer = len(model.buffers)
        graph.tensors.append(twin)
        model.buffers.append(copy.deepcopy(model.buffers[tensor.buffer]))
    before = share_constants(copy.deepcopy(model))
    assert share_constants(model) == before >= 2
    assert {t.buffer for t in graph.tensors[-2:]} == {tensor.buffer}
    assert model.buffers[-1].data is None
    assert share_constants(model) == 0
