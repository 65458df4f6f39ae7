"""One connection to a server that speaks HTTP, kept open from request to request."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping

from dlzoo.errors import ServerError
from dlzoo.runtime.remote.model import unreachable_server

#: The header that says where the JSON of a body ends and the tensors begin.
JSON_LENGTH = "Inference-Header-Content-Length"


class HttpConnection:
    """Requests and whole answers; ``url`` is what messages call the server."""

    def __init__(
        self,
        url: str,
        host: str,
        port: int,
        *,
        secure: bool,
        timeout_s: float,
        headers: Mapping[str, str],
    ) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._headers = dict(headers)
        if secure:
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=timeout_s, context=ssl.create_default_context()
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=timeout_s)

    def close(self) -> None:
        """Let the connection go."""
        self._connection.close()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes, str | None]:
        """Status, body and the length of its JSON; a connection gone idle is opened again.

        Raises:
            ServerError: the server is away, or did not answer in time.
        """
        for again in (True, False):
            had_connection = self._connection.sock is not None
            try:
                self._connection.request(
                    method, path, body, {**self._headers, **(headers or {})}
                )
                answer = self._connection.getresponse()
                return answer.status, answer.read(), answer.getheader(JSON_LENGTH)
            except (
                http.client.RemoteDisconnected,
                BrokenPipeError,
                ConnectionResetError,
            ) as error:
                self._connection.close()
                # Inference may be asked twice: it changes nothing on the server.
                if not (again and had_connection):
                    raise self._away(str(error) or "it closed the connection") from None
            except TimeoutError:
                self._connection.close()
                raise ServerError(
                    f"{self.url} did not answer within {self._timeout_s:g} s. "
                    "Look at the server's log, or give --timeout."
                ) from None
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                # Of a certificate strerror has the line in OpenSSL's source alone.
                said = (
                    None
                    if isinstance(error, ssl.SSLError)
                    else getattr(error, "strerror", None)
                )
                raise self._away(said or str(error)) from None
        raise AssertionError("unreachable")

    def _away(self, reason: str) -> ServerError:
        return unreachable_server(self.url, reason, certificates="SSL_CERT_FILE")
