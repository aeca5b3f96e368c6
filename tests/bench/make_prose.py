#!/usr/bin/env python3
"""One text of 1.3 MB: the Debian reference and the Debian handbook, for measurements that need 300,000 tokens.

    make_prose.py REFERENCE.txt HANDBOOK.deb OUT.txt

REFERENCE.txt is what tools/real/fetch.sh made; the package is fetched by `apt-get download debian-handbook`."""
import glob
import html
import re
import subprocess
import sys
import tempfile

LEAST = 40  # characters; shorter paragraphs are labels


def paragraphs(package):
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["dpkg-deb", "-x", package, scratch], check=True)
        for page in sorted(glob.glob(scratch + "/usr/share/doc/debian-handbook/html/en-US/*.html")):
            with open(page, encoding="utf-8") as f:
                for block in re.findall(r'<div class="para">(.*?)</div>', f.read(), re.DOTALL):
                    text = " ".join(html.unescape(re.sub(r"<[^>]*>", "", block)).split())
                    if len(text) >= LEAST:
                        yield text


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    reference, package, out = sys.argv[1:]
    with open(reference, encoding="utf-8") as f:
        text = f.read()
    text += "\n" + "\n\n".join(dict.fromkeys(paragraphs(package))) + "\n"
    with open(out, "w", encoding="utf-8") as f:
        f.write(text)
    print(f"{out}: {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
