"""What Sphinx needs to know of the site; the pages are laid out by ``build_site.py``."""

import os
import sys
from pathlib import Path

_ROOT = Path(os.environ["BATCHCHAT_TREE"])
sys.path.insert(0, str(_ROOT))

from batchchat.version import VERSION  # noqa: E402

project = "batchchat"
version = release = VERSION
project_copyright = ""
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ["misc.highlighting_failure"]
smartquotes = False
highlight_language = "text"
pygments_style = "default"
pygments_dark_style = "github-dark"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_display_short_literal_types = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"batchchat {VERSION}"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_permalinks_icon = "#"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#14605a", "color-brand-content": "#14605a"},
    "dark_css_variables": {"color-brand-primary": "#6fd0c4", "color-brand-content": "#6fd0c4"},
}
