"""Installs mmgor into an existing MM* environment.

No MM* package and no torch is listed: as in the MM* packages themselves, the
environment decides (two dependency lines share the import names, and asking
for torch would pull another build). ``mmgor.compat`` checks on import. cv2
comes with MM*; naming opencv-python would add it next to a headless one.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r"__version__ = '(.+)'", (HERE / 'mmgor' / 'version.py').read_text()
).group(1)

setup(
    name='mmgor',
    version=VERSION,
    description='4-bit detectors that learn from larger ones: QAT, '
    'distillation and learned loss weights for MMDetection',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    # Puts the checkout itself on the path of an editable install: the finder
    # that setuptools writes otherwise comes after a folder named mmgor, such
    # as the checkout seen from the folder above, which Python takes for a
    # package without code.
    package_dir={'': '.'},
    # The demo and the ledger run the checkout's configs and tools.
    packages=find_packages(
        include=['mmgor', 'mmgor.*'], exclude=['mmgor.demo', 'mmgor.ledger']
    ),
    python_requires='>=3.10,<3.13',
    install_requires=['numpy', 'matplotlib', 'packaging'],
    extras_require=dict(
        deploy=['onnx>=1.17', 'onnxruntime>=1.20', 'onnxscript', 'openvino']
    ),
)
