"""A model on a running inference server, over the Open Inference Protocol: http or grpc.

Every server that speaks the protocol works: dlzoo's own, Triton, KServe, MLServer, OpenVINO's.

Source: https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from dlzoo.errors import ServerError

Arrays = dict[str, npt.NDArray[Any]]
#: The variable that holds the key of a server that requires one.
API_KEY_VARIABLE = "DLZOO_API_KEY"


@dataclass(frozen=True, kw_only=True)
class ServerAddress:
    """The address of a server, and how to connect to it.

    Attributes:
        url: the URL as it was given; messages name the server by it.
        host: a host name or an IP address.
        port: a TCP port.
        secure: whether to use TLS.
        prefix: the path before ``/v2``, for HTTP only.
        timeout_s: how long to wait for one answer.
        api_key: sent as ``Authorization: Bearer KEY``; empty for none.
    """

    url: str
    host: str
    port: int
    secure: bool
    prefix: str = ""
    timeout_s: float
    api_key: str = ""


@dataclass(frozen=True, kw_only=True)
class RemoteTensor:
    """An input or output as a server declares it: -1 stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {list(self.shape)}"


@dataclass(frozen=True, kw_only=True)
class RemoteFacts:
    """The metadata of a server and of one of its models."""

    server: str
    platform: str
    versions: tuple[str, ...]
    inputs: tuple[RemoteTensor, ...]
    outputs: tuple[RemoteTensor, ...]

    @property
    def takes_image_files(self) -> bool:
        """Whether the model's only input is of bytes, as for an ensemble that decodes images."""
        return [tensor.datatype for tensor in self.inputs] == ["BYTES"]


def unreachable_server(url: str, reason: str, *, certificates: str) -> ServerError:
    """Make the error for a connection that failed.

    Args:
        url: the server's URL.
        reason: the connection's own message.
        certificates: the environment variable that names a file of trusted certificates.
    """
    reason = " ".join(reason.split())
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return ServerError(
            f"{url} is not trusted: no authority that is trusted here has signed its certificate. "
            f"Give the authority's certificate: {certificates}=FILE.pem."
        )
    return ServerError(
        f"{url} cannot be reached: {reason}. Start the server, or correct `server`."
    )


class RefusedError(Exception):
    """A server refused one request; the message is the server's own."""


class RemoteModel(Protocol):
    """One model of a server."""

    url: str
    model: str
    #: ``http`` or ``grpc``.
    protocol: str

    def facts(self) -> RemoteFacts:
        """Ask for the metadata of the server and the model.

        Raises:
            ServerError: the server is unreachable, lacks the model, or speaks another protocol.
        """

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        """Run the model once on the server, for these outputs.

        Raises:
            RefusedError: the server refuses the request.
            ServerError: the server is unreachable, or its answer breaks the protocol.
        """

    def classify(self, image: bytes) -> int | None:
        """Ask for the best class of an image file; None if the server takes no image files.

        Raises:
            RefusedError: the server refuses the image.
            ServerError: the server is unreachable, or its answer makes no sense.
        """

    def close(self) -> None:
        """Close the connection."""
