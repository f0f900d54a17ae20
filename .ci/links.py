"""Check that every link within a site leads somewhere: to a page, and to an anchor on it.

Links to other sites are not followed: what they lead to changes without a change here.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit


class Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        """Take in what a tag links to, and what it can be linked by."""
        for name, value in attrs:
            if name in ("href", "src") and value and not urlsplit(value).scheme:
                self.links.add(value)
            elif name == "id" and value:
                self.anchors.add(value)


def main(site: Path) -> int:
    """Print the links that lead nowhere, and return whether there are any."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(link)
            found = (path.parent / unquote(target)).resolve() if target else path
            known = pages.get(found)
            if not found.exists() or (known and unquote(anchor) not in known.anchors):
                broken.append(f"{path.name}: {link}")
    print(*sorted(broken), sep="\n", end="\n" if broken else "")
    print(f"{len(pages)} pages, {sum(len(page.links) for page in pages.values())} links")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
