"""As much of the hub as a dataset's files are fetched by: commits, a tree, files with their ranges. On loopback."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """One dataset repository. Changed while it serves: what it holds, and how badly."""

    def __init__(self, name, commits):
        """commits: commit -> path -> bytes, the newest last."""
        self.name, self.commits = name, dict(commits)
        self.asked: list[tuple[str, str, str | None]] = []  # method, path, range
        self.cut = 0  # of the next large downloads, how many break off in the middle
        self.down = False

    def resolve(self, revision):
        return list(self.commits)[-1] if revision == "main" else revision if revision in self.commits else None

    def downloads(self, ending):
        """The ranges asked for of files that are called so; None: the whole file."""
        return [asked for method, path, asked in self.asked if method == "GET" and path.endswith(ending)]


@contextmanager
def serving(hub):
    """Yields the address for HF_ENDPOINT."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Answer,), {"hub": hub}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class Answer(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *said):
        pass

    def do_GET(self):
        self.answer()

    def do_HEAD(self):
        self.answer()

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer()

    def answer(self):
        path, hub = self.path.partition("?")[0], self.hub
        hub.asked.append((self.command, path, self.headers.get("Range")))
        if hub.down:
            return self.say(503, b"")
        name = re.escape(hub.name)
        for pattern, act in (
            (rf"/datasets/{name}/resolve/([^/]+)/(.+)", self.file),
            (rf"/api/datasets/{name}/revision/([^/]+)", self.info),
            (rf"/api/datasets/{name}/tree/([^/]+)(?:/(.+))?", self.tree),
            (rf"/api/datasets/{name}/paths-info/([^/]+)", self.paths),
        ):
            if found := re.fullmatch(pattern, path.replace("%2F", "/")):
                commit = hub.resolve(found[1])
                if commit is None:
                    return self.say(404, b"", {"X-Error-Code": "RevisionNotFound"})
                return act(commit, *found.groups()[1:])
        return self.say(404, b"", {"X-Error-Code": "RepoNotFound"})

    def info(self, commit):
        self.tell({"_id": "1", "id": self.hub.name, "sha": commit, "private": False, "tags": [], "siblings": []})

    def tree(self, commit, folder):
        inside = f"{folder}/" if folder else ""
        paths = [path for path in self.hub.commits[commit] if path.startswith(inside)]
        if not paths:
            return self.say(404, b"", {"X-Error-Code": "EntryNotFound"})
        folders = sorted({path.rpartition("/")[0] for path in paths} - {"", folder})
        found = [{"type": "directory", "path": name, "oid": "0" * 40} for name in folders]
        return self.tell([*found, *(self.entry(commit, path) for path in paths)])

    def paths(self, commit):
        wanted = json.loads(self.body)["paths"]
        self.tell([self.entry(commit, path) for path in wanted if path in self.hub.commits[commit]])

    def entry(self, commit, path):
        content = self.hub.commits[commit][path]
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def file(self, commit, path):
        content = self.hub.commits[commit].get(path)
        if content is None:
            return self.say(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        asked, begin = self.headers.get("Range"), 0
        if asked:
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        large = len(content) > 10_000 and self.command == "GET"
        cut = (len(content) - begin) // 2 if large and self.hub.cut else None
        self.hub.cut -= cut is not None
        return self.say(206 if asked else 200, content[begin:], headers, cut)

    def tell(self, found):
        self.say(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def say(self, status, body, headers=None, cut=None):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:  # as a line that goes dead: less than was promised, and no more
            self.wfile.flush()
            self.close_connection = True
