"""Settings of the documentation site (`make docs`)."""

import importlib
import sys
from pathlib import Path

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import GoogleDocstring

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import mmgor  # noqa: E402

project = 'mmgor'
author = 'mmgor contributors'
copyright = '2026, mmgor contributors'
release = version = mmgor.__version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx.ext.napoleon',
]
# Packages that only some users have.
autodoc_mock_imports = ['timm']
templates_path = ['_templates']
exclude_patterns = ['_build', '_templates', 'plans']
html_theme = 'furo'
html_title = f'mmgor {release}'

myst_enable_extensions = ['dollarmath', 'colon_fence']
myst_heading_anchors = 3

autosummary_generate = True
autosummary_ignore_module_all = False
# Otherwise torch's own docstrings stand under every `forward`.
autodoc_inherit_docstrings = False
autodoc_member_order = 'bysource'
autodoc_typehints_format = 'short'
python_maximum_signature_line_length = 79
napoleon_numpy_docstring = False
napoleon_use_ivar = True

nitpick_ignore_regex = [
    # Sphinx cannot parse the signature of a dataclass with a default_factory.
    ('py:class', r'(list|dict)\[.*'),
    # Base classes of a package that is not installed here.
    ('py:class', r'timm\..*'),
]
nitpick_ignore = [
    # Napoleon writes this word of a docstring's "Args" where a type stands.
    ('py:class', 'optional'),
    # Types of other packages that a docstring names and its module does not
    # import.
    *(
        ('py:class', name)
        for name in (
            'Config',
            'Dataset',
            'DetDataSample',
            'InstanceData',
            'Message',
            'ModelT',
            'Node',
            'TensorT',
            'Module',
            'Optimizer',
            'ndarray',
            'nn.Module',
            'nn.Parameter',
            'onnxscript opset',
            'protobuf Message',
        )
    ),
]


def whole_docstring(docstring: GoogleDocstring) -> list[str]:
    """A `#:` comment as it is: Napoleon takes words before a colon for a type.

    Types are annotations in this project.
    """
    return docstring._consume_to_end()


GoogleDocstring._parse_attribute_docstring = whole_docstring


def find(name: str, module: str | None) -> object | None:
    """What a name means where it is written, or None.

    Args:
        name (str): As in the source: imported there, or a full path.
        module (str or None): The module that the name is written in.
    """
    places = [(module, name)] if module else []
    head, *rest = name.split('.')
    for length in range(len(rest), -1, -1):
        path = '.'.join([head, *rest[:length]])
        places.append((path, '.'.join(rest[length:])))
    for path, attribute in places:
        try:
            found = importlib.import_module(path)
            for part in filter(None, attribute.split('.')):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            continue
        return found
    return None


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element
) -> Element | None:
    """Resolves what Sphinx does not: names as Python understands them.

    An imported name leads to where it is defined, a package's export, too.
    Any other name counts where it is the only one of the package. Names of
    other packages are checked and get no link: their inventories are on the
    network, which the build does not use.
    """
    target = node['reftarget']
    if node['refdomain'] != 'py' or target.startswith('.'):
        return None
    found = find(target, node.get('py:module'))
    home = getattr(found, '__module__', getattr(found, '__name__', None))
    if isinstance(home, str):
        if home.split('.')[0] != 'mmgor':
            return text
        name = getattr(found, '__qualname__', None)
        target = f'{home}.{name}' if name else home
    node['refspecific'] = True  # also found by the end of its path
    domain = env.get_domain('py')
    return domain.resolve_xref(
        env, node['refdoc'], app.builder, 'obj', target, node, text
    )


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect('missing-reference', resolve)
