"""What JupyterLab does when it saves a notebook of the project: outputs stay out of the source.

`make lab` names both functions. A saved source differs from what it was only where somebody has
written in it, so git and make see no change where there is none.
"""

import os
from pathlib import Path

from lib.config import ROOT

NOTEBOOKS = ROOT / "notebooks"
_times: dict[str, tuple[bytes, int]] = {}  # of a file that is being saved: its text, its time in ns


def before_save(model: dict, path: str, contents_manager=None, **others) -> None:
    """Drop outputs, counts and what the lab notes about itself, from a notebook in `notebooks/`."""
    place = Path(contents_manager._get_os_path(path)) if contents_manager else Path(path)
    if model["type"] != "notebook" or place.parent != NOTEBOOKS:
        return
    if place.exists():
        _times[str(place)] = place.read_bytes(), place.stat().st_mtime_ns
    notebook = model["content"]
    kernel = notebook["metadata"].get("kernelspec", {})
    kept = {key: kernel[key] for key in ("display_name", "language", "name") if key in kernel}
    notebook["metadata"] = {"kernelspec": kept, "language_info": {"name": "python"}}
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags")
        cell["metadata"] = {"tags": tags} if tags else {}
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None


def after_save(model: dict, os_path: str, contents_manager=None, **others) -> None:
    """Give a file that is what it was its old time: make runs what is newer."""
    text, time = _times.pop(os_path, (None, 0))
    if text is not None and Path(os_path).read_bytes() == text:
        os.utime(os_path, ns=(time, time))
