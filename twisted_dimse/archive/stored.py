"""Instances of the index as sources to send (PS3.4 C.4.2, C.4.3): complete, or not at all.

Between the look into the index and the moment when a file is opened, another may have taken its
name, with another header and of another size; and a file may have lost its end.

    source = StoredSource(path, sop_class, uid, transfer_syntax, offset, size, inode)
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import BinaryIO

from twisted_dimse.archive.header import inode_of
from twisted_dimse.datastream import FileSource


@dataclass(frozen=True, slots=True)
class StoredSource(FileSource):
    """The file that was indexed, or the one that replaced it. `open` and `read` raise `OSError`
    where that is in another transfer syntax, or where the file is not as long as it was."""

    inode: int

    def read(self) -> bytes:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self._is(descriptor):
                return os.pread(descriptor, self.size, self.offset)
        finally:
            os.close(descriptor)
        return self._successor().read()

    def open(self) -> BinaryIO:
        file = FileSource.open(self)
        try:
            same = self._is(file.fileno())
        except OSError:
            file.close()
            raise
        if same:
            return file
        file.close()
        return self._successor().open()

    def _is(self, descriptor: int) -> bool:
        """Whether an open file is the one that was indexed. Raises `OSError` where it was cut."""
        status = os.fstat(descriptor)
        if self.inode not in (0, inode_of(status)):
            return False
        if status.st_size != self.offset + self.size:
            raise OSError(errno.EIO, "the file has another size than when it was stored", self.path)
        return True

    def _successor(self) -> StoredSource:
        """What has the name now."""
        inode = inode_of(os.stat(self.path))
        now = FileSource.of(self.path)
        context = (self.sop_class_uid, self.transfer_syntax)
        if (now.sop_class_uid, now.transfer_syntax) != context:
            raise OSError(errno.ESTALE, "replaced in another transfer syntax meanwhile", self.path)
        return StoredSource(
            self.path,
            self.sop_class_uid,
            self.sop_instance_uid,
            self.transfer_syntax,
            now.offset,
            now.size,
            inode,
        )
