"""How soon a reader on a slow line sees a page of the built book: first paint in Chromium at 1.6 Mbit/s.

    python benchmarks/book/first_paint.py [FOLDER OF THE BUILT BOOK]

Serves the book with gzip on this machine, slows the browser's line down (1.6 Mbit/s, 150 ms there and back, nothing in
its cache), and prints for each page: first contentful paint, end of loading, and what came over the line.
"""

from __future__ import annotations

import gzip
import json
import shutil
import statistics
import sys
import threading
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from fer_repro.errors import FerReproError
from fer_repro.project import project_root

LINE = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 750e3 / 8}
PAGES = ("index", "leaderboard", "papers/vggnet", "papers/efficientfer", "comparisons")
COMPRESSED = {".html", ".css", ".js", ".svg", ".json", ".inv"}
TURNS = 3


@cache
def compressed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), 6)


class Gzipping(SimpleHTTPRequestHandler):
    """Static files, with gzip where a host would use it, over connections that stay open."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.suffix not in COMPRESSED or not path.is_file():
            super().do_GET()
            return
        body = compressed(path)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """One line for every file would hide the figures."""


def visit(browser: Browser, address: str) -> dict[str, float]:
    """Seconds to the first contentful paint and to the end of loading, kB received, of one visit with empty cache."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    session, received = page.context.new_cdp_session(page), []
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    session.send("Network.emulateNetworkConditions", LINE)
    session.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    page.goto(address, wait_until="load", timeout=120_000)
    paint, loaded = page.evaluate(
        """() => [performance.getEntriesByName('first-contentful-paint')[0].startTime,
                  performance.getEntriesByType('navigation')[0].loadEventEnd]"""
    )
    page.close()
    return {"first_paint_s": paint / 1000, "loaded_s": loaded / 1000, "received_kb": sum(received) / 1000}


def run(folder: Path) -> dict[str, dict[str, float]]:
    """Page -> the median of three visits."""
    if not (folder / "chapters" / "index.html").is_file():
        raise FerReproError(f"{folder} is no built book: run `fer-repro book` first, or name its folder")
    found = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: Gzipping(*given, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as driver:
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in PAGES:
            address = f"http://127.0.0.1:{server.server_port}/chapters/{name}.html"
            visits = [visit(browser, address) for _ in range(TURNS)]
            found[name] = {what: round(statistics.median(one[what] for one in visits), 2) for what in visits[0]}
        browser.close()
    server.shutdown()
    return found


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]) if sys.argv[1:] else project_root() / "_build" / "html"), indent=1))
