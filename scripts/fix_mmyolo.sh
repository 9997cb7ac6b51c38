#!/usr/bin/env bash
# fix_mmyolo.sh VENV
# mmyolo 0.6.0 came out before mmcv 2.1 and refuses it by a number in a file. All
# of it that tests/mmyolo runs works with mmcv 2.1: raise the limit to mmdet 3.3's.
set -euo pipefail
python="$1/bin/python"
limit=mmcv_maximum_version

file=$("$python" -c 'from importlib.util import find_spec
print(find_spec("mmyolo").origin)')
sed -i "s/^$limit = '2.1.0'$/$limit = '2.2.0'/" "$file"
if ! grep -q "^$limit = '2.2.0'$" "$file"; then
    echo "expected $limit = '2.1.0' in $file of mmyolo 0.6.0, found:" >&2
    grep "$limit =" "$file" >&2 || true
    exit 1
fi
"$python" -W ignore -c 'import mmyolo; print("mmyolo", mmyolo.__version__)'
