"""Names the nodes of an ONNX graph after the modules that they come from."""

import ast
from collections import Counter
from typing import Any

# Where torch's exporter notes the path of the module that called an operator.
_SCOPES = 'pkg.torch.onnx.name_scopes'
# Where ``Network`` has the detector.
_NETWORK = 'detector.'


def name_nodes(graph: Any) -> None:
    """Name every node '<path of its module>/<operator>', once each.

    Args:
        graph (onnx_ir.Graph): A trace; changed in place.
    """
    seen: Counter[str] = Counter()
    for node in graph:
        name = f'{module_of(node)}/{node.op_type}'
        seen[name] += 1
        node.name = f'{name}_{seen[name]}' if seen[name] > 1 else name


def module_of(node: Any) -> str:
    """Path of the module that a node of a trace comes from; that of a
    neighbour for nodes that were added later."""
    before = [value.producer() for value in node.inputs if value is not None]
    after = [use.node for value in node.outputs for use in value.uses()]
    for near in (node, *before, *after):
        scopes = near.metadata_props.get(_SCOPES) if near else None
        if scopes:
            # The last entry is the operator itself.
            path = str(ast.literal_eval(scopes)[-2])
            return path.removeprefix(_NETWORK)
    return ''
