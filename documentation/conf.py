"""How Sphinx builds this documentation: `make docs`."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "seg25d"
author = "The seg25d contributors"
extensions = [
    "sphinx.ext.autodoc",
    "myst_parser",
    "sphinx_argparse_cli",
    "seg25d_pages",
]
exclude_patterns = ["_build"]

# Pages: Markdown that reads as well on GitHub.
myst_heading_anchors = 3
html_theme = "pydata_sphinx_theme"
html_title = "seg25d"
html_static_path = ["_static"]
html_css_files = ["seg25d.css"]
html_show_sourcelink = False
html_show_copyright = False
html_context = {"default_mode": "auto"}
html_theme_options: dict[str, Any] = {
    "navbar_align": "left",
    "show_prev_next": True,
    "show_nav_level": 1,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
}

# Reference: docstrings in Google style, read by seg25d_pages; their `names` are code.
default_role = "code"
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "exclude-members": "model_config, model_post_init",
    "ignore-module-all": True,
}
autodoc_mock_imports = ["ray", "submitit"]  # extras
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False

# Every reference to a name of ours must be right; those of other packages are not looked up.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!seg25d\.).*"),
    ("py:.*", r"seg25d\..*\._\w+"),  # what is private has no page
    # Type variables, and checks within types.
    ("py:.*", r"seg25d\..*\.(AnyRecord|Array|Item|Kept|Options|Result|Value|check_\w+)"),
]
