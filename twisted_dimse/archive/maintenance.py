"""Maintenance of an archive that no server is using: verify, import, delete. All of it blocks.

    with ArchiveFolder("./archive") as folder:
        for finding in verify(folder):
            print(finding.path, finding.problem)

Each function yields what it did as it goes, so that a caller can show its progress.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import sqlalchemy as sa

from twisted_dimse.archive import schema
from twisted_dimse.archive.folder import ArchiveFolder
from twisted_dimse.archive.header import InstanceHeader, Unindexable, inode_of, is_text
from twisted_dimse.archive.indexer import add_those_that_can_be, headers_of
from twisted_dimse.archive.rows import Replaced
from twisted_dimse.datastream import expand_paths, files_below, part10_header
from twisted_dimse.services.syncing import sync_folders_of
from twisted_dimse.uids import is_valid_uid

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Finding:
    """One file that was looked at. `problem` is empty where all is well; `mended` says whether it
    is now."""

    path: str
    problem: str = ""
    mended: bool = False


def verify(folder: ArchiveFolder) -> Iterator[Finding]:
    """Compare files and index both ways, and repair the index.

    A file that the index lacks, or has otherwise, is indexed anew; a row without a file is taken
    out. A file that is damaged, no instance, or another one of an instance that the index has from
    a file that is there, is reported and left alone, as are folders that cannot be read.
    """
    _take_up(folder)
    known = dict(_known(folder))
    anew = folder.index.reading is not None
    looked_at: list[tuple[InstanceHeader, str]] = []
    unreadable: list[str] = []
    unlisted: list[OSError] = []
    for path in files_below(folder.instances, unlisted):
        relative = folder.relative(path)
        expected = known.pop(relative, None)
        try:
            if not is_text(relative):
                raise Unindexable(f"{path}: a name that is not in UTF-8")
            header = replace(InstanceHeader.read(path), path=relative)
        except (OSError, Unindexable) as error:
            if isinstance(error, OSError):
                unreadable.append(relative)
            yield Finding(relative, f"cannot be read: {error}")
            continue
        problem = ""
        if expected != (header.sop_instance_uid, header.offset, header.size):
            problem = "not in the index" if expected is None else "not as the index has it"
        if not problem and not anew:
            yield Finding(relative)
            continue
        looked_at.append((header, problem))
        if len(looked_at) >= _BATCH:
            yield from _put_right(folder, looked_at, anew)
            looked_at = []
    yield from _put_right(folder, looked_at, anew)
    for failed in unlisted:
        unreadable.append(folder.relative(failed.filename))
        yield Finding(unreadable[-1], f"cannot be read: {failed}")
    kept = tuple(f"{failed.filename}/" for failed in unlisted)
    gone = [path for path in known if not folder.absolute(path).startswith(kept)]
    folder.index.remove(gone)
    for relative in gone:
        yield Finding(relative, "in the index, but there is no file", mended=True)
    folder.index.reading = None
    folder.index.forget_unreadable(folder.index.unreadable())
    folder.index.note_unreadable(path for path in unreadable if is_text(path))


def _take_up(folder: ArchiveFolder) -> None:
    """Index what a server that crashed left over, as its next start would."""
    left = folder.journal.left_over()
    for start in range(0, len(left), _BATCH):
        _index(folder, headers_of(folder, left[start : start + _BATCH]))
    folder.journal.forget_all()


def _put_right(
    folder: ArchiveFolder, looked_at: list[tuple[InstanceHeader, str]], anew: bool
) -> Iterator[Finding]:
    """Index files, but for those whose instance the index has from another file that is there."""
    held = _paths_held(folder, (header for header, _ in looked_at))
    newer = folder.index.newer(list(held))
    right: list[tuple[InstanceHeader, str]] = []
    for header, problem in looked_at:
        other = held.setdefault(header.sop_instance_uid, header.path)
        if other == header.path or not os.path.exists(folder.absolute(other)):
            held[header.sop_instance_uid] = header.path
            right.append((header, problem))
        elif header.sop_instance_uid in newer:
            folder.remove(Replaced(header.path, header.inode))
            yield Finding(header.path, f"replaced by {other}", mended=True)
        else:
            yield Finding(header.path, f"the same instance as {other}, which the index has")
    headers = [header for header, _ in right]
    add_those_that_can_be(folder.index.renew if anew else folder.index.add, headers)
    held = _paths_held(folder, headers)
    for header, problem in right:
        if held.get(header.sop_instance_uid) == header.path:
            yield Finding(header.path, problem, mended=bool(problem))
        else:
            yield Finding(header.path, "cannot be indexed")


def _paths_held(folder: ArchiveFolder, headers: Iterable[InstanceHeader]) -> dict[str, str]:
    held = folder.index.held([header.sop_instance_uid for header in headers])
    return {uid: one.path for uid, one in held.items()}


def import_files(folder: ArchiveFolder, paths: Iterable[str]) -> Iterator[Finding]:
    """Take in files and folders: each is copied, filed under its UIDs, and indexed.

    An instance that is here already is replaced. What is no instance is reported.
    """
    _take_up(folder)
    batch: list[InstanceHeader] = []
    for path in expand_paths(paths):
        try:
            header = _take_in(folder, path)
        except OSError as error:
            yield Finding(path, error.strerror or str(error))
            continue
        except Unindexable as error:
            yield Finding(path, str(error).removeprefix(f"{path}: "))
            continue
        batch.append(header)
        yield Finding(path)
        if len(batch) >= _BATCH:
            _index(folder, batch)
            batch = []
    _index(folder, batch)
    folder.journal.forget_all()


def delete(folder: ArchiveFolder, uid: str) -> Iterator[Finding]:
    """Delete a study, a series or an instance, whichever ``uid`` is of: files, then rows.

    Raises `LookupError` where nothing here has that UID, or where that is not known yet.
    """
    _take_up(folder)
    if folder.index.is_reading():
        raise LookupError("not all files are in the index yet: dimse archive verify first")
    paths = _paths_of(folder, uid)
    if not paths:
        raise LookupError(f"{uid}: no study, series or instance of this archive")
    removed: list[str] = []
    try:
        for relative in paths:
            path = folder.absolute(relative)
            problem = ""
            try:
                os.unlink(path)
            except FileNotFoundError:
                problem = "there was no file"
            removed.append(relative)
            _remove_if_empty(os.path.dirname(path), folder.instances)
            yield Finding(relative, problem, mended=bool(problem))
    finally:
        folder.index.remove(removed)  # what is left can be asked for again


def _known(folder: ArchiveFolder) -> Iterator[tuple[str, tuple[str, int, int]]]:
    table = schema.instances.c
    statement = sa.select(table.path, table.uid, table.offset, table.size)
    with folder.index.select(statement) as rows:
        for path, uid, offset, size in rows:
            yield path, (uid, offset, size)


def _paths_of(folder: ArchiveFolder, uid: str) -> list[str]:
    joined = schema.instances.join(schema.series).join(schema.studies)
    means = sa.or_(
        schema.studies.c.uid == uid, schema.series.c.uid == uid, schema.instances.c.uid == uid
    )
    statement = sa.select(schema.instances.c.path).select_from(joined).where(means)
    return [row[0] for row in folder.index.fetch(statement)]


_numbers = itertools.count(1)


def _take_in(folder: ArchiveFolder, path: str) -> InstanceHeader:
    """Copy one file to where it belongs; its header there."""
    header = InstanceHeader.read(path)
    uids = (header.study_uid, header.series_uid, header.sop_instance_uid)
    if not all(map(is_valid_uid, uids)):
        raise Unindexable(f"{path}: a UID that is none")
    relative = f"{uids[0]}/{uids[1]}/{uids[2]}.dcm"
    final = folder.absolute(relative)
    incoming = os.path.join(folder.directory, "incoming")
    os.makedirs(incoming, exist_ok=True)
    partial = os.path.join(incoming, f"import-{os.getpid()}-{next(_numbers)}.part")
    try:
        meta = part10_header(header.sop_class_uid, uids[2], header.transfer_syntax)
        with open(path, "rb") as source, open(partial, "xb") as target:
            source.seek(header.offset)
            target.write(meta)
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
            inode = inode_of(os.fstat(target.fileno()))
        os.makedirs(os.path.dirname(final), exist_ok=True)
        folder.journal.append([relative], durably=False)  # should this process be killed
        os.rename(partial, final)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise
    return replace(header, path=relative, offset=len(meta), inode=inode)


def _index(folder: ArchiveFolder, headers: list[InstanceHeader]) -> None:
    sync_folders_of((folder.absolute(header.path) for header in headers), folder.instances)
    for replaced in add_those_that_can_be(folder.index.add, headers):
        if folder.remove(replaced):
            _remove_if_empty(os.path.dirname(folder.absolute(replaced.path)), folder.instances)


def _remove_if_empty(path: str, top: str) -> None:
    """Remove a folder, and those above it up to ``top``, that have nothing in them."""
    while path != top:
        try:
            os.rmdir(path)
        except OSError:
            return
        path = os.path.dirname(path)
