"""Sphinx's settings: the documents in this folder become HTML, and one of them the man page."""

from __future__ import annotations

import svirtlib

project = "svirtlib"
author = "The svirtlib developers"
copyright = author
release = version = svirtlib.__version__
extensions = ["myst_parser", "sphinxarg.ext"]
myst_enable_extensions = ["deflist"]
exclude_patterns = ["conf.py"]
root_doc = "index"
# Headings are linked to, and numbered by nobody.
myst_heading_anchors = 3
# Blocks that tests read have words of their own for their language; tests follow the links, some
# of which lead to folders.
suppress_warnings = ["misc.highlighting_failure", "myst.domains", "myst.xref_missing"]
html_theme = "alabaster"
html_theme_options = {"nosidebar": False, "page_width": "70em"}
# Nothing that depends on the day: the same tree gives the same bytes.
html_last_updated_fmt = None
today = " "
man_pages = [
    ("svirt-label", "svirt-label", "keep virtual machines apart with SELinux", author, 1),
]
