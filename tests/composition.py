"""Composing configurations faster in tests: Hydra reads, orders and merges the files of ``conf/`` once a process.

Nine tenths of the time of a composition are spent on files that do not change between tests. What Hydra has read,
ordered and merged is kept as bytes and given out as fresh copies. Hydra parses and applies overrides each time. Plugins
and search paths are composed without any of this.
"""

import pickle
from typing import Any

import pytest
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides, create_defaults_list
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override

from fer.config.conf import conf_folder


def keep_read_files(patch: pytest.MonkeyPatch) -> None:
    """Let Hydra read, order and merge the files of ``conf/`` once, until the patch is undone."""
    read, merge = ConfigRepository.load_config, ConfigLoaderImpl._compose_config_from_defaults_list
    kept: dict[Any, bytes] = {}

    def read_once(self: ConfigRepository, config_path: str) -> Any:
        if not _of_conf_alone(self):
            return read(self, config_path)
        return _kept(kept, config_path, lambda: read(self, config_path))

    def merge_once(self: ConfigLoaderImpl, defaults: Any, repo: Any) -> Any:
        if not _of_conf_alone(repo):
            return merge(self, defaults, repo)
        return _kept(kept, repr(defaults), lambda: merge(self, defaults, repo))

    def order_once(
        repo: Any, config_name: str | None, overrides_list: list[Override], prepend_hydra: bool, skip_missing: bool
    ) -> DefaultsList:
        if not _of_conf_alone(repo):
            return create_defaults_list(repo, config_name, overrides_list, prepend_hydra, skip_missing)
        values = Overrides(repo=repo, overrides_list=overrides_list).config_overrides
        choices = [one for one in overrides_list if not any(one is value for value in values)]
        key = (config_name, tuple(one.input_line for one in choices), prepend_hydra, skip_missing)
        made: DefaultsList = _kept(
            kept, key, lambda: create_defaults_list(repo, config_name, choices, prepend_hydra, skip_missing)
        )
        made.config_overrides = made.overrides.config_overrides = values
        return made

    patch.setattr(config_loader_impl, "create_defaults_list", order_once)
    patch.setattr(ConfigRepository, "load_config", read_once)
    patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merge_once)


def _of_conf_alone(repository: Any) -> bool:
    """Whether a configuration comes from Hydra's files and ``conf/`` alone: no search path, no network of a plugin."""
    paths = [source.full_path() for source in repository.get_sources()]
    own = paths == ["pkg://hydra.conf", f"file://{conf_folder()}", "structured://"]
    return own and not ConfigStore.instance().repo.get("model")


def _kept(kept: dict[Any, bytes], key: Any, make: Any) -> Any:
    if key not in kept:
        kept[key] = pickle.dumps(make())
    return pickle.loads(kept[key])
