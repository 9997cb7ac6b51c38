"""The page of a real, tiny training."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
from mmengine.runner import Runner

from mmgor.cli.main import main
from mmgor.datasets.shapes import CLASSES
from mmgor.hooks import ReportHook
from mmgor.training_report import write_report
from mmgor.training_report.image_section import SHOWN
from tests.support.pages import Page, widths
from tests.support.training import scene_teacher, tiny_scenes, training_config

HOSTILE = '<b onclick="x">&'


def rename(root):
    """Class names and a file name that HTML would take for its own."""
    for split in ('train', 'eval'):
        path = root / f'{split}.json'
        content = json.loads(path.read_text())
        for category in content['categories']:
            category['name'] += HOSTILE
        if split == 'eval':
            image = content['images'][0]
            file = root / 'images' / image['file_name']
            image['file_name'] = f'<i>&{file.suffix}'
            shutil.move(file, root / 'images' / image['file_name'])
        path.write_text(json.dumps(content))
    return tuple(name + HOSTILE for name in CLASSES)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Work directory of two epochs, at whose end the hook wrote the page."""
    folder = tmp_path_factory.mktemp('run')
    root = tiny_scenes(folder / 'data')
    teacher = scene_teacher(folder)
    classes = rename(root)
    teacher['classes'] = classes
    cfg = training_config(root, folder / 'work', teacher, epochs=2)
    cfg.train_cfg.val_interval = 1
    # Untrained models find nothing above the usual threshold.
    cfg.model.test_cfg.score_thr = 0.0
    cfg.model.test_cfg.max_per_img = 5
    for loader in ('train', 'val', 'test'):
        cfg[f'{loader}_dataloader'].dataset.metainfo.classes = classes
    cfg.custom_hooks.append(dict(type='ReportHook', images=4))
    Runner.from_cfg(cfg).train()
    return folder / 'work'


@pytest.fixture(scope='module')
def text(trained):
    return (trained / 'report.html').read_text()


@pytest.fixture(scope='module')
def page(text):
    return Page(text)


def test_the_numbers_are_those_of_the_log(trained, page):
    (scalars,) = trained.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    maps = [r['coco/bbox_mAP'] for r in records if 'coco/bbox_mAP' in r]
    assert len(maps) == 2
    cards = page.texts['strong']
    assert cards[:2] == [f'{100 * max(maps):.1f} %', f'{100 * maps[1]:.1f} %']
    train = [r for r in records if 'loss' in r]
    for key in ('loss', 'loss_cls', 'lr', 'grad_norm', 'gor_w_kd'):
        known = [r for r in train if key in r]
        assert known or key == 'grad_norm'
        label = 'distillation' if key == 'gor_w_kd' else key
        for r in known:
            value = float(f'{r[key]:.4g}')
            point = f'{label}: {value:g} at {r["step"]}'
            assert point in page.texts['title'], key


def test_layers_are_those_of_the_table(trained, page):
    table = json.loads((trained / 'quant_table.json').read_text())
    for row in table['layers']:
        assert row['name'] in page.texts['td']
    size = table['total']['bytes'] / 1e6
    assert f'{size:,.2f} MB' in page.texts['strong']


def test_checkpoints_and_teacher_are_compared(page):
    notes = ' '.join(page.texts['li'])
    assert 'from epoch_1.pth to epoch_2.pth' in notes
    assert 'It learned from the teacher' in notes
    assert 'Left out' not in notes


def test_images_have_all_columns(page):
    captions = page.texts['figcaption']
    assert captions.count('ground truth') == 4  # 2 worst and 2 best
    assert captions.count('student') == 4
    assert sum(c.startswith('teacher ') for c in captions) == 4
    pictures = [
        v for t, n, v in page.attributes if (t, n) == ('image', 'href')
    ]
    assert len(pictures) == len(set(pictures)) == 4 <= 2 * SHOWN
    assert all(p.startswith('data:image/jpeg;base64,') for p in pictures)


def test_names_are_escaped(page):
    assert not any(name == 'onclick' for _, name, _ in page.attributes)
    labels = [t for t in page.texts['text'] if HOSTILE in t]
    assert labels
    assert '<i>&.png' in page.texts['h4'] or '<i>&.jpg' in page.texts['h4']


def test_it_loads_nothing(text, page):
    rest = re.sub(r'data:image/jpeg;base64,[A-Za-z0-9+/=]+', '', text)
    for reference in (
        'http:',
        'https:',
        'url(',
        '@import',
        '<link',
        '<script',
    ):
        assert reference not in rest
    for _, name, value in page.attributes:
        if name in ('href', 'src'):
            assert value.startswith(('data:', '#'))


@pytest.mark.parametrize('size', [(1366, 768), (390, 844)])
def test_a_window_shows_its_whole_width(text, tmp_path, size):
    content, window = widths(text, tmp_path, *size)
    assert content <= window


def test_what_is_missing_is_said(trained, tmp_path):
    folder = tmp_path / 'copy'
    shutil.copytree(trained, folder)
    (folder / 'epoch_1.pth').unlink()
    lines = []
    out = write_report(folder, tmp_path / 'r.html', 0, tell=lines.append)
    notes = ' '.join(Page(out.read_text()).texts['li'])
    assert 'Two checkpoints of the training are needed' in notes
    assert '0 images were asked for' in notes
    assert any('epoch_2.pth' in line for line in lines)
    (folder / 'epoch_2.pth').unlink()
    # It names the file in the folder that was copied.
    (folder / 'last_checkpoint').unlink()
    write_report(folder, out, 2, tell=lines.append)
    notes = ' '.join(Page(out.read_text()).texts['li'])
    assert 'The folder has no checkpoint' in notes
    for config in folder.rglob('*.py'):
        config.unlink()
    write_report(folder, out, 2, tell=lines.append)
    notes = ' '.join(Page(out.read_text()).texts['li'])
    assert 'The config of the training was not found' in notes


def test_data_and_teachers_of_another_machine_are_left_out(trained, tmp_path):
    folder = tmp_path / 'copy'
    shutil.copytree(trained, folder)
    for config in folder.rglob('*.py'):
        text = config.read_text().replace('teacher.pth', 'gone.pth')
        config.write_text(text)
    out = write_report(folder, images=2, tell=lambda line: None)
    page = Page(out.read_text())
    assert 'gone.pth' in ' '.join(page.texts['li'])
    assert 'student' in page.texts['figcaption']
    for config in folder.rglob('*.py'):
        config.write_text(config.read_text().replace('eval.json', 'no.json'))
    out = write_report(folder, images=2, tell=lambda line: None)
    notes = Page(out.read_text()).texts['li']
    assert any('Left out (FileNotFoundError)' in note for note in notes)


def test_an_image_that_can_not_be_read_costs_one_part(trained, tmp_path):
    folder = tmp_path / 'copy'
    shutil.copytree(trained, folder)
    images = tmp_path / 'images'
    shutil.copytree(trained.parent / 'data' / 'images', images)
    for image in images.iterdir():
        image.write_bytes(b'no image')
    for config in folder.rglob('*.py'):
        text = config.read_text()
        config.write_text(text.replace("img='images/'", f"img='{images}/'"))
    out = write_report(folder, images=2, tell=lambda line: None)
    page = Page(out.read_text())
    notes = ' '.join(page.texts['li'])
    assert 'Left out (' in notes and str(images) in notes
    assert any(text.endswith(' MB') for text in page.texts['strong'])


@pytest.mark.parametrize(
    'text, reason',
    [('model = dict(', 'could not be read'), ('a = 1', 'has no model')],
)
def test_a_config_of_no_use_leaves_the_curves(trained, tmp_path, text, reason):
    folder = tmp_path / 'copy'
    shutil.copytree(trained, folder)
    for config in folder.rglob('*.py'):
        config.write_text(text)
    out = write_report(folder, images=2, tell=lambda line: None)
    page = Page(out.read_text())
    assert reason in ' '.join(page.texts['li'])
    assert page.texts['strong'][0].endswith(' %')


def test_the_command_writes_it(trained, tmp_path, capsys):
    out = tmp_path / 'page.html'
    main(['report', str(trained), '--out', str(out), '--images', '1'])
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert Page(out.read_text()).texts['h1'] == ['Training work']


@pytest.mark.parametrize(
    'words, expected',
    [
        (['no/such/folder'], 'expected the work directory of a training'),
        (['{run}', '--images', '-1'], '--images must be an integer'),
        (['{run}', '--checkpoint', 'no.pth'], 'checkpoint not found: no.pth'),
    ],
)
def test_wrong_arguments_are_refused(trained, words, expected):
    with pytest.raises(SystemExit) as error:
        main(['report', *(word.format(run=trained) for word in words)])
    assert expected in error.value.code


def test_a_page_that_fails_leaves_the_training_done(tmp_path):
    warnings = []
    logger = SimpleNamespace(warning=warnings.append)
    ReportHook().after_train(
        SimpleNamespace(work_dir=str(tmp_path), logger=logger)
    )
    (warning,) = warnings
    assert 'The training is complete; try: mmgor report' in warning
    assert not (tmp_path / 'report.html').exists()


def test_the_hook_refuses_a_negative_number():
    with pytest.raises(ValueError, match='images must be'):
        ReportHook(images=-1)
