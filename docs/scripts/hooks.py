"""What mkdocs runs: it adds the generated pages and the figures of the gallery to the site."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # the two modules beside this one

import gallery
import matplotlib
import reference
from mkdocs.structure.files import File

matplotlib.use("agg")


def on_files(files: Any, config: Any) -> Any:
    """Add the generated reference pages and the figures."""
    for name, page in reference.PAGES.items():
        files.append(File.generated(config, f"reference/{name}", content=page()))
    for figure in gallery.GALLERY:
        files.append(File.generated(config, f"gallery/{figure.name}.svg", content=_svg(figure)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Append the figures, with the code of each, to the page of the gallery."""
    if page.file.src_uri != "gallery.md":
        return markdown
    parts = [markdown]
    for figure in gallery.GALLERY:
        code = f"??? note \"Code\"\n\n    ```python\n{_indented(figure.code)}\n    ```\n"
        parts.append(f"## {figure.title}\n\n{figure.text}\n\n![{figure.title}](gallery/{figure.name}.svg)\n\n{code}")
    return "\n".join(parts)


def _svg(figure: Any) -> bytes:
    from matplotlib import pyplot

    drawn, buffer = figure.draw().figure, io.BytesIO()
    drawn.savefig(buffer, format="svg")
    pyplot.close(drawn)
    return buffer.getvalue()


def _indented(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.splitlines())
