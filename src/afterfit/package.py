"""Where the package lies."""

from pathlib import Path

ROOT = Path(__file__).parent
"""The folder of the package, with its data files."""
TEMPLATES = ROOT / "pages" / "templates"
"""The pages' templates."""
