"""Exported files with another description of themselves."""

import copy
import json

from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.runtime.runtime import OnnxRuntime

#: Instead of a value: nothing, another type, a wrong or a huge number.
VALUES = (
    *(None, True, 'x', -1, 0, 1.5, float('nan'), float('inf'), 10**12, 10**40),
    *([], {}, [-1], dict(type='subprocess.Popen', args=['touch', 'ran'])),
)
DELETED = object()


class Hostile:
    """Gives :class:`Detector` an exported file with other metadata, without
    writing it. The graph is opened once."""

    def __init__(self, path, monkeypatch):
        self.path = path
        self.metadata = read_metadata(path)
        self._patch = monkeypatch
        session = []
        stock = OnnxRuntime._open

        def opened(runtime, *args):
            if not session:
                stock(runtime, *args)
                session.append((runtime._session, runtime._names))
            runtime._session, runtime._names = session[0]

        monkeypatch.setattr(OnnxRuntime, '_open', opened)

    def say(self, metadata):
        """What the file says from now on: a dict or a text."""
        text = metadata
        if not isinstance(metadata, str):
            text = json.dumps(metadata)
        self._patch.setattr(
            'mmgor.deploy.description.metadata_reader._onnx_text',
            lambda _: text,
        )

    def changed(self, place, value):
        """The metadata with another value at a place, a tuple of keys."""
        metadata = copy.deepcopy(self.metadata)
        *path, last = place
        entry = metadata
        for key in path:
            entry = entry[key]
        if value is DELETED:
            del entry[last]
        else:
            entry[last] = value
        return metadata


def places(value, path=()):
    """All entries in nested dicts, and the first one of each list."""
    if isinstance(value, dict):
        items = value.items()
    else:
        items = enumerate(value[:1]) if isinstance(value, list) else ()
    for key, part in items:
        yield (*path, key)
        yield from places(part, (*path, key))
