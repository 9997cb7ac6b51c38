"""Exported files whose metadata is replaced by hostile metadata."""

import copy
import json

from mmgor.deploy.description.metadata_reader import READERS, read_metadata
from mmgor.deploy.runtime.runtime import OnnxRuntime

#: Replaces a value: None, other types, wrong and huge numbers.
VALUES = (
    *(None, True, 'x', -1, 0, 1.5, float('nan'), float('inf'), 10**12, 10**40),
    *([], {}, [-1], dict(type='subprocess.Popen', args=['touch', 'ran'])),
)
DELETED = object()


class Hostile:
    """Gives :class:`.Detector` an exported file with other metadata.

    Nothing is written, and the graph is opened only once.

    Args:
        path (Path): An exported ``.onnx`` file.
        monkeypatch (MonkeyPatch): Replaces the reader of the text.
    """

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
        """Let the file have this metadata (a dict or text) from now on."""
        text = metadata
        if not isinstance(metadata, str):
            text = json.dumps(metadata)
        self._patch.setitem(READERS, '.onnx', lambda _: text)

    def changed(self, place, value):
        """A copy of the metadata with another value at a place.

        Args:
            place (tuple): Keys and indices that lead to the value.
            value (Any): The new value, or DELETED.
        """
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
    """Places of all entries of dicts, and of the first one of each list."""
    if isinstance(value, dict):
        items = value.items()
    else:
        items = enumerate(value[:1]) if isinstance(value, list) else ()
    for key, entry in items:
        yield (*path, key)
        yield from places(entry, (*path, key))
