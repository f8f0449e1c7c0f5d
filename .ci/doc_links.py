#!/usr/bin/env python3
"""Checks the links of Markdown pages to this crate on docs.rs against `target/doc`.

The pages are read on GitHub and in rustdoc, so they use links that work in both. rustdoc cannot check
them.
"""
import pathlib
import re
import sys

BASE = re.compile(r"https://docs\.rs/(axum-defer(?:-live)?)/latest/([a-z_]+/[^\s)>\]]*)")
DOC = pathlib.Path("target/doc")


def broken(page):
    for link in BASE.finditer(page.read_text()):
        path, _, anchor = link[2].partition("#")
        target = DOC / path
        if target.is_dir():
            target /= "index.html"
        if not target.exists():
            yield f"{page}: {link[0]}: no such page"
        elif anchor and f'id="{anchor}"' not in target.read_text():
            yield f"{page}: {link[0]}: no such anchor"


def main():
    pages = [page for page in pathlib.Path(".").rglob("*.md")
             if not {"target", "node_modules"} & set(page.parts)]
    links = sum(len(BASE.findall(page.read_text())) for page in pages)
    faults = [fault for page in sorted(pages) for fault in broken(page)]
    print("\n".join(faults) or f"{links} links to docs.rs have targets")
    # Without links, the pattern is wrong.
    sys.exit(bool(faults) or not links)


main()
