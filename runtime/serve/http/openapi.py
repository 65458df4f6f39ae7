"""The HTTP service as an OpenAPI document, for people and for tools that make clients or tests."""

from __future__ import annotations

from functools import cache
from typing import Any

from dlzoo.runtime.protocol.datatypes import NUMPY_DTYPES
from dlzoo.version import __version__

_TENSOR_DATA = {"type": "array", "items": {}}
_PARAMETERS = {"type": "object", "additionalProperties": True}
_SIZES = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_TEXT = {"type": "string"}
_DATATYPE = {"type": "string", "enum": list(NUMPY_DTYPES)}
#: The most classes to ask for, a number of six digits.
MAX_CLASSES = 999_999
_HEADER_LENGTH = {
    "description": "How many bytes of the body are JSON, if binary tensor data follow it.",
    "schema": {"type": "integer", "minimum": 0},
}
_INFER_EXAMPLE = {
    "inputs": [
        {"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [0.5, -1.0]},
    ]
}


def _object(
    required: dict[str, Any], optional: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }


_SCHEMAS: dict[str, Any] = {
    "Error": _object({"error": _TEXT}),
    "ServerMetadata": _object(
        {"name": _TEXT, "version": _TEXT, "extensions": {"type": "array", "items": _TEXT}}
    ),
    "TensorMetadata": _object(
        {
            "name": _TEXT,
            "datatype": _DATATYPE,
            "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
        }
    ),
    "InferRequest": _object(
        {
            "inputs": {
                "type": "array",
                "minItems": 1,
                "items": _object(
                    {"name": _TEXT, "shape": _SIZES, "datatype": _DATATYPE},
                    {"data": _TENSOR_DATA, "parameters": _PARAMETERS},
                ),
            }
        },
        {
            "id": _TEXT,
            "parameters": _PARAMETERS,
            "outputs": {
                "type": "array",
                "items": _object({"name": _TEXT}, {"parameters": _PARAMETERS}),
            },
        },
    ),
    "InferResponse": _object(
        {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "outputs": {
                "type": "array",
                "items": _object(
                    {"name": _TEXT, "shape": _SIZES, "datatype": _DATATYPE},
                    {"data": _TENSOR_DATA, "parameters": _PARAMETERS},
                ),
            },
        },
        {"id": _TEXT},
    ),
    "Classification": _object(
        {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "classes": {
                "type": "array",
                "items": _object(
                    {"index": {"type": "integer"}, "label": _TEXT, "score": {"type": "number"}}
                ),
            },
        }
    ),
}
_SCHEMAS["ModelMetadata"] = _object(
    {
        "name": _TEXT,
        "versions": {"type": "array", "items": _TEXT},
        "platform": _TEXT,
        "inputs": {"type": "array", "items": {"$ref": "#/components/schemas/TensorMetadata"}},
        "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/TensorMetadata"}},
    }
)
_SCHEMAS["RepositoryIndex"] = {
    "type": "array",
    "items": _object({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT}),
}
_ANY_OBJECT = {"type": "object"}
_BINARY = {"type": "string", "format": "binary"}
_ERRORS = {
    "400": "The request does not fit the protocol or the model.",
    "401": "The API key is missing or wrong.",
    "403": "The server does not allow it.",
    "404": "There is no such model or version.",
    "408": "The request did not arrive in time.",
    "413": "The request is too large.",
    "429": "The server is busy; Retry-After says when to try again.",
    "500": "The server failed.",
    "501": "The server does not support this.",
    "503": "The server does not accept requests now.",
    "504": "The deadline has passed.",
}
_PATH_PARAMETERS = {
    "{model}": {"name": "model", "in": "path", "required": True, "schema": _TEXT},
    "{version}": {"name": "version", "in": "path", "required": True, "schema": _TEXT},
}


def _operation(
    path: str,
    summary: str,
    answer: dict[str, Any] | str | None,
    *,
    body: dict[str, Any] | None = None,
    is_body_required: bool = True,
    query: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Describe one operation; ``answer`` is a JSON schema, another media type, or None."""
    done: dict[str, Any] = {"description": "Done."}
    if isinstance(answer, str):
        done["content"] = {answer: {"schema": _TEXT}}
    elif answer is not None:
        done["content"] = {"application/json": {"schema": answer}}
    responses: dict[str, Any] = {"200": done}
    for code, description in _ERRORS.items():
        responses[code] = {
            "description": description,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}
            },
        }
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    parameters = [p for part, p in _PATH_PARAMETERS.items() if part in path]
    if parameters or query:
        operation["parameters"] = [*parameters, *(query or [])]
    if body is not None:
        operation["requestBody"] = {"content": body, "required": is_body_required}
    return operation


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _infer_operation(path: str) -> dict[str, Any]:
    header = "Inference-Header-Content-Length"
    operation = _operation(
        path,
        f"Run the model. Binary tensor data may follow the JSON; {header} is then the JSON's size.",
        _ref("InferResponse"),
        body={
            "application/json": {"schema": _ref("InferRequest"), "example": _INFER_EXAMPLE},
            "application/octet-stream": {"schema": _BINARY},
        },
    )
    operation["parameters"].append({"name": header, "in": "header", **_HEADER_LENGTH})
    done = operation["responses"]["200"]
    done["content"]["application/octet-stream"] = {"schema": _BINARY}
    done["headers"] = {header: _HEADER_LENGTH}
    return operation


def _of_models(paths: dict[str, Any]) -> None:
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):

        def get(
            ending: str, summary: str, answer: dict[str, Any] | str, prefix: str = prefix
        ) -> None:
            paths[f"{prefix}{ending}"] = {"get": _operation(prefix, summary, answer)}

        paths[f"{prefix}/infer"] = {"post": _infer_operation(prefix)}
        images = {
            kind: {"schema": _BINARY} for kind in ("image/jpeg", "image/png", "image/webp")
        }
        sizes = {"type": "integer", "minimum": 1, "maximum": MAX_CLASSES, "default": 5}
        k = {"name": "k", "in": "query", "schema": sizes}
        paths[f"{prefix}/classify"] = {
            "post": _operation(
                prefix,
                "The k best classes of an image, with the bundle's own preprocessing.",
                _ref("Classification"),
                body=images,
                query=[k],
            )
        }
        get("", "The model's inputs and outputs.", _ref("ModelMetadata"))
        get("/ready", "Whether the model accepts requests.", _ANY_OBJECT)
        get("/config", "The model's configuration, in Triton's format.", _ANY_OBJECT)
        get("/stats", "The model's statistics.", _ANY_OBJECT)
        get("/card", "A summary of the model and its proof.", _ANY_OBJECT)
        get("/report", "The bundle's report page.", "text/html")


@cache
def openapi_document() -> dict[str, Any]:
    """Build the document, in OpenAPI 3.1."""
    paths: dict[str, Any] = {}

    def add(method: str, path: str, summary: str, answer: dict[str, Any] | str | None) -> None:
        body = {"application/json": {"schema": _ANY_OBJECT}} if method == "post" else None
        paths[path] = {
            method: _operation(path, summary, answer, body=body, is_body_required=False)
        }

    add("get", "/v2", "The server's name, version and extensions.", _ref("ServerMetadata"))
    add("get", "/v2/health/live", "Whether the process answers.", _ANY_OBJECT)
    add("get", "/v2/health/ready", "Whether the server accepts requests.", _ANY_OBJECT)
    _of_models(paths)
    add("get", "/v2/models/stats", "The statistics of every model.", _ANY_OBJECT)
    add("post", "/v2/repository/index", "Every model and version.", _ref("RepositoryIndex"))
    repository = "/v2/repository/models/{model}"
    add("post", f"{repository}/load", "Load a model, or load it again.", None)
    add("post", f"{repository}/unload", "Unload a model.", None)
    add("get", "/metrics", "Prometheus' metrics.", "text/plain")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dlzoo serve",
            "version": __version__,
            "description": "The Open Inference Protocol, Triton's extensions, and images.",
        },
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }
