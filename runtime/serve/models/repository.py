"""The models of a server: found in folders, loaded by version, replaced only by proved ones.

    FOLDER/lenet5_relu/1/manifest.json …     a model repository: versions are whole numbers
    FOLDER/lenet5_relu/2/manifest.json …

A bundle outside a repository is version 1 of the model that its manifest names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dlzoo.errors import ArgumentError, BundleError, DlzooError, describe_exception
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.protocol.refusal import Reason, RefusalError, without_paths
from dlzoo.runtime.serve.models.model_folders import folder_contents, models_in
from dlzoo.runtime.serve.models.served_model import ModelSettings, ServedModel, manifest_digest

_logger = logging.getLogger("dlzoo.serve")


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """One version of a model: its state and the reason for it."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, order=True)
class LoadedVersion:
    """A version of a model that answers requests, and its content."""

    name: str
    version: str
    digest: str


class Repository:
    """The models by name and version. All methods except the constructor run on the event loop."""

    def __init__(
        self, sources: Sequence[Path], settings: ModelSettings, *, keep_versions: int = 1
    ) -> None:
        """Find the models in the folders; nothing is loaded yet.

        Args:
            sources: bundles and model repositories.
            settings: how models are opened and run.
            keep_versions: how many of a model's newest versions to serve.

        Raises:
            ArgumentError: two bundles have the same name.
            BundleError: a folder is neither a bundle nor a model repository.
        """
        self.settings = settings
        self.keep_versions = keep_versions
        self._repositories = []
        self._bundles: dict[str, Path] = {}
        for source in sources:
            if (source / "manifest.json").is_file():
                name = Bundle.open(source).manifest.name
                if name in self._bundles:
                    raise ArgumentError(
                        f"{source} and {self._bundles[name]} are both named {name!r}, expected "
                        "different names. Put them into a model repository: FOLDER/NAME/VERSION."
                    )
                self._bundles[name] = source
            elif models_in(source):
                self._repositories.append(source)
            else:
                what = "holds no bundle" if source.is_dir() else "is not a folder"
                raise BundleError(
                    f"{source} {what}, expected a bundle, or a model repository with "
                    'MODEL/1/manifest.json. Make a bundle with "dlzoo export".'
                )
        self._loaded: dict[str, dict[str, ServedModel]] = {}
        self._failed: dict[tuple[str, str], tuple[str, str]] = {}
        self._unloaded: set[str] = set()
        self._lock = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="dlzoo-loader")
        self._retiring: set[asyncio.Task[None]] = set()

    def get(self, name: str, version: str = "") -> ServedModel:
        """Find a loaded model: the given version, or else the newest one.

        Raises:
            RefusalError: the model is unknown or not loaded.
        """
        versions = self._loaded.get(name)
        if not versions:
            known = "is not loaded" if name in self._unloaded else "is unknown"
            raise RefusalError(f"model {name[:100]!r} {known}", Reason.NOT_FOUND)
        if not version:
            return next(iter(versions.values()))
        try:
            return versions[version]
        except KeyError:
            raise RefusalError(
                f"model {name!r} has no version {version[:40]!r} loaded, expected one of "
                f"{', '.join(versions)}",
                Reason.NOT_FOUND,
            ) from None

    def models(self) -> list[ServedModel]:
        """List every loaded version of every model."""
        return [model for versions in self._loaded.values() for model in versions.values()]

    def versions_of(self, name: str) -> list[str]:
        """List the loaded versions of a model, the oldest first."""
        return sorted(self._loaded.get(name, {}), key=int)

    def index(self) -> list[IndexEntry]:
        """List every version that is in the folders or loaded."""
        entries = []
        folders = self._folders()
        for name in sorted(folders.keys() | self._loaded.keys()):
            loaded = self._loaded.get(name, {})
            for version in sorted(folders.get(name, {}).keys() | loaded.keys(), key=int):
                _, reason = self._failed.get((name, version), ("", ""))
                state = "READY" if version in loaded else "UNAVAILABLE"
                if not reason and state == "UNAVAILABLE":
                    reason = "unloaded"
                elif reason and state == "READY":
                    reason = f"the bundle loaded before is still served; the new one is not: {reason}"
                entries.append(
                    IndexEntry(name=name, version=version, state=state, reason=reason)
                )
        return entries

    async def load_all(self) -> None:
        """Load every model.

        Raises:
            DlzooError: the newest version of a model cannot be served.
        """
        for name in self._folders():
            async with self._lock:
                error = await self._refresh(name)
            if error is not None:
                raise error

    async def load_exactly(self, wanted: Sequence[LoadedVersion]) -> None:
        """Load exactly the versions that another process of this server has.

        Raises:
            DlzooError: a version cannot be served, or its bundle has changed.
        """
        async with self._lock:
            folders = self._folders()
            self._unloaded.update(folders.keys() - {version.name for version in wanted})
            for one in wanted:
                folder = folders.get(one.name, {}).get(one.version)
                if folder is None:
                    raise BundleError(f"{one.name} version {one.version} no longer exists.")
                model = await self._load_version(one.name, one.version, folder, None)
                self._loaded.setdefault(one.name, {})[one.version] = model
                if model.digest != one.digest:
                    raise BundleError(
                        f"{folder} has changed since its model was loaded. Load it again."
                    )

    def loaded_versions(self) -> list[LoadedVersion]:
        """List the loaded versions, of each model first the one that answers by default."""
        return [LoadedVersion(m.name, m.version, m.digest) for m in self.models()]

    async def load(self, name: str) -> None:
        """Load a model, or load it again if its bundle has changed.

        Raises:
            RefusalError: the model is unknown, or its newest version cannot be served; the versions
                loaded before stay loaded.
        """
        async with self._lock:
            if name not in self._folders():
                raise RefusalError(f"model {name[:100]!r} is unknown", Reason.NOT_FOUND)
            self._failed = {key: why for key, why in self._failed.items() if key[0] != name}
            error = await self._refresh(name)
            if error is None:
                self._unloaded.discard(name)
                return
            versions = self.versions_of(name)
            still = f". Version {versions[-1]} is still served" if versions else ""
            raise RefusalError(f"failed to load {name!r}: {self._without_paths(error)}{still}")

    async def unload(self, name: str) -> None:
        """Stop accepting requests for a model, and release it when it has answered the others.

        Raises:
            RefusalError: the model is unknown.
        """
        async with self._lock:
            if name not in self._folders() and name not in self._loaded:
                raise RefusalError(f"model {name[:100]!r} is unknown", Reason.NOT_FOUND)
            self._unloaded.add(name)
            for model in self._loaded.pop(name, {}).values():
                self._retire(model)

    async def poll(self) -> None:
        """Check the folders: load new and changed models, unload deleted ones."""
        async with self._lock:
            folders = self._folders()
            for name in [name for name in self._loaded if name not in folders]:
                for model in self._loaded.pop(name).values():
                    self._retire(model)
            for name in folders.keys() - self._unloaded:
                await self._refresh(name)

    async def close(self) -> None:
        """Answer the requests in progress, then release every model."""
        for model in self.models():
            self._retire(model)
        self._loaded.clear()
        if self._retiring:
            await asyncio.wait(self._retiring)
        self._loader.shutdown(wait=False, cancel_futures=True)

    async def _refresh(self, name: str) -> DlzooError | None:
        """Load a model's newest versions; return the error of the newest one that was refused."""
        folders = self._folders().get(name, {})
        loaded = self._loaded.get(name, {})
        served: dict[str, ServedModel] = {}
        newest_error = None
        for version in sorted(folders, key=int, reverse=True):
            if len(served) == self.keep_versions:
                break
            try:
                served[version] = await self._load_version(
                    name, version, folders[version], loaded.get(version)
                )
            except DlzooError as error:
                newest_error = newest_error or error
                # The proved version stays in service, whatever its folder holds now.
                if version in loaded:
                    served[version] = loaded[version]
        if not served:
            return newest_error
        self._loaded[name] = served
        for model in loaded.values():
            if model not in served.values():
                self._retire(model)
        return newest_error

    async def _load_version(
        self, name: str, version: str, folder: Path, loaded: ServedModel | None
    ) -> ServedModel:
        # A folder that was refused is tried again only after something in it has changed.
        contents = folder_contents(folder)
        bad_contents, reason = self._failed.get((name, version), ("", ""))
        if reason and bad_contents == contents:
            raise BundleError(reason)
        try:
            if loaded is not None and loaded.digest == manifest_digest(folder):
                self._failed.pop((name, version), None)
                return loaded
            loop = asyncio.get_running_loop()
            model = await loop.run_in_executor(
                self._loader, _load, name, version, folder, self.settings
            )
        except DlzooError as error:
            _logger.warning("%s version %s is not loaded: %s", name, version, error)
            self._failed[name, version] = (contents, self._without_paths(error))
            raise
        model.start()
        self._failed.pop((name, version), None)
        _logger.info("%s version %s is loaded and proved", name, version)
        return model

    def _retire(self, model: ServedModel) -> None:
        task = asyncio.get_running_loop().create_task(model.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _folders(self) -> dict[str, dict[str, Path]]:
        """Find every model's versions and their folders."""
        found = {name: {"1": path} for name, path in self._bundles.items()}
        for repository in self._repositories:
            for name, versions in models_in(repository).items():
                found.setdefault(name, versions)
        return found

    def _without_paths(self, error: Exception) -> str:
        known = [*self._repositories, *self._bundles.values()]
        folders = [str(path) for path in (*known, *(path.resolve() for path in known))]
        return without_paths(str(error), *folders)


def _load(name: str, version: str, folder: Path, settings: ModelSettings) -> ServedModel:
    try:
        return ServedModel.load(name, version, folder, settings)
    except DlzooError:
        raise
    except Exception as error:  # a damaged bundle must not end the server
        _logger.exception("%s version %s", name, version)
        raise BundleError(f"{folder} cannot be loaded: {describe_exception(error)}.") from None
