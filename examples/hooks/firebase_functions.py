"""Hooks in the style of Firebase: one function for each, over documents by user.

    python examples/hooks/firebase_functions.py store.json 8092

`store.json` stands for Firestore: `{"users": {"alice": {"disabled": false}}}`. `/check` blocks
users who are disabled; `/warned` writes to the user's document what his budget has reached, where
an application listens for it. Nothing is needed but Python.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MAX_BODY_BYTES = 1_000_000


class Documents:
    """A store of documents in one file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()

    def user(self, user_id: str) -> dict[str, Any]:
        """One user's document."""
        found: dict[str, Any] = json.loads(self._file.read_text())["users"].get(user_id, {})
        return found

    def update(self, user_id: str, **fields: object) -> None:
        """Merge fields into it."""
        with self._lock:
            store = json.loads(self._file.read_text())
            store["users"].setdefault(user_id, {}).update(fields)
            fresh = self._file.with_suffix(".new")
            fresh.write_text(json.dumps(store))
            fresh.replace(self._file)


def check(documents: Documents, context: dict[str, Any]) -> dict[str, str]:
    """`on_budget_check`."""
    if documents.user(context["user_id"]).get("disabled"):
        return {"action": "block", "message": "this account is disabled"}
    return {"action": "allow"}


def warned(documents: Documents, context: dict[str, Any]) -> dict[str, str]:
    """`on_budget_warning`."""
    documents.update(
        context["user_id"],
        budget={"reached_pct": context["threshold_pct"], "used_usd": context["budget_used"]},
    )
    return {}


class Functions(BaseHTTPRequestHandler):
    """The two functions, by path."""

    protocol_version = "HTTP/1.1"
    documents: Documents
    paths = {"/check": check, "/warned": warned}  # noqa: RUF012

    def do_POST(self) -> None:
        """Run one."""
        length = int(self.headers.get("Content-Length", "0"))
        context = json.loads(self.rfile.read(min(length, MAX_BODY_BYTES)))["context"]
        body = json.dumps(self.paths[self.path](self.documents, context)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


if __name__ == "__main__":
    Functions.documents = Documents(Path(sys.argv[1]))
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Functions).serve_forever()
