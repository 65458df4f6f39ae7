"""One connection to a server that speaks HTTP, kept open from request to request."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping

from dlzoo.errors import ServerError
from dlzoo.runtime.remote.model import ServerAddress, unreachable_server

#: The header that says where the JSON of a body ends and the tensors begin.
JSON_LENGTH = "Inference-Header-Content-Length"


class HttpConnection:
    """One connection that sends requests and reads whole answers."""

    def __init__(self, address: ServerAddress) -> None:
        self.url = address.url
        self._timeout_s = address.timeout_s
        key = address.api_key
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        if address.secure:
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                address.host,
                address.port,
                timeout=address.timeout_s,
                context=ssl.create_default_context(),
            )
        else:
            self._connection = http.client.HTTPConnection(
                address.host, address.port, timeout=address.timeout_s
            )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes, str | None]:
        """Send a request, and return the answer's status, body and the length of its JSON.

        A connection that the server closed while it was idle is opened again.

        Raises:
            ServerError: the server is unreachable, or did not answer in time.
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
                # A request may be sent twice: inference changes nothing on the server.
                if not (again and had_connection):
                    raise self._unreachable(str(error) or "it closed the connection") from None
            except TimeoutError:
                self._connection.close()
                raise ServerError(
                    f"{self.url} did not answer within {self._timeout_s:g} s. "
                    "Look at the server's log, or raise `timeout_s`."
                ) from None
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                # For a certificate, strerror holds only a line number of OpenSSL's source.
                said = (
                    None
                    if isinstance(error, ssl.SSLError)
                    else getattr(error, "strerror", None)
                )
                raise self._unreachable(said or str(error)) from None
        raise AssertionError("unreachable")

    def _unreachable(self, reason: str) -> ServerError:
        return unreachable_server(self.url, reason, certificates="SSL_CERT_FILE")
