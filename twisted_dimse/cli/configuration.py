"""The configuration file: who is called what, and options that need not be typed.

    [peers]
    pacs = "PACS@10.0.0.5:104"

    [defaults]                  # for every command; common options only
    calling = "WORKSTATION"

    [defaults.store]            # for one command
    window = 8

It is ``--config FILE``, or else ``dimse.toml`` in the user's configuration folder. What stands on
the command line wins.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import click


def read(config: str | None) -> dict[str, Any]:
    """The file's tables; none where no file was asked for and none is there."""
    path = config or os.path.join(
        os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "dimse.toml"
    )
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        if config is not None:
            raise click.UsageError(f"--config {config}: no such file.") from None
        return {}
    except (OSError, ValueError) as error:
        named = f"--config {path}" if config else f"the configuration file {path}"
        raise click.UsageError(f"{named}: {error}.") from None


def peers(config: str | None) -> dict[str, str]:
    """The ``[peers]`` table."""
    named = _table(read(config).get("peers", {}), "[peers]")
    return {str(name): str(address) for name, address in named.items()}


def named_in(words: Sequence[str]) -> str | None:
    """The file that ``--config`` names among the words of a command line."""
    for at, word in enumerate(words):
        if word.startswith("--config="):
            return word.partition("=")[2]
        if word == "--config" and at + 1 < len(words):
            return words[at + 1]
    return None


def defaults(config: str | None, command: click.Command, common: Container[str]) -> dict[str, Any]:
    """The options of a command that ``[defaults]`` sets, by the names of its parameters.

    ``common`` has the names that ``[defaults]`` itself may set. Raises `click.UsageError`.
    """
    table = _table(read(config).get("defaults", {}), "[defaults]")
    own = _table(table.get(command.name or "", {}), f"[defaults.{command.name}]")
    general = {name: value for name, value in table.items() if not isinstance(value, dict)}
    parameters = {name: each for each in command.params for name in _names(each)}
    _check(general, common, "[defaults]")
    _check(own, parameters, f"[defaults.{command.name}]")
    given = {name: value for name, value in general.items() if name in parameters} | own
    return {str(parameters[name].name): value for name, value in given.items()}


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise click.UsageError(f"the configuration's {name} is no table.")
    return value


def _check(given: dict[str, Any], known: Container[str], table: str) -> None:
    for name in given:
        if name not in known:
            raise click.UsageError(f"the configuration's {table} has {name!r}, which is no option.")


def _names(parameter: click.Parameter) -> list[str]:
    """Its long options as a configuration writes them."""
    return [opt[2:].replace("-", "_") for opt in parameter.opts if opt.startswith("--")]
