"""From stored results to pages, tables and figures, and from two results to what became slower.

It reads the samples of a result and the labels of peers, so that a report can be made again at any
time. Nothing here knows how anything was measured, and no figure is held to a limit but by
``--compare``, which a user asks for.
"""

from .pages import ABOUT, overview, page, readme

__all__ = ["ABOUT", "overview", "page", "readme"]
