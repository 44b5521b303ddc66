"""A store that several machines share: a folder, or any fsspec URL such as one of S3."""

from __future__ import annotations

import os
import uuid
from typing import Any


class SharedStoreError(RuntimeError):
    """The store cannot be used; the sentence says why and what to do."""


class SharedStore:
    """Files by path below one root; a file appears whole or not at all."""

    def __init__(self, url: str) -> None:
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        self.url = url
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise SharedStoreError(
                f"engine.store: {url} cannot be used ({error}); give a folder, or a URL of fsspec"
            ) from None
        self._local = isinstance(self._files, LocalFileSystem)

    def put(self, path: str, content: bytes) -> None:
        """Write a file, over what was there. Raises ``SharedStoreError``."""
        at = self._at(path)
        try:
            if not self._local:
                self._files.pipe_file(at, content)
                return
            os.makedirs(os.path.dirname(at), exist_ok=True)
            draft = f"{at}.{uuid.uuid4().hex}.writing"
            with open(draft, "wb") as file:
                file.write(content)
            os.replace(draft, at)
        except _troubles() as error:
            raise SharedStoreError(f"{self.url} refused {path} ({_words(error)}); see who may write there") from None

    def size(self, path: str) -> int | None:
        """Return the bytes of a file, or None where there is none. Raises ``SharedStoreError``."""
        try:
            return int(self._files.size(self._at(path)))
        except FileNotFoundError:
            return None
        except _troubles() as error:
            raise SharedStoreError(
                f"{self.url} did not answer ({_words(error)}); see whether it can be reached"
            ) from None

    def get(self, path: str) -> bytes | None:
        """Return the content of a file, or None where there is none. Raises ``SharedStoreError``."""
        try:
            content: bytes = self._files.cat_file(self._at(path))
            return content
        except FileNotFoundError:
            return None
        except _troubles() as error:
            raise SharedStoreError(
                f"{self.url} did not give {path} ({_words(error)}); see who may read there"
            ) from None

    def forget(self, path: str) -> None:
        """Remove a file or a folder with all that is in it, where it is there. Raises ``SharedStoreError``."""
        try:
            self._files.rm(self._at(path), recursive=True)
        except FileNotFoundError:
            return
        except _troubles() as error:
            raise SharedStoreError(
                f"{self.url} did not remove {path} ({_words(error)}); see who may write there"
            ) from None

    def forget_all(self, paths: list[str]) -> None:
        """Remove files, all at once. Raises ``SharedStoreError``."""
        try:
            if paths:
                self._files.rm([self._at(path) for path in paths])
        except FileNotFoundError:
            return
        except _troubles() as error:
            raise SharedStoreError(
                f"{self.url} did not remove files ({_words(error)}); see who may write there"
            ) from None

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, in order; none where there is no folder. Raises ``SharedStoreError``."""
        try:
            return sorted(one.rstrip("/").rpartition("/")[2] for one in self._files.ls(self._at(path), detail=False))
        except FileNotFoundError:
            return []
        except _troubles() as error:
            raise SharedStoreError(
                f"{self.url} did not answer ({_words(error)}); see whether it can be reached"
            ) from None

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"


def _troubles() -> tuple[Any, ...]:
    """Return what a file system raises. botocore's errors are no OSError, and it may not be there."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return (OSError,)
    return (OSError, BotoCoreError, ClientError)


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
