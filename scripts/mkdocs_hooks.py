"""mkdocs hooks: links from a page to files of the repository outside docs/.

In the repository such a link is relative (`../../k8s/base/nginx.conf`), so that forges can follow it.
The site has no such page, so the hook points the link at `extra.repository` of mkdocs.yml. A link to a
file that does not exist stays as it is, and `mkdocs build --strict` fails on it.
"""

import pathlib
import re

LINK = re.compile(r"\]\(((?:\.\./)+[^)#\s]*)(#[^)\s]*)?\)")


def on_page_markdown(markdown, page, config, files):
    docs = pathlib.Path(config["docs_dir"]).resolve()
    root = docs.parent
    here = (docs / page.file.src_uri).parent

    def outside(match):
        target = (here / match[1]).resolve()
        if docs in target.parents or root not in target.parents or not target.exists():
            return match[0]
        return f"]({config['extra']['repository']}{target.relative_to(root).as_posix()}{match[2] or ''})"

    return LINK.sub(outside, markdown)
