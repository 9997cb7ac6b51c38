"""Stands in for tools/train.py: writes what a training leaves.

``model.behaviour`` of the config says how it ends; each start is noted in the
file that FAKE_TRAIN_CALLS names.
"""

import json
import os
import sys
import time
from pathlib import Path

with open(sys.argv[1]) as file:
    config: dict = {}
    exec(file.read(), config)
folder = Path(config['work_dir'])
behaviour = config['model'].get('behaviour', 'good')
with open(os.environ['FAKE_TRAIN_CALLS'], 'a') as calls:
    calls.write('/'.join(folder.parts[-4:]) + '\n')
if behaviour == 'hang':
    time.sleep(60)
if behaviour == 'crash':
    sys.exit('first line\nout of memory')
needed = [config.get('load_from')]
for teacher in config['model'].get('teachers', {}).values():
    needed += [teacher['config'], teacher['checkpoint']]
for path in needed:
    assert path is None or Path(path).is_file(), path

seed = config['randomness']['seed']
epochs = config['train_cfg']['max_epochs']
step = dict(loss=0.5, gor_w_task=0.75, gor_w_kd=1.25 + seed, step=40)
metrics = {'coco/bbox_mAP': (40 + seed) / 100, 'coco/bbox_mAP_50': 0.6}
if behaviour == 'diverge':
    step['loss'] = float('nan')
lines = [dict(loss=float('nan'), step=10), step, dict(metrics, step=epochs)]
if behaviour == 'no box':
    lines[-1] = dict(time=0.1, step=epochs)
if behaviour == 'no labels':
    lines[-1]['coco/bbox_mAP'] = -1.0
if behaviour == 'no evaluation':
    lines.pop()
(folder / 'now' / 'vis_data').mkdir(parents=True)
text = ''.join(json.dumps(line) + '\n' for line in lines)
(folder / 'now' / 'vis_data' / 'scalars.json').write_text(text)
if behaviour != 'no checkpoint':
    (folder / f'epoch_{epochs}.pth').touch()
