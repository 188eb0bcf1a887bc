"""One file with everything in it: the scene to turn, and the film that was rendered."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from kaleidoscene.serialisation import save_aside
from kaleidoscene.viewer.window import Window

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{margin:0;font-family:sans-serif;display:flex;flex-direction:column;height:100vh}}
header{{padding:8px 12px;display:flex;gap:16px;align-items:center}}
video{{height:30vh;background:#fff;border:1px solid #ddd}}iframe{{flex:1;border:0}}</style>
<header><h1>{title}</h1>{video}</header>
<iframe title="scene" srcdoc="{scene}"></iframe></html>
"""


def export(window: Window, page: Path, *, title: str, video: Path | None = None) -> None:
    """Write what a window shows, without its panel, as a page that needs nothing else.

    Args:
        window: That shows it.
        page: File to write.
        title: Of the page.
        video: A film to play beside the scene.
    """
    film = ""
    if video is not None:
        data = base64.b64encode(video.read_bytes()).decode()
        film = f'<video controls loop autoplay muted src="data:video/mp4;base64,{data}"></video>'
    scene = window.server.get_scene_serializer().as_html()
    document = _PAGE.format(title=html.escape(title), video=film, scene=html.escape(scene, quote=True))
    page.parent.mkdir(parents=True, exist_ok=True)
    save_aside(page, lambda file: file.write(document.encode()))
