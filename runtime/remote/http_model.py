"""The protocol over HTTP: JSON, followed by the tensors as bytes if the server accepts them.

Source: Open Inference Protocol, HTTP/REST; Triton's binary tensor data extension.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from dlzoo.errors import ServerError
from dlzoo.runtime.remote.http_connection import JSON_LENGTH, HttpConnection
from dlzoo.runtime.remote.model import (
    API_KEY_VARIABLE,
    Arrays,
    RefusedError,
    RemoteFacts,
    RemoteTensor,
    ServerAddress,
)
from dlzoo.runtime.remote.tensors import (
    answer_array,
    answer_array_from_json,
    datatype_of,
    wire_bytes,
)

_BINARY = "binary_tensor_data"


class HttpModel:
    """One model of a server that speaks HTTP, over one connection that stays open."""

    protocol = "http"

    def __init__(self, address: ServerAddress, model: str) -> None:
        self.url, self.model = address.url, model
        self._path = f"{address.prefix}/v2/models/{quote(model, safe='')}"
        self._prefix = address.prefix
        self._takes_bytes: bool | None = None
        self._connection = HttpConnection(address)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def facts(self) -> RemoteFacts:
        """Ask for the metadata of the server and the model.

        Raises:
            ServerError: the server is unreachable, lacks the model, or speaks another protocol.
        """
        server = self._server_facts()
        status, body, _ = self._connection.send("GET", self._path)
        if status != 200:
            self._refuse_model(status, body)
        document = self._document(body, f"GET {self._path}")
        try:
            return RemoteFacts(
                server=f"{server.get('name', 'a server')} {server.get('version', '')}".strip(),
                platform=str(document.get("platform", "")),
                versions=tuple(str(version) for version in document.get("versions") or ()),
                inputs=_tensors(document["inputs"]),
                outputs=_tensors(document["outputs"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._not_the_protocol(f"GET {self._path} lacks {error}") from None

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        """Run the model once on the server, for these outputs.

        Raises:
            RefusedError: the server refuses the request.
            ServerError: the server is unreachable, or its answer breaks the protocol.
        """
        if self._takes_bytes is None:
            self._server_facts()
        tensors, parts = [], []
        for name, array in inputs.items():
            datatype = datatype_of(array)
            tensor: dict[str, Any] = {
                "name": name,
                "datatype": datatype,
                "shape": list(array.shape),
            }
            if self._takes_bytes:
                parts.append(wire_bytes(datatype, array))
                tensor["parameters"] = {"binary_data_size": len(parts[-1])}
            else:
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise RefusedError(
                        "JSON has no NaN or Inf, and the server takes no binary data"
                    )
                tensor["data"] = array.reshape(-1).tolist()
            tensors.append(tensor)
        asked = {"binary_data": True} if self._takes_bytes else {}
        document = {
            "inputs": tensors,
            "outputs": [{"name": name, "parameters": asked} for name in outputs],
        }
        head = json.dumps(document, allow_nan=False).encode()
        headers = {"Content-Type": "application/json"}
        if self._takes_bytes:
            headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(head))}
        status, body, length = self._connection.send(
            "POST", f"{self._path}/infer", b"".join([head, *parts]), headers
        )
        if status != 200:
            self._refuse(status, body)
        return self._arrays(body, length)

    def classify(self, image: bytes) -> int | None:
        """Ask for the best class of an image file; None if the server takes no image files.

        Raises:
            RefusedError: the server refuses the image.
            ServerError: the server is unreachable, or its answer makes no sense.
        """
        path = f"{self._path}/classify"
        headers = {"Content-Type": "application/octet-stream"}
        status, body, _ = self._connection.send("POST", path, image, headers)
        if status in (404, 405, 501):
            return None
        if status != 200:
            self._refuse(status, body)
        try:
            return int(self._document(body, f"POST {path}")["classes"][0]["index"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._not_the_protocol(f"POST {path} lacks {error}") from None

    def _server_facts(self) -> dict[str, Any]:
        path = f"{self._prefix}/v2"
        status, body, _ = self._connection.send("GET", path)
        if status == 401:
            self._refuse_key(body)
        document = self._document(body, f"GET {path}") if status == 200 else {}
        if status not in (200, 404):
            raise self._not_the_protocol(f"GET {path} gave status {status}")
        extensions = document.get("extensions")
        self._takes_bytes = isinstance(extensions, list) and _BINARY in extensions
        return document

    def _arrays(self, body: bytes, length: str | None) -> Arrays:
        head, rest = body, memoryview(b"")
        if length is not None:
            if not length.isdigit() or int(length) > len(body):
                raise self._not_the_protocol(
                    f"{JSON_LENGTH} is {length!r} of {len(body)} bytes"
                )
            head, rest = body[: int(length)], memoryview(body)[int(length) :]
        arrays: Arrays = {}
        try:
            for output in self._document(head, "the answer")["outputs"]:
                name, datatype = str(output["name"]), str(output["datatype"])
                shape = tuple(int(size) for size in output["shape"])
                size = (output.get("parameters") or {}).get("binary_data_size")
                if size is None:
                    arrays[name] = answer_array_from_json(
                        name, datatype, shape, output["data"]
                    )
                    continue
                if not 0 <= int(size) <= len(rest):
                    raise ValueError(f"{name!r} has {size} bytes, {len(rest)} arrived")
                arrays[name] = answer_array(name, datatype, shape, rest[: int(size)])
                rest = rest[int(size) :]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise self._not_the_protocol(f"the answer cannot be read: {error}") from None
        return arrays

    def _document(self, body: bytes, what: str) -> dict[str, Any]:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self._not_the_protocol(f"{what} is not a JSON object")
        return document

    def _not_the_protocol(self, what: str) -> ServerError:
        return ServerError(
            f"{self.url} does not speak the Open Inference Protocol: {what}. Correct `server`."
        )

    def _refuse_key(self, body: bytes) -> NoReturn:
        raise ServerError(
            f"{self.url} requires an API key: {_message(body)}. Set {API_KEY_VARIABLE}."
        )

    def _refuse_model(self, status: int, body: bytes) -> NoReturn:
        if status in (401, 403):
            self._refuse_key(body)
        names = self._names()
        offer = f"It has {', '.join(names)}; g" if names else "G"
        raise ServerError(
            f"{self.url} has no model {self.model!r} (status {status}: {_message(body)}). "
            f"{offer}ive `model`."
        )

    def _names(self) -> list[str]:
        """List the server's models, if it has Triton's extension for that."""
        headers = {"Content-Type": "application/json"}
        path = f"{self._prefix}/v2/repository/index"
        status, body, _ = self._connection.send("POST", path, b"{}", headers)
        try:
            entries = json.loads(body) if status == 200 else []
            return sorted({str(entry["name"]) for entry in entries})[:10]
        except (ValueError, KeyError, TypeError):
            return []

    def _refuse(self, status: int, body: bytes) -> NoReturn:
        if status in (401, 403):
            self._refuse_key(body)
        raise RefusedError(f"the server refuses it with status {status}: {_message(body)}")


def _message(body: bytes) -> str:
    """Cut a server's own message to one short line."""
    try:
        document = json.loads(body)
        text = str(document.get("error") or document.get("detail") or "no reason given")
    except (ValueError, AttributeError):
        text = body.decode("utf-8", "replace")
    return " ".join(text.split())[:300].rstrip(".") or "no reason given"


def _tensors(entries: Any) -> tuple[RemoteTensor, ...]:
    return tuple(
        RemoteTensor(
            name=str(entry["name"]),
            datatype=str(entry["datatype"]),
            shape=tuple(int(size) for size in entry["shape"]),
        )
        for entry in entries
    )
