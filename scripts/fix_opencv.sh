#!/usr/bin/env bash
# fix_opencv.sh VENV
# MM* packages ask for opencv-python, which needs libGL; a machine without a
# display often has none. The headless build is the same cv2 without windows.
set -euo pipefail
python="$1/bin/python"

"$python" -c 'import cv2' 2>/dev/null && exit 0
version=$("$python" -c 'from importlib.metadata import version
print(version("opencv-python"))')
echo "cv2 does not import (no libGL?): using opencv-python-headless $version"
# Both own the same files, so the one must go before the other comes.
"$python" -m pip uninstall -q -y opencv-python
"$python" -m pip install -q --no-deps --force-reinstall \
    "opencv-python-headless==$version"
"$python" -c 'import cv2'
