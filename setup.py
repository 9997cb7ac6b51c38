"""Lets old versions of pip install mmgor; pyproject.toml says everything."""

from setuptools import setup

setup()
