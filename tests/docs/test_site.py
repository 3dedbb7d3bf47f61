"""The documentation as a site: it builds without a warning, and loads nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOADED = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=\"([^\"]+)|<link[^>]*\shref=\"([^\"]+)")


def test_the_site_builds_strictly_and_needs_no_other_host(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    pages = [*tmp_path.rglob("*.html")]
    assert {"concepts", "evaluation", "glossary", "contributing", "columns"} <= {page.parent.name for page in pages}
    assert len(pages) >= len([*(ROOT / "docs").glob("*.md")])
    for page in pages:
        loaded = LOADED.findall(page.read_text(encoding="utf-8"))
        assert not [one for pair in loaded for one in pair if one.startswith(("http:", "https:", "//"))], page
