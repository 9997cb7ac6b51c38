"""MMYOLO's scope, and the epoch that some of its losses ask for."""

import pytest
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope


@pytest.fixture(autouse=True)
def mmyolo_scope():
    init_default_scope('mmyolo')
    hub = MessageHub.get_current_instance()
    # From an epoch on, the assigner of YOLOv6 and PPYOLOE is the final one.
    hub.update_info('epoch', 50)
    hub.update_info('iter', 0)
