"""
Where the policy of a cluster is: a file, or a directory laid out like a mounted ConfigMap; read again when it changes.

The kubelet writes each generation of a ConfigMap into a directory of its own and then turns the link `..data` to it in
one step. That link is resolved once per read, so that what is read is always of one generation.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from wva_core.errors import PolicyError
from wva_core.policy.documents import parse_document
from wva_core.policy.layers import Layer, check_layer
from wva_core.policy.legacy import DEFAULT_KEY, saturation_layers

__all__ = ["PolicySource"]

POLICY_KEY = "policy.yaml"

_DATA_LINK = "..data"
_ATTEMPTS = 5
_Stamp: TypeAlias = tuple[object, ...]


class PolicySource:
    """
    A policy document that may change under us.

    A file holds a policy, or a ConfigMap manifest whose `data` is read like a directory. A directory holds

    - `policy.yaml`, and any number of `override-*.yaml` with one override each, or
    - the entries of the saturation ConfigMap of upstream WVA (`default` and overrides).

    Names that begin with a dot are not looked at.

    Args:
        path: of the file or directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._stamp: _Stamp | None = None
        self._content: str | None = None

    def poll(self) -> list[Layer] | None:
        """
        The layers of the policy if it is not the one of the last call, else None.

        Costs a few file status calls while nothing changes.

        Raises:
            PolicyError: what is there now cannot be used; once for each change. Later calls answer None until it
                changes again, so that the policy in force simply goes on.
        """
        stamp = self._look()
        if stamp == self._stamp:
            return None
        contents, self._stamp = self._read()
        content = _digest(contents)
        if content == self._content:
            return None
        self._content = content
        layers = self._layers(contents)
        for layer in layers:
            check_layer(layer)
        return layers

    # ---------------------------------------------------------------------------------------------------------------
    # Files

    def _look(self) -> _Stamp:
        """What changes when the policy does; empty while there is none."""
        try:
            return _stamp_of(self._generation())
        except OSError:
            return ()

    def _generation(self) -> Path:
        """The directory of the generation that counts now, or the path itself."""
        try:
            return self.path / (self.path / _DATA_LINK).readlink()
        except OSError:  # not a directory, or not mounted by a kubelet
            return self.path

    def _read(self) -> tuple[dict[str, bytes], _Stamp]:
        """The files of one generation, by name (a single file has none), and their stamp."""
        for _ in range(_ATTEMPTS):
            generation = self._generation()
            try:
                before = _stamp_of(generation)
                if generation.is_dir():
                    contents = {name: self._read_file(generation / name) for name in _names(generation)}
                else:
                    contents = {"": self._read_file(generation)}
                if _stamp_of(generation) == before:
                    return contents, before
            except FileNotFoundError:
                if not self.path.exists():
                    break  # else this generation was removed while it was read
            except OSError as exc:
                self._forget()
                raise self._refused(f"cannot be read: {exc.strerror or exc}", "make it readable") from exc
        else:
            self._forget(is_settled=not self._look())
            raise self._refused("changes faster than it can be read", "put complete files in place by renaming them")
        self._forget()
        raise self._refused("does not exist", "put it back or name another path")

    def _read_file(self, path: Path) -> bytes:
        return path.read_bytes()

    def _forget(self, *, is_settled: bool = True) -> None:
        """What is there now was not read: whatever is read next is new."""
        self._content = None
        self._stamp = self._look() if is_settled else None

    # ---------------------------------------------------------------------------------------------------------------
    # Layers

    def _layers(self, contents: Mapping[str, bytes]) -> list[Layer]:
        origin = str(self.path)
        if set(contents) != {""}:
            return self._layers_of_keys(contents, origin)
        data = parse_document(contents[""], origin, PolicyError)
        if isinstance(data, Mapping) and data.get("kind") == "ConfigMap":
            return self._layers_of_keys(self._keys_of_manifest(data), f"{origin}: data")
        return [Layer(origin, data)]

    def _keys_of_manifest(self, manifest: Mapping[str, object]) -> dict[str, bytes]:
        data = manifest.get("data")
        if not isinstance(data, Mapping) or not all(isinstance(value, str) for value in data.values()):
            raise PolicyError(
                "is not a mapping of keys to texts",
                object=str(self.path),
                key="data",
                remedy=f"give every key a text, as in {POLICY_KEY}: |",
            )
        return {str(key): value.encode() for key, value in data.items()}

    def _layers_of_keys(self, contents: Mapping[str, bytes], origin: str) -> list[Layer]:
        if POLICY_KEY in contents:
            for name in sorted(contents):
                self._refuse_foreign(name)
            overrides = [name for name in sorted(contents) if name != POLICY_KEY]
            policy = parse_document(contents[POLICY_KEY], f"{origin}/{POLICY_KEY}", PolicyError)
            return [
                Layer(f"{origin}/{POLICY_KEY}", policy),
                *(_override(contents[name], f"{origin}/{name}") for name in overrides),
            ]
        if contents and (DEFAULT_KEY in contents or not any(name.endswith((".yaml", ".yml")) for name in contents)):
            return saturation_layers(contents, origin)
        raise PolicyError(
            f"holds no policy among its keys: {', '.join(sorted(contents))}" if contents else "is empty",
            object=origin,
            remedy=f"add {POLICY_KEY}, or the entry {DEFAULT_KEY!r} of the saturation ConfigMap of upstream WVA",
        )

    def _refuse_foreign(self, name: str) -> None:
        if name != POLICY_KEY and not (name.startswith("override-") and name.endswith(".yaml")):
            raise PolicyError(
                f"is not read beside {POLICY_KEY}",
                object=str(self.path),
                key=name,
                remedy="remove it, or name it override-….yaml if it is one override",
            )

    def _refused(self, problem: str, remedy: str) -> PolicyError:
        return PolicyError(
            problem, object=str(self.path), remedy=f"{remedy}; until then the policy in force, if any, goes on"
        )


def _override(content: bytes, origin: str) -> Layer:
    return Layer(origin, {"overrides": [parse_document(content, origin, PolicyError)]}, places={"overrides[0]": ""})


def _names(directory: Path) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())


def _stamp_of(path: Path) -> _Stamp:
    status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        return (str(path), *_version(status))
    files = ((name, (path / name).stat()) for name in _names(path))
    return (str(path), *((name, *_version(file)) for name, file in files))


def _version(status: os.stat_result) -> tuple[int, ...]:
    # The change time as well: making a file readable changes nothing else.
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def _digest(contents: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(contents):
        digest.update(f"{name}\0{len(contents[name])}\0".encode() + contents[name])
    return digest.hexdigest()
