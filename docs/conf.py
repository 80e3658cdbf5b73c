"""Sphinx configuration: ``python -m sphinx -W -b html docs docs/_build``."""

from importlib.metadata import version as installed_version

project = "twisted_dimse"
author = "twisted_dimse contributors"
project_copyright = "2026, twisted_dimse contributors"
release = version = installed_version("twisted-dimse")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"twisted_dimse {release}"
