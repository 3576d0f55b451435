# SPDX-License-Identifier: Apache-2.0
"""How Sphinx makes the site of what ``gather.py`` laid down."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from libmicrovmi_py.version import __version__

project = "libmicrovmi"
author = "the authors of libmicrovmi"
copyright = "the authors of libmicrovmi, Apache-2.0"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
add_module_names = False
highlight_language = "none"

html_theme = "furo"
html_title = f"libmicrovmi {release}"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["style.css"]
html_show_sphinx = False
