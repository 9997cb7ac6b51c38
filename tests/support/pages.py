"""Reads HTML pages, and opens them in a browser where there is one."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

BROWSERS = (
    'chromium-headless-shell',
    'chromium',
    'chromium-browser',
    'google-chrome',
)
VOID = {'meta'}


class Page(HTMLParser):
    """Text of each element kind; every tag must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *item) for item in attributes]
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append('')

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open:
            self.texts[self.open[-1]][-1] += text


def widths(page, folder, width, height):
    """Width of a page's content, and of the window that shows it, in CSS
    pixels, as a headless browser lays it out.

    The test is skipped where no browser is found.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f'none of {BROWSERS} is installed')
    measured = folder / 'measured.html'
    script = (
        '<script>addEventListener("load", () => document.title = '
        '"widths " + document.documentElement.scrollWidth + " " + '
        'document.documentElement.clientWidth)</script>'
    )
    measured.write_text(page.replace('</body>', f'{script}</body>'))
    options = [
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        f'--user-data-dir={folder / "profile"}',
        f'--window-size={width},{height}',
        '--dump-dom',
    ]
    done = subprocess.run(
        [browser, *options, measured.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<title>widths (\d+) (\d+)</title>', done.stdout)
    assert found, done.stderr[-2000:]
    return int(found[1]), int(found[2])
