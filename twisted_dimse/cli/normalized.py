"""``dimse n-get``, ``n-set``, ``n-action``, ``n-create``, ``n-delete`` and ``n-event-report``: the
operations on normalized instances (PS3.7 10), each one call of an `Association`.

CLASS_UID and INSTANCE_UID are UIDs, or their keywords in PS3.6 where they have one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import click

from twisted_dimse.cli.common import Common, common_options, run, take_common, words_argument
from twisted_dimse.cli.keys import dataset_of, key_options
from twisted_dimse.cli.output import json_line

_Call = Callable[[Any], Awaitable[Any]]

_words = words_argument("PEER CLASS_UID INSTANCE_UID")
_context = click.option(
    "--context",
    metavar="UID",
    help="SOP class to negotiate, such as a Meta SOP class.  [default: CLASS_UID]",
)


def _type_of(what: str) -> Callable[[Any], Any]:
    return click.option(
        "--type",
        "number",
        type=click.IntRange(0, 0xFFFF),
        required=True,
        metavar="N",
        help=f"{what} Type ID.",
    )


@click.command("n-get", short_help="Read attributes.")
@_words
@click.option(
    "-a",
    "--attribute",
    "attributes",
    multiple=True,
    metavar="KEYWORD",
    help="An attribute by keyword or gggg,eeee; again for more.  [default: all]",
)
@_context
@common_options
def n_get(words: tuple[str, ...], attributes: tuple[str, ...], **options: Any) -> int:
    """Read attributes of an instance (N-GET, PS3.7 10.1.2).

    \b
    dimse n-get PRINTER@10.0.0.5:104 Printer PrinterInstance -a PrinterStatus
    dimse n-get RIS@10.0.0.5:104 \\
        ModalityPerformedProcedureStepRetrieve 1.2.3 --json
    """
    from twisted_dimse.keys import tag_of

    try:
        tags = [tag_of(attribute) for attribute in attributes]
    except ValueError as error:
        raise click.UsageError(f"-a: {error}.") from None
    target = _Target.of(words, options)
    return target.run(
        lambda association: association.n_get(
            target.sop_class, target.instance, tags, context=target.context
        )
    )


@click.command("n-set", short_help="Change attributes.")
@_words
@key_options
@_context
@common_options
def n_set(
    words: tuple[str, ...], keys: tuple[str, ...], dataset: str | None, **options: Any
) -> int:
    """Change attributes of an instance (N-SET, PS3.7 10.1.3).

    \b
    dimse n-set RIS@10.0.0.5:104 ModalityPerformedProcedureStep 1.2.3 \\
        --dataset completed.json
    dimse n-set PRINTER@10.0.0.5:104 BasicFilmBox 1.2.3 \\
        -k FilmOrientation=PORTRAIT --context BasicGrayscalePrintManagementMeta
    """
    modifications = dataset_of(keys, dataset)
    if not modifications:
        raise click.UsageError("Missing option: --dataset or -k, with what shall change.")
    target = _Target.of(words, options)
    return target.run(
        lambda association: association.n_set(
            target.sop_class, target.instance, modifications, context=target.context
        )
    )


@click.command("n-action", short_help="Have something done.")
@_words
@_type_of("Action")
@key_options
@_context
@common_options
def n_action(
    words: tuple[str, ...], number: int, keys: tuple[str, ...], dataset: str | None, **options: Any
) -> int:
    """Have something done to an instance (N-ACTION, PS3.7 10.1.4).

    \b
    dimse n-action PRINTER@10.0.0.5:104 BasicFilmSession 1.2.3 --type 1
    dimse n-action PACS@10.0.0.5:104 StorageCommitmentPushModel \\
        StorageCommitmentPushModelInstance --type 1 --dataset request.json
    """
    information = dataset_of(keys, dataset) or None
    target = _Target.of(words, options)
    return target.run(
        lambda association: association.n_action(
            target.sop_class, target.instance, number, information, context=target.context
        )
    )


@click.command("n-create", short_help="Create an instance.")
@words_argument("PEER CLASS_UID [INSTANCE_UID]")
@key_options
@_context
@common_options
def n_create(
    words: tuple[str, ...], keys: tuple[str, ...], dataset: str | None, **options: Any
) -> int:
    """Create an instance (N-CREATE, PS3.7 10.1.5). Without INSTANCE_UID the peer chooses one.

    \b
    dimse n-create RIS@10.0.0.5:104 ModalityPerformedProcedureStep 1.2.3 \\
        --dataset step.json
    dimse n-create PRINTER@10.0.0.5:104 BasicFilmSession -k NumberOfCopies=1 \\
        --context BasicGrayscalePrintManagementMeta
    """
    attributes = dataset_of(keys, dataset) or None
    target = _Target.of(words, options, instance_needed=False)
    return target.run(
        lambda association: association.n_create(
            target.sop_class, attributes, target.instance or None, context=target.context
        )
    )


@click.command("n-delete", short_help="Delete an instance.")
@_words
@_context
@common_options
def n_delete(words: tuple[str, ...], **options: Any) -> int:
    """Delete an instance (N-DELETE, PS3.7 10.1.6).

    \b
    dimse n-delete PRINTER@10.0.0.5:104 BasicFilmSession 1.2.3
    dimse n-delete PRINTER@10.0.0.5:104 BasicFilmBox 1.2.3 \\
        --context BasicGrayscalePrintManagementMeta
    """
    target = _Target.of(words, options)
    return target.run(
        lambda association: association.n_delete(
            target.sop_class, target.instance, context=target.context
        )
    )


@click.command("n-event-report", short_help="Report an event.")
@_words
@_type_of("Event")
@key_options
@_context
@common_options
def n_event_report(
    words: tuple[str, ...], number: int, keys: tuple[str, ...], dataset: str | None, **options: Any
) -> int:
    """Report an event of an instance of ours (N-EVENT-REPORT, PS3.7 10.1.1). We propose to be SCP.

    \b
    dimse n-event-report MODALITY@10.0.0.5:104 StorageCommitmentPushModel \\
        StorageCommitmentPushModelInstance --type 1 --dataset report.json
    dimse n-event-report VIEWER@10.0.0.5:104 \\
        ModalityPerformedProcedureStepNotification 1.2.3 --type 2 --json
    """
    information = dataset_of(keys, dataset) or None
    target = _Target.of(words, options)
    return target.run(
        lambda association: association.n_event_report(
            target.sop_class, target.instance, number, information, context=target.context
        ),
        role="scp",
    )


class _Target:
    """The instance that is meant, at a peer, and the SOP class to negotiate for it."""

    def __init__(self, common: Common, sop_class: str, instance: str, context: str | None) -> None:
        self.common = common
        self.sop_class = sop_class
        self.instance = instance
        self.context = context
        self._proposed = context or sop_class

    @classmethod
    def of(
        cls, words: tuple[str, ...], options: dict[str, Any], *, instance_needed: bool = True
    ) -> _Target:
        context = options.pop("context")
        common, rest = take_common(words, options)
        missing = ("CLASS_UID", "INSTANCE_UID")[len(rest) : 1 + instance_needed]
        if missing:
            raise click.UsageError(f"Missing argument '{missing[0]}'.")
        if len(rest) > 2:
            raise click.UsageError(f"Too many arguments: {' '.join(rest[2:])}.")
        sop_class, instance = (_uid(word) for word in (*rest, "")[:2])
        return cls(common, sop_class, instance, _uid(context) if context else None)

    def run(self, call: _Call, role: str | None = None) -> int:
        return run(lambda reactor: self._run(reactor, call, role), self.common)

    async def _run(self, reactor: Any, call: _Call, role: str | None) -> int:
        from twisted_dimse.errors import StatusError
        from twisted_dimse.services.calls import associated

        options = self.common.connect_options()
        if role is not None:
            options["roles"] = {self._proposed: role}
        async with associated(
            self.common.peer, contexts=[self._proposed], reactor=reactor, **options
        ) as association:
            try:
                response = await call(association)
            except StatusError as error:
                command = error.command or {}
                self._put(error.status, command.get("AffectedSOPInstanceUID"), error.dataset)
                raise
            self._put(response.status, response.sop_instance_uid, response.dataset)
            self._tell(response)
        return 0

    def _put(self, status: int, instance: str | None, dataset: Any) -> None:
        """The answer for a program."""
        if not self.common.as_json:
            return
        from twisted_dimse.cli.matches import json_model

        model = json_model(dataset) if dataset is not None else None
        uid = instance or self.instance or None
        line = {"status": status, "sop_instance_uid": uid, "dataset": model}
        click.echo(json_line(line))

    def _tell(self, response: Any) -> None:
        """The answer for a person."""
        from twisted_dimse.cli.matches import name_of, paths_of, texts_at
        from twisted_dimse.dimse.status import meaning
        from twisted_dimse.errors import printable

        if response.status:
            words = meaning(response.status, response.command.name)
            self.common.say(f"status 0x{response.status:04X} ({words})")
        if not self.instance and response.sop_instance_uid:
            self.common.say(response.sop_instance_uid)
        for path in paths_of(response.dataset) if response.dataset is not None else ():
            text = printable(texts_at(response.dataset, path))
            self.common.say(f"{name_of(path)}={text}")


def _uid(word: str) -> str:
    """A UID from itself or its keyword. Raises `click.UsageError`."""
    from twisted_dimse.uids import is_valid_uid, registered

    if not word or is_valid_uid(word):
        return word
    found = next((uid for uid, entry in registered().items() if entry[4] == word), None)
    if found is None:
        raise click.UsageError(f"{word!r} is neither a UID nor the keyword of one.")
    return found
