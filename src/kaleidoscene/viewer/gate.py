"""A gate before the window for other machines: whoever does not have the token of the address gets nothing."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
from http import HTTPStatus
from threading import Event, Thread
from urllib.parse import parse_qs, urlsplit

from kaleidoscene.errors import KaleidosceneError

_LONGEST_HEAD, _PATIENCE = 2**16, 20.0
_PIECE = 2**16
_ALL = ("0.0.0.0", "::", "")


class Gate:
    """A server that hands connections on to another one of this machine, if they come with its token.

    A browser that opens :attr:`address` gets the token as a cookie, which its later requests (the page, its files, the
    socket) bring along. What goes over the network is not encrypted.

    Args:
        host: To listen at.
        port: To listen at; 0 takes a free one.
        upstream: Port of the server behind, on the loopback.

    Raises:
        KaleidosceneError: It cannot listen there.
    """

    def __init__(self, host: str, port: int, upstream: int) -> None:
        self.token = secrets.token_urlsafe(24)
        self._host, self._upstream = host, upstream
        self._loop, self._ready = asyncio.new_event_loop(), Event()
        self._failure: Exception | None = None
        self._asked = port
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise KaleidosceneError(f"--host {host} --port {port}: nothing can listen there ({self._failure}).")

    @property
    def address(self) -> str:
        """What a browser opens, with the token; of a gate at all addresses, the one that others reach first."""
        host = _reached_at(self._host) if self._host in _ALL else self._host
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}/?token={self.token}"

    def close(self) -> None:
        """End it, with all connections."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._loop.close()

    async def _listen(self) -> None:
        self._ended = asyncio.Event()
        try:
            server = await asyncio.start_server(self._serve, self._host, self._asked, limit=_LONGEST_HEAD)
        except (OSError, ValueError, OverflowError) as error:  # a host that is no name, a port that is none
            self._failure = error
            self._ready.set()
            return
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        server.close()
        open_ones = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _PATIENCE)
            target, headers = _parsed(head)
            if self._is_token(parse_qs(urlsplit(target).query).get("token", [""])[0]):
                where = f"Location: /\r\nSet-Cookie: {self._cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"
                writer.write(_answer(HTTPStatus.SEE_OTHER, where))
            elif self._is_token(_cookie_of(headers, self._cookie)):
                await self._hand_on(head, reader, writer)
            else:
                writer.write(_answer(HTTPStatus.FORBIDDEN, body="Open the whole address, with its token."))
            await writer.drain()
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # no request at all, or one that broke off: there is nobody to tell
        finally:
            writer.close()

    @property
    def _cookie(self) -> str:
        return f"kaleidoscene-{self.port}"  # ports of a machine share their cookies

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.token.encode())

    async def _hand_on(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection, or a socket: each connection shows its token."""
        behind_reader, behind = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            behind.write(head if b"\r\nupgrade:" in head.lower() else _closing(head))
            ways = [asyncio.ensure_future(_pipe(*way)) for way in ((reader, behind), (behind_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            behind.close()


def _reached_at(host: str) -> str:
    """The address of this machine in the network that leads outside; its name where there is none."""
    family, outside = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((outside, 9))  # sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def _parsed(head: bytes) -> tuple[str, list[tuple[str, str]]]:
    """Target of a request, and its headers by lower-case name."""
    first, *lines = head.decode("latin-1").split("\r\n")
    _, target, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines if line)
    return target, [(name.strip().lower(), value.strip()) for name, _, value in pairs]


def _cookie_of(headers: list[tuple[str, str]], name: str) -> str:
    for header, value in headers:
        if header == "cookie":
            for part in value.split(";"):  # those of others need not be well formed
                key, _, text = part.strip().partition("=")
                if key == name:
                    return text
    return ""


def _closing(head: bytes) -> bytes:
    lines = [line for line in head.split(b"\r\n")[:-2] if not line.lower().startswith((b"connection:", b"keep-alive:"))]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


def _answer(status: HTTPStatus, header: str = "", body: str = "") -> bytes:
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}", *([header] if header else []),
        "Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body.encode())}", "Connection: close",
    ]  # fmt: skip
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
