"""A stand-in for the llama.cpp runtime, found by the real child process through PYTHONPATH.

The "weights" file says how it behaves, in words: `crash-at-start`, `fail`, `hang-at-start`, `tcp`,
`die-on-call`, `slow`.
"""

import json
import os
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class CommonParams(SimpleNamespace):
    def __init__(self) -> None:
        super().__init__(
            model=SimpleNamespace(path=""),
            cpuparams=SimpleNamespace(),
            cpuparams_batch=SimpleNamespace(),
            hostnames=["127.0.0.1"],
            api_keys=[],
        )


class Server:
    def __init__(self, params: Any) -> None:
        (path,), (key,) = params.hostnames, params.api_keys
        behaviour = Path(params.model.path).read_text().split()
        with Path(params.model.path + ".starts").open("a") as starts:
            starts.write(f"{os.getpid()}\n")
        sys.stdout.write("runtime says hello\n")
        sys.stdout.flush()
        for word in behaviour:
            AT_START.get(word, lambda: None)()
        self.listening_address = "tcp://0.0.0.0:1" if "tcp" in behaviour else f"unix://{path}"
        handler = _handler(key, params.n_ctx, behaviour)
        self._listener = _Listener(path, handler)
        threading.Thread(target=self._listener.serve_forever, daemon=True).start()


def _crash() -> None:
    sys.stderr.write("ggml: all is lost\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGABRT)


def _fail() -> None:
    raise RuntimeError("no such architecture")


AT_START: dict[str, Callable[[], None]] = {
    "crash-at-start": _crash,
    "fail": _fail,
    "hang-at-start": lambda: time.sleep(60),
}


class _Listener(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def _handler(key: str, context_tokens: int, behaviour: list[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.headers["authorization"] != f"Bearer {key}":
                self.answer(401, {"error": {"message": "Invalid API Key"}})
                return
            if "die-on-call" in behaviour:
                os.kill(os.getpid(), signal.SIGKILL)
            if "slow" in behaviour:
                time.sleep(0.3)
            self.answer(200, _completion(json.dumps([body, context_tokens])))

        def answer(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: object) -> None:
            pass

        def address_string(self) -> str:
            return "unix"

    return Handler


def _completion(text: str) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
