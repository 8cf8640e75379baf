"""A page of the curves of a run's trainings while they run, fresh every few seconds.

    python -m lib.figures.live outputs/laptop/smollm2-135m/atlas/seed0

It is served to this machine only, loads nothing, and changes nothing in the run.
"""

import argparse
import base64
import contextlib
import html
import time
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from itertools import islice, zip_longest
from pathlib import Path

from lib.figures.accuracy import CURVE_LABELS, plot_training_curves
from lib.figures.style import panels
from lib.tables import DamagedFile
from lib.training.apart import finished, read_log

FRESH = 5  # seconds between two looks
SHOWN = 12  # trainings, the one written last first
LABELS = {"loss": "loss"} | CURVE_LABELS
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="refresh" content="{every}">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><title>{title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1em auto; max-width: 70em; padding: 0 1em; }}
img {{ background: #fff; max-width: 100%; }} h2 {{ font-size: 1.1em; margin: 1.5em 0 0; }}
p {{ margin: 0 0 .5em; }}
</style></head><body><h1>{title}</h1>{body}</body></html>"""


def trainings(run: Path) -> dict[Path, float]:
    """The folders of a run's trainings and when each was written, the last one first."""
    written = {}
    for path in run.glob("*/**/log.jsonl"):
        with contextlib.suppress(FileNotFoundError):  # a training was removed meanwhile
            written[path.parent] = path.stat().st_mtime
    return dict(sorted(written.items(), key=lambda item: item[1], reverse=True))


@lru_cache(maxsize=2 * SHOWN)
def section(folder: Path, written: float) -> str:
    """A training's last row in words and its curves, as markup.

    written: when its log was, so that one which did not change is not drawn again.
    """
    try:
        log = read_log(folder)
    except DamagedFile as error:
        return f"<p>{html.escape(str(error))}</p>"
    columns = [name for name in LABELS if name in log and log[name].notna().any()]
    if not columns:
        return "<p>no step yet</p>"
    last = (f"{LABELS[name]} {log[name].dropna().iloc[-1]:.3g}" for name in columns)
    words = f"step {log['step'].iloc[-1]:.0f}: {', '.join(last)}"

    across = min(4, max(2, len(columns)))
    fig, axes = panels(across, -(-len(columns) // across), width=2.1 * across)
    for ax, name in zip_longest(axes.flat, columns):
        if name:
            plot_training_curves(log, ax, {name: LABELS[name]})
        else:
            ax.set_visible(False)
    picture = BytesIO()
    fig.savefig(picture, format="svg")
    inside = base64.b64encode(picture.getvalue()).decode()
    return f'<p>{words}</p><img alt="{words}" src="data:image/svg+xml;base64,{inside}">'


def live_page(run: Path) -> str:
    """The page as it is now."""
    parts = []
    for folder, written in islice(trainings(run).items(), SHOWN):
        ago = f"written {time.time() - written:.0f} s ago"
        name = html.escape(str(folder.relative_to(run)))
        parts.append(f"<h2>{name}: {'finished' if finished(folder) else ago}</h2>")
        parts.append(section(folder, written))
    title = html.escape(" / ".join(run.resolve().parts[1:][-4:]))
    body = "".join(parts) or "<p>No training has begun.</p>"
    return PAGE.format(every=FRESH, title=title, body=body)


def page_server(run: Path, port: int) -> HTTPServer:
    """A server of the page on loopback, not yet at work; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 1  # seconds: browsers open connections to spare

        def do_GET(self):
            if self.path != "/":
                return self.send_error(404)
            page = live_page(run).encode()
            with contextlib.suppress(ConnectionError):  # who looked is gone
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

        def log_message(self, *arguments):
            """Nothing is said of each look."""

    return HTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the curves of a run's trainings.")
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    args = parser.parse_args()
    try:
        server = page_server(args.run, args.port)
    except (OSError, OverflowError) as error:
        parser.exit(1, f"port {args.port} cannot be used: {error}\n")
    print(
        f"curves: http://127.0.0.1:{server.server_port}/ (Ctrl-C ends this, not the run)",
        flush=True,
    )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
