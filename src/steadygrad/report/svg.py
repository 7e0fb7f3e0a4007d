"""Matplotlib's SVG made fit for a page: no metadata, unique ids, a title, colors that follow the theme."""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET

__all__ = ["finish", "inline"]

_SPACE = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"#([\w-]+)")


def finish(text: str, title: str) -> str:
    """A standalone SVG with a title; ids that nothing refers to are dropped, the others made unique by content."""
    root = ET.fromstring(text)
    prefix = "f" + hashlib.sha256(text.encode() + title.encode()).hexdigest()[:8]
    used: set[str] = set()
    for element in root.iter():
        element.tag = element.tag.replace(f"{{{_SPACE}}}", "")
        if _LINK in element.attrib:
            element.set("href", element.attrib.pop(_LINK))
        for name, value in element.attrib.items():
            if name == "href" or "url(" in value:
                used |= set(_REFERENCE.findall(value))
    for metadata in root.findall("metadata"):
        root.remove(metadata)
    for element in root.iter():
        _rename(element, used, prefix)
    width, height = root.get("viewBox", "0 0 1 1").split()[2:]
    root.attrib.update({"width": width, "height": height, "role": "img", "aria-label": title})
    root.set("xmlns", _SPACE)
    caption = ET.Element("title")
    caption.text = title
    root.insert(0, caption)
    return ET.tostring(root, encoding="unicode")


def _rename(element: ET.Element, used: set[str], prefix: str) -> None:
    if "id" in element.attrib:
        name = element.attrib.pop("id")
        if name in used:
            element.set("id", f"{prefix}-{name}")
    for name, value in list(element.attrib.items()):
        if name == "href":
            element.set(name, value.replace("#", f"#{prefix}-", 1))
        elif "url(#" in value:
            element.set(name, value.replace("url(#", f"url(#{prefix}-"))
        elif name == "style":
            # The page's font, not the one Matplotlib measured with.
            element.set(name, re.sub(r"(font: [\d.]+px) [^;]+", r"\1 sans-serif", value))


def inline(svg: str, variables: dict[str, str]) -> str:
    """The same SVG for use inside HTML: no namespace needed, and colors as CSS variables with themselves as default."""
    svg = svg.replace(f' xmlns="{_SPACE}"', "", 1)
    # Browsers show a title as a tooltip over the whole figure; the label already says it to a screen reader.
    svg = re.sub(r"<title>.*?</title>", "", svg, count=1, flags=re.DOTALL)
    pattern = re.compile("|".join(re.escape(color) for color in variables))

    def themed(style: re.Match[str]) -> str:
        return pattern.sub(lambda m: f"var({variables[m[0]]}, {m[0]})", style[0])

    return re.sub(r'style="[^"]*"', themed, svg)
