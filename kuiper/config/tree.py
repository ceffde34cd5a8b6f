"""Everything that touches Hydra and OmegaConf; imported only by those who compose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kuiper.config.metadata import MISSING
from kuiper.errors import SpecError


class UserGroups(SearchPathPlugin):
    """Tells Hydra of the groups beside the spec.

    As an override, hydra.searchpath, their folder would have to survive Hydra's grammar, which
    the name of a folder need not.
    """

    folder: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder is not None:
            search_path.append(provider="spec", path=f"file://{self.folder.absolute()}")


Plugins.instance().register(UserGroups)


def composed(package: Path, user: Path | None, choices: Sequence[str]) -> DictConfig:
    """`package`/config.yaml with these choices ("group=name", "~group"), open to new keys.

    Raises:
        SpecError: Hydra cannot compose them.
    """
    UserGroups.folder = user
    try:
        with initialize_config_dir(str(package), job_name="kuiper", version_base="1.3"):
            tree = compose("config", overrides=list(choices))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise SpecError(" ".join(str(error).split())[:300], "correct the groups beside the spec") from error
    finally:
        UserGroups.folder = None
    OmegaConf.set_struct(tree, False)
    return tree


def unresolved(tree: DictConfig) -> dict[str, Any]:
    """The tree as plain data, interpolations left as they are."""
    return OmegaConf.to_container(tree, resolve=False)


def assign(tree: DictConfig, path: Sequence[str], value: Any) -> str:
    """Set tree[path[0]][path[1]]...; "" or why it cannot be set."""
    *parents, last = path
    for parent in parents:
        tree = tree[parent]
    try:
        tree[last] = value
    except OmegaConfBaseException as error:
        return _reason(error)
    return ""


def resolved(tree: DictConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """The tree as plain data, interpolations replaced; and the keys where that cannot be, with the reason."""
    conf: dict[str, Any] = {}
    bad: dict[str, str] = {}
    for key in list(tree):
        if OmegaConf.is_missing(tree, key):
            conf[key] = MISSING
            continue
        try:
            value = tree[key]
            conf[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except OmegaConfBaseException as error:
            bad[key] = _reason(error)
    return conf, bad


def _reason(error: Exception) -> str:
    return "cannot be resolved: " + (str(error).splitlines() or [type(error).__name__])[0]
