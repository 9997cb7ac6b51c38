"""Check the environment, a config, its checkpoints and its data.

mmgor doctor
mmgor doctor configs/gor/retinanet_r18_w4_from_r101.py

One line for each check: ok, warning or error, and what to type. The exit
status is 1 if there is an error.
"""

import argparse

from mmgor.doctor import ERROR, examine, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'config', nargs='?', help='config of a training (optional)'
    )


def run(args: argparse.Namespace) -> int:
    findings = []
    for finding in examine(args.config):
        print(finding, flush=True)
        findings.append(finding)
    print(f'\n{summary(findings)}')
    return int(any(finding.status == ERROR for finding in findings))
