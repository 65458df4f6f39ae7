"""A model on a running inference server, over the Open Inference Protocol: http or grpc.

Any server that speaks the protocol will do: dlzoo's own, Triton, KServe, MLServer, OpenVINO's.

Source: https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from dlzoo.errors import ServerError

Arrays = dict[str, npt.NDArray[Any]]
#: The variable that holds the key of a server that wants one.
API_KEY_VARIABLE = "DLZOO_API_KEY"


@dataclass(frozen=True, kw_only=True)
class RemoteTensor:
    """An input or output as a server declares it: -1 is a size that may be any."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {list(self.shape)}"


@dataclass(frozen=True, kw_only=True)
class RemoteFacts:
    """What a server says of itself and of a model."""

    server: str
    platform: str
    versions: tuple[str, ...]
    inputs: tuple[RemoteTensor, ...]
    outputs: tuple[RemoteTensor, ...]

    @property
    def takes_image_files(self) -> bool:
        """Whether the model's only input are bytes, as of an ensemble that decodes images."""
        return [tensor.datatype for tensor in self.inputs] == ["BYTES"]


def unreachable_server(url: str, reason: str, *, certificates: str) -> ServerError:
    """The error of a connection that did not come about.

    Args:
        url: the server's.
        reason: what the connection says.
        certificates: the environment variable that names a file of trusted certificates.
    """
    reason = " ".join(reason.split())
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return ServerError(
            f"{url} is not believed: no authority that is trusted here has signed its certificate. "
            f"Give the authority's own: {certificates}=FILE.pem."
        )
    return ServerError(
        f"{url} cannot be reached: {reason}. Start the server, or mend --server."
    )


class RefusedError(Exception):
    """A server's refusal of one request, in its own words."""


class RemoteModel(Protocol):
    """One model of a server."""

    url: str
    model: str
    #: ``http`` or ``grpc``.
    protocol: str

    def facts(self) -> RemoteFacts:
        """Ask what the server and the model are.

        Raises:
            ServerError: the server is away, has no such model, or speaks another protocol.
        """

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        """Run the model once on the server, for these outputs.

        Raises:
            RefusedError: the server refuses the request.
            ServerError: the server is away, or its answer is not the protocol's.
        """

    def classify(self, image: bytes) -> int | None:
        """The best class of an image file; None where the server takes no image files.

        Raises:
            RefusedError: the server refuses the image.
            ServerError: the server is away, or its answer makes no sense.
        """

    def close(self) -> None:
        """Let the connection go."""
