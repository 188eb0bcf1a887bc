"""Pictures as HTML that a notebook shows without files."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable

from PIL import Image


def pictures_html(title: str, pictures: Iterable[Image.Image]) -> str:
    """A line of text and pictures below it, inside of the page itself."""
    shown = []
    for picture in pictures:
        data = io.BytesIO()
        picture.save(data, "png")
        shown.append(f'<img src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}" alt="">')
    row = '<div style="display:flex;flex-wrap:wrap;gap:4px">' + "".join(shown) + "</div>"
    return f"<div><p>{html.escape(title)}</p>{row}</div>"
