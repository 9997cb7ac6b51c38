#!/usr/bin/env bash
# fix_torchvision.sh VENV
# PyPI's torchvision is built for CUDA. Beside a torch without CUDA, its compiled
# operators do not load, and two of them (nms, qnms) then end the import. Nothing
# here calls them: treat them as it treats its other operators that did not load.
set -euo pipefail
python="$1/bin/python"

"$python" -W ignore -c 'import torchvision' 2>/dev/null && exit 0
file=$("$python" -c 'from importlib.util import find_spec
print(find_spec("torchvision").submodule_search_locations[0])')
sed -i 's/^@torch.library.register_fake("torchvision::\(q\{0,1\}nms\)")$/@register_meta("\1")/' \
    "$file/_meta_registrations.py"
"$python" -W ignore -c 'import torchvision
print("torchvision", torchvision.__version__)'
