#!/usr/bin/env python3
"""Extract the text of the Debian package `debian-reference-en` into one UTF-8 text file.

    make_corpus.py DEB_OR_FOLDER OUT.txt

DEB_OR_FOLDER is the .deb (unpacked with `dpkg-deb -x` into a temporary folder) or a folder that
holds its *.en.html files. One paragraph or table row a line, an empty line between them. Listings,
titles, tables of contents and navigation are left out. The result depends on the package version
alone. Standard library only.
"""
import argparse
import glob
import os
import re
import subprocess
import sys
import tempfile
from html.parser import HTMLParser

SKIPPED_TAGS = {"head", "pre", "h1", "h2", "h3", "h4", "h5"}
BLOCK_TAGS = {"p", "tr"}
SKIPPED_CLASSES = {"navheader", "navfooter", "toc", "title", "list-of-tables", "list-of-figures"}
VOID_TAGS = {"br", "hr", "img", "col", "link", "meta", "input", "area", "base"}
MIN_CHARS = 40  # shorter ones are labels and list stubs, not prose


class ProseParser(HTMLParser):
    """Collects the text of <p> and <tr> elements that are not inside a skipped element."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.paragraphs = []
        self.stack = []        # (tag, skipped?) of the open elements
        self.text = None       # pieces of the open paragraph

    def handle_starttag(self, tag, attrs):
        if tag in VOID_TAGS:
            if tag == "br":
                self.handle_data(" ")
            return
        classes = set((dict(attrs).get("class") or "").split())
        inherited = bool(self.stack) and self.stack[-1][1]
        skipped = inherited or tag in SKIPPED_TAGS or bool(classes & SKIPPED_CLASSES)
        self.stack.append((tag, skipped))
        if tag in BLOCK_TAGS and not skipped and not (tag == "p" and self.inside("tr")):
            self.flush()
            self.text = []
        elif tag in ("td", "th"):
            self.handle_data(" ")

    def inside(self, tag):
        return any(t == tag for t, _ in self.stack)

    def handle_startendtag(self, tag, attrs):
        pass                   # XHTML <a id="..."/>: no content, nothing to close

    def handle_endtag(self, tag):
        while self.stack and tag in (t for t, _ in self.stack):
            closed, _ = self.stack.pop()
            if closed in BLOCK_TAGS and not (closed == "p" and self.inside("tr")):
                self.flush()
            if closed == tag:
                break

    def handle_data(self, data):
        if self.text is not None and self.stack and not self.stack[-1][1]:
            self.text.append(data)

    def flush(self):
        if self.text is not None:
            paragraph = " ".join("".join(self.text).split())
            paragraph = re.sub(r" ([,.;:)])(?= |$)", r"\1", paragraph)
            if len(paragraph) >= MIN_CHARS:
                self.paragraphs.append(paragraph)
        self.text = None


def reading_order(path):
    """The abstract (index.en.html), preface, chapters, appendix."""
    name = os.path.basename(path)
    return ({"in": 0, "pr": 1, "ch": 2, "ap": 3}.get(name[:2], 4), name)


def extract(folder):
    pages = sorted(glob.glob(os.path.join(folder, "**", "*.en.html"), recursive=True),
                   key=reading_order)
    if not pages:
        sys.exit(f"{folder}: no *.en.html found")
    paragraphs = []
    for page in pages:
        parser = ProseParser()
        with open(page, encoding="utf-8") as f:
            parser.feed(f.read())
        parser.close()
        paragraphs += parser.paragraphs
    return list(dict.fromkeys(paragraphs))  # first occurrence of each, in order


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", help="debian-reference-en_*.deb, or a folder with its pages")
    parser.add_argument("out", help="text file to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.source
        if not os.path.isdir(folder):
            subprocess.run(["dpkg-deb", "-x", args.source, scratch], check=True)
            folder = scratch
        paragraphs = extract(folder)
    text = "\n\n".join(paragraphs) + "\n"
    with open(args.out, "w", encoding="utf-8") as f:
        f.write(text)
    print(f"{args.out}: {len(paragraphs)} paragraphs, {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
