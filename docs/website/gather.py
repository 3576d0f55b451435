# SPDX-License-Identifier: Apache-2.0
"""The pages of the tree, laid down for Sphinx as they lie here, and the pages that are made of other things.

What is no page but linked to (a source file, a folder) becomes one, so that every link stays within the site.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from website import commandpage, headerpage, pythonpage

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
MADE = {"include/libmicrovmi.h": "reference/c.md", "docs/drivers": "docs/drivers.md", "docs": "index.md"}
"""What stands for a file or a folder that is linked to."""
CODE = {
    **{".c": "c", ".h": "c", ".cpp": "cpp", ".hpp": "cpp", ".cs": "csharp", ".go": "go", ".java": "java", ".js": "js"},
    **{".lua": "lua", ".ml": "ocaml", ".php": "php", ".pl": "perl", ".py": "python", ".rb": "ruby", ".rs": "rust"},
}
"""Files that are shown, and the language of each by its ending."""
LINK = re.compile(r"\]\(([^)#\s:]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)

GROUPS = {
    "Begin": ("Overview <README>", "docs/tutorial"),
    "How to": ("docs/howto", "docs/howto/*", "docs/python", "docs/debian", "docs/ffi", "docs/migration"),
    "Use": ("docs/command", "docs/virtual-memory", "docs/events", "docs/snapshots", "docs/diff", "docs/linux",
            "docs/listing", "docs/changes", "All tools <docs/tools>", "docs/tools/*"),
    "Reference": ("reference/*", "docs/abi", "docs/drivers", "docs/drivers/*"),
    "Explanation": ("docs/design", "docs/reliability", "docs/benchmarks", "docs/*"),
    "Project": ("CONTRIBUTING", "docs/testing", "docs/systems", "CHANGELOG", "*"),
}  # fmt: skip
"""The pages on the left, by their paths without an ending; a star is all that no other place has, a name that is not
there none."""


def gather(target: Path) -> None:
    """Lay everything down in ``target``, anew."""
    shutil.rmtree(target, ignore_errors=True)
    for path in pages():
        _write(target / path.relative_to(ROOT), linked(path.read_text(), path.parent))
    for picture in (ROOT / "docs").rglob("*.svg"):
        _copy(picture, target / picture.relative_to(ROOT))
    for name, text in made().items():
        _write(target / name, text)
    for path in _linked_to():
        _write(target / f"{path.relative_to(ROOT)}.md", _shown(path))
    front = (HERE / "index.md").read_text()
    _write(target / "index.md", front.replace("{toctrees}", "\n".join(_toctrees(target))))


def pages() -> list[Path]:
    """The pages that people wrote."""
    return [*(ROOT / name for name in TOP), *sorted(p for p in (ROOT / "docs").rglob("*.md") if HERE not in p.parents)]


def made() -> dict[str, str]:
    """The reference: of the header, of docstrings, of ``--help``, and the glossary."""
    glossary = (ROOT / "docs" / "design.md").read_text().partition("\n## Glossary\n")[2].partition("\n## ")[0]
    return {
        "reference/c.md": headerpage.page(ROOT / "include" / "libmicrovmi.h"),
        "reference/python.rst": pythonpage.page(),
        "reference/command.md": commandpage.page(),
        "reference/glossary.md": f"# Glossary\n{linked(glossary, ROOT / 'docs', ROOT / 'reference')}",
    }


def linked(text: str, folder: Path, place: Path | None = None) -> str:
    """A page of ``folder`` with links that lead to pages, as seen from ``place``."""
    code = FENCE.findall(text)
    parts = [LINK.sub(lambda found: _link(found, folder, place or folder), part) for part in FENCE.split(text)]
    return "".join(part + (code[number] if number < len(code) else "") for number, part in enumerate(parts))


def _link(found: re.Match[str], folder: Path, place: Path) -> str:
    path = Path(os.path.normpath(folder / found[1]))
    return f"]({os.path.relpath(ROOT / page_of(path), place)}{found[2] or ''})"


def page_of(path: Path) -> str:
    """The page, or picture, below the root that shows a file or a folder."""
    name = str(path.relative_to(ROOT))
    if name in MADE:
        return MADE[name]
    return name if path.suffix in (".md", ".svg") or not path.exists() else f"{name}.md"


def _linked_to() -> Iterator[Path]:
    """What is no page, has none, and is linked to."""
    seen: set[Path] = set()
    written = {*MADE.values(), *(str(page.relative_to(ROOT)) for page in pages())}
    for page in pages():
        for name, _ in LINK.findall("".join(FENCE.split(page.read_text()))):
            path = Path(os.path.normpath(page.parent / name))
            if path not in seen and path.exists() and path.suffix != ".svg" and page_of(path) not in written:
                seen.add(path)
                yield path


def _shown(path: Path) -> str:
    """A page of a file, or of the files and pages of a folder."""
    name = path.relative_to(ROOT)
    if path.is_file():
        return f"# {path.name}\n\n`{name}`\n\n```{CODE.get(path.suffix, 'text')}\n{path.read_text()}\n```\n"
    items = [f"# {name}/\n"]
    items += [f"- [{item.stem}]({path.name}/{item.name})" for item in sorted(path.glob("*.md"))]
    for item in sorted(item for item in path.iterdir() if item.suffix in CODE):
        items.append(f"\n## {item.name}\n\n```{CODE[item.suffix]}\n{item.read_text()}\n```\n")
    return "\n".join(items) + "\n"


def _toctrees(target: Path) -> Iterator[str]:
    files = [path for ending in ("md", "rst") for path in target.rglob(f"*.{ending}")]
    every = sorted(str(path.relative_to(target).with_suffix("")) for path in files)
    named = {_path(name) for names in GROUPS.values() for name in names}
    left = [name for name in every if name not in named]
    for title, names in GROUPS.items():
        entries = []
        for name in names:
            one = [name] if _path(name) in every else []
            found = [item for item in left if item.startswith(name[:-1])] if name.endswith("*") else one
            left = [item for item in left if item not in found]
            entries += found
        yield "```{toctree}\n:hidden:\n:caption: " + title + "\n\n" + "\n".join(entries) + "\n```\n"


def _path(name: str) -> str:
    """Of an entry with a title of its own what stands in its brackets."""
    return name.partition("<")[2].removesuffix(">") or name


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
