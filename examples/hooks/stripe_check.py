"""A budget check in the style of Stripe: the customer's subscription decides.

    python examples/hooks/stripe_check.py customers.json 8091

`customers.json` is what your Stripe webhook (`customer.subscription.updated`) keeps up to date:
`{"alice": {"status": "active"}, "bob": {"status": "past_due"}}`. The signature is verified with
HOOK_SECRET. Nothing is needed but Python.
"""

import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOLERANCE_S = 300
MAX_BODY_BYTES = 1_000_000
BY_STATUS = {
    "active": {"action": "allow"},
    "trialing": {"action": "warn", "message": "your trial has a small budget"},
    "past_due": {"action": "degrade", "message": "your last invoice is unpaid"},
    "canceled": {"action": "block", "message": "your subscription has ended"},
}
UNKNOWN = {"action": "block", "message": "there is no subscription for this user"}


def signed(header: str, body: bytes, secret: str, now_s: float) -> bool:
    """Whether the daemon sent it, and lately."""
    parts = dict(part.partition("=")[::2] for part in header.split(","))
    at = parts.get("t", "")
    if not at.isdigit() or abs(now_s - int(at)) > TOLERANCE_S:
        return False
    expected = hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, parts.get("v1", ""))


class Check(BaseHTTPRequestHandler):
    """Answers `on_budget_check`."""

    protocol_version = "HTTP/1.1"
    customers: Path
    secret: str

    def do_POST(self) -> None:
        """One question about one user."""
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(min(length, MAX_BODY_BYTES))
        header = self.headers.get("X-Cascaded-Signature", "")
        if not signed(header, body, self.secret, time.time()):  # noqa: TID251
            self.answer(401, {"error": "the signature is wrong"})
            return
        user_id = json.loads(body)["context"]["user_id"]
        customer = json.loads(self.customers.read_text()).get(user_id, {})
        self.answer(200, BY_STATUS.get(customer.get("status"), UNKNOWN))

    def answer(self, status: int, said: object) -> None:
        """JSON, and the connection stays open."""
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


if __name__ == "__main__":
    Check.customers, Check.secret = Path(sys.argv[1]), os.environ["HOOK_SECRET"]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Check).serve_forever()
