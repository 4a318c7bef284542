"""Throw-away distributions on disk: what an installer leaves behind, in a folder of the test."""

import itertools
import textwrap

from stevedore import _cache
from stevedore.extension import ExtensionManager

_numbers = itertools.count()


class Site:
    """A folder on `sys.path` with installed distributions; entry points are read from it like from any other."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder / "site"
        self.folder.mkdir()
        # stevedore keeps entry points under the user's cache folder unless a file `.disable` is there
        cache = folder / "cache"
        cache.mkdir()
        (cache / ".disable").touch()
        monkeypatch.setattr(_cache, "_c", _cache.Cache(str(cache)))
        # and those it has read once in the class, for as long as the process lives
        monkeypatch.setattr(ExtensionManager, "ENTRY_POINT_CACHE", {})
        monkeypatch.syspath_prepend(str(self.folder))

    def install(self, distribution, source, *, kind="analyzers", name="mine", target="Mine", module=None):
        """A distribution with one module and one entry point."""
        module = module or f"throwaway_{next(_numbers)}"
        (self.folder / f"{module}.py").write_text(textwrap.dedent(source))
        info = self.folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[wva.{kind}]\n{name} = {module}:{target}\n")
        return module
