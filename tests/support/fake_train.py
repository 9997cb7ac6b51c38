"""Stands in for tools/train.py: writes what a training leaves.

``model.behaviour`` of the config says how it ends. Each start is noted in the
file ``calls`` beside the plan, where the weights to leave are, too.
"""

import json
import shutil
import sys
import time
from pathlib import Path

with open(sys.argv[1]) as file:
    config: dict = {}
    exec(file.read(), config)
folder = Path(config['work_dir'])
bench = folder.parents[4]
behaviour = config['model'].get('behaviour', 'good')
with (bench / 'calls').open('a') as calls:
    calls.write('/'.join(folder.parts[-4:]) + '\n')
head = '11/21 10:00:00 - mmengine'
print(f'{head} - WARNING - a weight collapsed')
print(
    f'{head} - INFO - Epoch(train)  [3][20/37]  lr: 1e-3  eta: 0:01:02  '
    'time: 0.3  loss: 1.2',
    flush=True,
)
if behaviour == 'hang':
    time.sleep(120)
if behaviour == 'crash':
    sys.exit('first line\nout of memory')
needed = [config.get('load_from')]
for teacher in config['model'].get('teachers', {}).values():
    needed += [teacher['config'], teacher['checkpoint']]
for path in needed:
    assert path is None or Path(path).is_file(), path

seed = config['randomness']['seed']
epochs = config['train_cfg']['max_epochs']
nan = float('nan')
lines = [
    dict(loss=0.5, gor_w_task=9.0, gor_w_kd=9.0, epoch=epochs - 1, step=30),
    dict(loss=0.5, gor_w_task=0.5, gor_w_kd=1.0 + seed, epoch=epochs, step=40),
    # A mean over several steps, of which one was dropped.
    dict(loss=nan, gor_w_task=nan, gor_w_kd=nan, epoch=epochs, step=50),
    dict(loss=0.5, gor_w_task=1.0, gor_w_kd=1.5 + seed, epoch=epochs, step=60),
    {
        'coco/bbox_mAP': (40 + seed) / 100,
        'coco/bbox_mAP_50': 0.6,
        'step': epochs,
    },
]
if behaviour in ('no box', 'diverge'):
    lines[-1] = dict(time=0.1, data_time=0.0, step=epochs)
if behaviour == 'other metric':
    lines[-1] = {'coco/segm_mAP': 0.4, 'time': 0.1, 'step': epochs}
if behaviour == 'no ground truth':
    lines[-1]['coco/bbox_mAP'] = lines[-1]['coco/bbox_mAP_50'] = -1.0
if behaviour == 'no evaluation':
    lines.pop()
(folder / 'now' / 'vis_data').mkdir(parents=True)
text = ''.join(json.dumps(line) + '\n' for line in lines)
if behaviour == 'half a line':
    text = text[:-20]
(folder / 'now' / 'vis_data' / 'scalars.json').write_text(text)
weights = 'diverged.pth' if behaviour == 'diverge' else 'good.pth'
if behaviour == 'not weights':
    weights = 'calls'
if behaviour != 'no checkpoint':
    shutil.copy(bench / weights, folder / f'epoch_{epochs}.pth')
