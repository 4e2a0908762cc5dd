"""A web server on this computer that serves one file, well or badly."""

import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves `content`; `answers` are given first, one to each request.

    Attributes:
        content: The file.
        answers: What is called with the handler of a request, instead of serving.
        ranges: The range that each request asked for, None for the whole file.
        agents: What each request called itself.
    """

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.answers: list[Callable] = []
        self.ranges: list[str | None] = []
        self.agents: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/file"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        """Says nothing where a client hung up."""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802 (the name that `http.server` calls)
        self.server.ranges.append(self.headers["Range"])
        self.server.agents.append(self.headers["User-Agent"])
        (self.server.answers.pop(0) if self.server.answers else serve)(self)

    def reply(self, status: int, body: bytes = b"", **headers: object) -> None:
        """Answers; `Content_Length=4` says 4, whatever the length of the body."""
        self.send_response(status)
        for name, value in ({"Content_Length": len(body)} | headers).items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)


def serve(handler: Handler) -> None:
    """Serves the file, or the rest that was asked for, as a good server does."""
    content = handler.server.content
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")
    if asked is None:
        handler.reply(200, content)
    elif (start := int(asked[1])) >= len(content):
        handler.reply(416, Content_Range=f"bytes */{len(content)}")
    else:
        told = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.reply(206, content[start:], Content_Range=told)


def replying(*args, **headers) -> Callable[[Handler], None]:
    return lambda handler: handler.reply(*args, **headers)
