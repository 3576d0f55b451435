# SPDX-License-Identifier: Apache-2.0
"""``python -m website [FOLDER]``: gather the pages into FOLDER/source, and make FOLDER/html of them (build/site)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from website.gather import ROOT, gather


def main(folder: Path) -> int:
    """Build the site; a link that leads nowhere, or a page that nothing leads to, is a failure."""
    source = folder / "source"
    gather(source)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(folder / "doctrees")]
    done = subprocess.run([*command, "-c", str(Path(__file__).parent), str(source), str(folder / "html")], check=False)
    if done.returncode == 0:
        print(f"{folder / 'html' / 'index.html'}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "site"))
