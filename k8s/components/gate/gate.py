"""Answers 200 if the tree that it is asked about builds, and 422 with the last lines if not."""

import json
import pathlib
import subprocess
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer

VOLUME = pathlib.Path("/volume")


class Gate(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers["Content-Length"])
        tree = VOLUME / json.loads(self.rfile.read(length))["path"]
        with tempfile.TemporaryDirectory() as site:
            check = ["mkdocs", "build", "--strict", "--site-dir", site]
            result = subprocess.run(
                check, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=50
            )
        body = b"\n".join(result.stdout.splitlines()[-20:])
        self.send_response(200 if result.returncode == 0 else 422)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


HTTPServer(("127.0.0.1", 9848), Gate).serve_forever()
