"""Policy that changes on disk: files, plain directories, and directories as the kubelet writes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wva_core.errors import PolicyError
from wva_core.policy import Layer, PolicySource


class Mount:
    """A ConfigMap volume, written step by step as the kubelet does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        path.mkdir()

    def publish(self, *, remove_old: bool = True, **files: str) -> None:
        self.generation += 1
        old = self.path / "..data"
        old_target = old.readlink() if old.is_symlink() else None
        fresh = Path(f"..2026_01_01_00_00_00.{self.generation:09}")
        (self.path / fresh).mkdir()
        names = {key.replace("__", "-") + ("" if key == "default" else ".yaml"): text for key, text in files.items()}
        for name, text in names.items():
            (self.path / fresh / name).write_text(text)
        (self.path / "..data_tmp").symlink_to(fresh)
        (self.path / "..data_tmp").rename(self.path / "..data")
        for name in names:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(Path("..data") / name)
        for link in self.path.iterdir():
            if not link.name.startswith("..") and link.name not in names:
                link.unlink()
        if old_target and remove_old:
            shutil.rmtree(self.path / old_target)


class Interrupted(PolicySource):
    """A source during whose reading something happens, before its n-th file is read."""

    def __init__(self, path: Path, before: int, happens: Callable[[], None]) -> None:
        super().__init__(path)
        self.left, self.happens = before, happens

    def _read_file(self, path: Path) -> bytes:
        self.left -= 1
        if self.left == 0:
            self.happens()
        return super()._read_file(path)


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    return Mount(tmp_path / "policy")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy.yaml"


def values(layers: list[Layer] | None) -> list[Any]:
    assert layers is not None
    return [layer.values for layer in layers]


def refusal(source: PolicySource) -> str:
    with pytest.raises(PolicyError) as caught:
        source.poll()
    return str(caught.value)


OVERRIDE = "match: {modelID: m}\nbounds: {settleSeconds: %d}\n"


def settle(seconds: int) -> dict[str, Any]:
    return {"overrides": [{"match": {"modelID": "m"}, "bounds": {"settleSeconds": seconds}}]}


# A file


def test_a_file_is_read_once_for_every_change(file: Path):
    file.write_text("mode: act\n")
    source = PolicySource(file)
    assert values(source.poll()) == [{"mode": "act"}]
    assert source.poll() is None
    file.write_text("mode: observe\n")
    assert values(source.poll()) == [{"mode": "observe"}]
    assert source.poll() is None


def test_a_file_replaced_by_renaming_is_a_change(file: Path, tmp_path: Path):
    file.write_text("mode: act\n")
    source = PolicySource(file)
    source.poll()
    other = tmp_path / "other"
    other.write_text("interval: 9\n")
    other.rename(file)
    assert values(source.poll()) == [{"interval": 9}]


def test_a_change_that_keeps_size_and_time_is_seen(file: Path):
    file.write_text("interval: 5\n")
    source = PolicySource(file)
    source.poll()
    before = file.stat()
    file.write_text("interval: 6\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert values(source.poll()) == [{"interval": 6}]


def test_touching_a_file_changes_nothing(file: Path):
    file.write_text("mode: act\n")
    source = PolicySource(file)
    source.poll()
    os.utime(file, ns=(1, 1))
    assert source.poll() is None


def test_bad_content_is_reported_once(file: Path):
    file.write_text("mode: act\n")
    source = PolicySource(file)
    source.poll()
    file.write_text("mode: avdise\n")
    assert refusal(source) == (
        f"{file}: mode: is not known (got 'avdise'); did you mean 'advise'? give one of observe, advise, approve, act"
    )
    assert source.poll() is None
    os.utime(file, ns=(1, 1))
    assert source.poll() is None
    file.write_text("mode: act\n")
    assert values(source.poll()) == [{"mode": "act"}]


def test_an_empty_file_is_refused(file: Path):
    file.write_text("# nothing\n")
    assert refusal(PolicySource(file)).startswith(f"{file}: is empty; write a mapping with the keys profile, mode, ")


def test_a_deleted_file_is_reported_once_and_found_again(file: Path):
    file.write_text("mode: act\n")
    source = PolicySource(file)
    source.poll()
    file.unlink()
    assert refusal(source) == (
        f"{file}: does not exist; put it back or name another path; until then the policy in force, if any, goes on"
    )
    assert source.poll() is None
    file.write_text("mode: act\n")
    assert values(source.poll()) == [{"mode": "act"}]


def test_a_file_that_was_never_there_is_reported_once(file: Path):
    source = PolicySource(file)
    assert "does not exist" in refusal(source)
    assert source.poll() is None


def test_a_configmap_manifest_is_read_like_a_directory(file: Path):
    file.write_text('kind: ConfigMap\ndata:\n  default: "kvCacheThreshold: 0.7"\n  "m/1#ns": "kvCacheThreshold: 0.6"\n')
    first, second = PolicySource(file).poll() or []
    assert first.origin == f"{file}: data/default"
    assert first.values["analyzers"][0]["parameters"] == {"kvCacheThreshold": 0.7}
    assert second.values["overrides"][0]["match"] == {"modelID": "m/1", "namespace": "ns"}
    file.write_text("kind: ConfigMap\ndata:\n  policy.yaml: |\n    mode: act\n")
    assert values(PolicySource(file).poll()) == [{"mode": "act"}]


def test_a_manifest_without_texts_is_refused(file: Path):
    file.write_text("kind: ConfigMap\ndata: {policy.yaml: {mode: act}}\n")
    assert refusal(PolicySource(file)) == (
        f"{file}: data: is not a mapping of keys to texts; give every key a text, as in policy.yaml: |"
    )


def test_a_file_mounted_alone_follows_its_link(tmp_path: Path):
    mount = Mount(tmp_path / "policy")
    mount.publish(policy="mode: act")
    source = PolicySource(mount.path / "policy.yaml")
    assert values(source.poll()) == [{"mode": "act"}]
    mount.publish(policy="mode: observe")
    assert values(source.poll()) == [{"mode": "observe"}]


# A directory


def test_a_directory_holds_a_policy_and_its_overrides(tmp_path: Path):
    (tmp_path / "policy.yaml").write_text("mode: act\n")
    (tmp_path / "override-b.yaml").write_text(OVERRIDE % 2)
    (tmp_path / "override-a.yaml").write_text(OVERRIDE % 1)
    (tmp_path / ".policy.yaml.swp").write_text("x")
    (tmp_path / "folder").mkdir()
    layers = PolicySource(tmp_path).poll() or []
    assert values(layers) == [{"mode": "act"}, settle(1), settle(2)]
    assert (
        layers[1].origin_of("overrides[0].bounds.settleSeconds") == f"{tmp_path}/override-a.yaml: bounds.settleSeconds"
    )


def test_an_error_in_an_override_names_its_own_file_and_key(tmp_path: Path):
    (tmp_path / "policy.yaml").write_text("mode: act\n")
    (tmp_path / "override-a.yaml").write_text("match: {modelID: m}\nbounds: {settleSecond: 1}\n")
    assert refusal(PolicySource(tmp_path)) == (
        f"{tmp_path}/override-a.yaml: bounds.settleSecond: is not a known key (got 1); did you mean 'settleSeconds'?"
        " known keys: settleSeconds, staleAfterSeconds, unavailableAfterSeconds, behavior"
    )


@pytest.mark.parametrize("name", ["extra.yaml", "override-x.yml", "default", "policy.yaml~"])
def test_a_file_that_would_not_be_read_is_refused(tmp_path: Path, name: str):
    (tmp_path / "policy.yaml").write_text("mode: act\n")
    (tmp_path / name).write_text("mode: act\n")
    assert refusal(PolicySource(tmp_path)) == (
        f"{tmp_path}: {name}: is not read beside policy.yaml; remove it, or name it override-….yaml if it is one"
        " override"
    )


def test_a_directory_without_policy_is_refused(tmp_path: Path):
    remedy = "add policy.yaml, or the entry 'default' of the saturation ConfigMap of upstream WVA"
    assert refusal(PolicySource(tmp_path)) == f"{tmp_path}: is empty; {remedy}"
    (tmp_path / "override-a.yaml").write_text(OVERRIDE % 1)
    assert refusal(PolicySource(tmp_path)) == (f"{tmp_path}: holds no policy among its keys: override-a.yaml; {remedy}")


@pytest.mark.parametrize("names", [("default",), ("default", "granite.yaml"), ("granite",)])
def test_a_directory_of_saturation_entries_is_adapted(tmp_path: Path, names: tuple[str, ...]):
    for name in names:
        (tmp_path / name).write_text(
            "kvCacheThreshold: 0.7\n" + ("" if name == "default" else "model_id: m\nnamespace: n\n")
        )
    layers = PolicySource(tmp_path).poll() or []
    assert layers[0].values["analyzers"][0]["type"] == "saturation-v1"
    assert len(layers) == 1 + len([name for name in names if name != "default"])


def test_a_file_added_or_removed_is_a_change(tmp_path: Path):
    (tmp_path / "policy.yaml").write_text("mode: act\n")
    source = PolicySource(tmp_path)
    source.poll()
    (tmp_path / "override-a.yaml").write_text(OVERRIDE % 1)
    assert len(source.poll() or []) == 2
    (tmp_path / "override-a.yaml").unlink()
    assert len(source.poll() or []) == 1
    assert source.poll() is None


# As the kubelet writes it


def test_each_generation_is_read_once(mount: Mount):
    mount.publish(policy="mode: act", override__a=OVERRIDE % 1)
    source = PolicySource(mount.path)
    assert values(source.poll()) == [{"mode": "act"}, settle(1)]
    assert source.poll() is None
    mount.publish(policy="mode: observe")
    assert values(source.poll()) == [{"mode": "observe"}]
    assert source.poll() is None


def test_a_generation_with_the_same_content_changes_nothing(mount: Mount):
    mount.publish(policy="mode: act")
    source = PolicySource(mount.path)
    source.poll()
    mount.publish(policy="mode: act")
    assert source.poll() is None


def test_a_bad_generation_is_reported_once_and_the_next_one_read(mount: Mount):
    mount.publish(policy="mode: act")
    source = PolicySource(mount.path)
    source.poll()
    mount.publish(policy="mode: ]")
    assert f"{mount.path}/policy.yaml: line 1" in refusal(source)
    assert source.poll() is None
    mount.publish(policy="mode: act")
    assert values(source.poll()) == [{"mode": "act"}]


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("remove_old", [True, False])
def test_a_swap_while_reading_never_mixes_generations(mount: Mount, before: int, remove_old: bool):
    def generation(number: int) -> dict[str, str]:
        return {"policy": f"interval: {number}", "override__a": OVERRIDE % number, "override__b": OVERRIDE % number}

    mount.publish(**generation(1))
    source = Interrupted(mount.path, before, lambda: mount.publish(remove_old=remove_old, **generation(2)))
    whole = {number: [{"interval": number}, settle(number), settle(number)] for number in (1, 2)}
    # The old generation is read to its end if it is still there, and read anew if it is gone.
    assert values(source.poll()) == whole[2 if remove_old else 1]
    if not remove_old:
        assert values(source.poll()) == whole[2]
    assert source.poll() is None


def test_a_plain_directory_that_changes_while_it_is_read_is_read_again(tmp_path: Path):
    (tmp_path / "policy.yaml").write_text("interval: 1")
    (tmp_path / "override-a.yaml").write_text(OVERRIDE % 1)

    def rewrite() -> None:
        (tmp_path / "policy.yaml").write_text("interval: 2")
        (tmp_path / "override-a.yaml").write_text(OVERRIDE % 22)

    # The override sorts first: it is read before the change, the policy after it.
    source = Interrupted(tmp_path, 2, rewrite)
    assert values(source.poll()) == [{"interval": 2}, settle(22)]
    assert source.poll() is None


def test_what_never_stands_still_is_refused_and_tried_again(tmp_path: Path):
    file = tmp_path / "policy.yaml"
    file.write_text("interval: 1")

    class Restless(PolicySource):
        count = 0

        def _read_file(self, path: Path) -> bytes:
            content = super()._read_file(path)
            self.count += 1
            if self.count <= 5:
                file.write_text(f"interval: {10**self.count}")
            return content

    source = Restless(file)
    assert refusal(source) == (
        f"{file}: changes faster than it can be read; put complete files in place by renaming them;"
        " until then the policy in force, if any, goes on"
    )
    assert values(source.poll()) == [{"interval": 100000}]


def test_an_unmounted_directory_is_reported_once(mount: Mount):
    mount.publish(policy="mode: act")
    source = PolicySource(mount.path)
    source.poll()
    shutil.rmtree(mount.path)
    assert f"{mount.path}: does not exist; " in refusal(source)
    assert source.poll() is None


def test_a_link_to_a_generation_that_is_gone_is_reported_once(mount: Mount):
    mount.publish(policy="mode: act")
    source = PolicySource(mount.path)
    source.poll()
    shutil.rmtree(mount.path / (mount.path / "..data").readlink())
    refusal(source)
    assert source.poll() is None
    mount.generation = 0
    (mount.path / "..data").unlink()
    mount.publish(policy="mode: act")
    assert values(source.poll()) == [{"mode": "act"}]
