"""What the kernel asks, answered from a namespace: protocol only.

Invariants of this file:
* Nothing but `FUSEError` leaves a handler: any other exception ends pyfuse3's main loop.
* A read is answered in full or with an error: the kernel would fill a short one with zeros.
* `flush` stays unimplemented (ENOSYS): else each close would ask us, even one by ourselves.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator, Sequence
from time import perf_counter, time
from typing import TYPE_CHECKING, Protocol

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from jigdofs.config import MountOptions
from jigdofs.contents.namespace import Attributes, Namespace
from jigdofs.contents.opened_file import OpenedFile
from jigdofs.errors import JigdofsError, NoSuchFile, Stopped, WrongKind
from jigdofs.image.read_account import Waited
from jigdofs.logs import ErrorLog

if TYPE_CHECKING:  # pyfuse3 3.2.1, which Debian 12 has, tells of these types and has no such names
    from pyfuse3 import FileHandleT, FileNameT, InodeT

_log = logging.getLogger(__name__)

ATTRIBUTES_VALID_S = 1.0  # sizes never change, but st_blocks grows
_STATFS_BYTES = 4096
_LARGEST_READ = 1 << 20  # what the kernel asks for at once: 256 pages
PID_XATTR = b"user.jigdofs.pid"
_XATTRS = b"user.jigdofs."
_ENODATA = errno.ENODATA


class Xattrs(Protocol):
    """Tell the value of an extended attribute, from memory."""

    def __call__(self, key: str, image: str | None, /) -> str | None:
        """Return it, or None if there is none.

        Args:
            key: its name without `user.jigdofs.`.
            image: of that name; None for the root.
        """


class Operations(pyfuse3.Operations):
    """The kernel's view of a namespace; its node numbers are the inode numbers.

    Args:
        namespace: what is shown.
        options: owner and mode shown.
        xattrs: tells what extended attributes of the root and the images say; None for nothing.
    """

    supports_dot_lookup = True
    enable_writeback_cache = False

    def __init__(self, namespace: Namespace, options: MountOptions, xattrs: Xattrs | None = None) -> None:
        super().__init__()
        self._xattrs = xattrs
        self._namespace = namespace
        self._options = options
        self._uid = os.getuid() if options.uid is None else options.uid
        self._gid = os.getgid() if options.gid is None else options.gid
        self._opened: dict[FileHandleT, OpenedFile] = {}
        self._listed: dict[FileHandleT, Sequence[tuple[bytes, int]]] = {}
        self._next_handle = 1
        self._errors = ErrorLog(_log)
        # pyfuse3 hands an answer to the kernel before any other task runs, so one buffer does for all reads
        # that wait for nothing; a new one for each costs 6 us per MiB
        self._scratch = memoryview(bytearray(_LARGEST_READ))
        self.reading = 0  # reads that were not answered yet

    # -- attributes ------------------------------------------------------------------------------

    async def getattr(self, inode: InodeT, ctx: RequestContext | None = None) -> EntryAttributes:
        """Describe a node."""
        with self._answering("look at"):
            return self._entry(inode, await self._namespace.attributes(inode))

    async def lookup(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Find a node by name."""
        with self._answering("look-up"):
            node = await self._namespace.lookup(parent_inode, name)
            return self._entry(node, await self._namespace.attributes(node))

    def _entry(self, node: int, found: Attributes) -> EntryAttributes:
        attributes = EntryAttributes()
        attributes.st_ino = node
        attributes.st_mode = found.mode & ~self._options.umask
        attributes.st_nlink = found.nlink
        attributes.st_size = found.size
        attributes.st_blocks = found.blocks
        attributes.st_rdev = found.rdev
        attributes.st_blksize = 128 << 10
        attributes.st_uid = self._uid
        attributes.st_gid = self._gid
        attributes.st_mtime_ns = found.mtime_ns
        attributes.st_atime_ns = found.atime_ns
        attributes.st_ctime_ns = found.ctime_ns
        attributes.entry_timeout = 3600
        attributes.attr_timeout = ATTRIBUTES_VALID_S
        return attributes

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        """Tell where a symbolic link leads."""
        with self._answering("look at a link"):
            return await self._namespace.target(inode)

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        """Tell the size of all images; there is never room for more."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = _STATFS_BYTES
        data.f_blocks = -(-self._namespace.total_bytes // _STATFS_BYTES)
        data.f_bfree = data.f_bavail = 0
        data.f_files = len(self._namespace.images)
        data.f_ffree = data.f_favail = 0
        data.f_namemax = 255
        return data

    async def getxattr(
        self,
        inode: InodeT,
        name: bytes,
        ctx: RequestContext,
    ) -> bytes:
        """Tell the daemon's process id, so that `jigdofs umount` can wait for its end, and how things are."""
        if inode == pyfuse3.ROOT_INODE and name == PID_XATTR:
            return str(os.getpid()).encode()
        value = self._told(inode, name) if name.startswith(_XATTRS) else None
        if value is None:
            raise FUSEError(_ENODATA)
        return os.fsencode(value)

    def _told(self, inode: InodeT, name: bytes) -> str | None:
        image = self._namespace.image(inode)
        if self._xattrs is None or (image is None and inode != pyfuse3.ROOT_INODE):
            return None
        try:
            key = name.removeprefix(_XATTRS).decode("ascii", "replace")
            return self._xattrs(key, None if image is None else image.name)
        except Exception:  # noqa: BLE001  nobody depends on it
            _log.exception("internal error in an extended attribute")
            return None

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[pyfuse3.XAttrNameT]:
        """List none, so that copying tools do not copy ours."""
        return []

    # -- directories -----------------------------------------------------------------------------

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """Open a directory."""
        with self._answering("listing"):
            listed = await self._namespace.directory(inode)
        handle = self._handle()
        self._listed[handle] = listed
        return handle

    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List what is in a directory, from a number on."""
        listed = self._listed[fh]
        with self._answering("listing"):
            for number in range(start_id, len(listed)):
                name, node = listed[number]
                attributes = self._entry(node, await self._namespace.attributes(node))
                if not pyfuse3.readdir_reply(token, name, attributes, number + 1):
                    return

    async def releasedir(self, fh: FileHandleT) -> None:
        """Forget who was listing."""
        self._listed.pop(fh, None)

    # -- files -----------------------------------------------------------------------------------

    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file for reading; its pages stay in the kernel's cache, as they never change."""
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise FUSEError(errno.EROFS)
        with self._answering("opening"):
            opened = await self._namespace.open(inode)
        handle = self._handle()
        self._opened[handle] = opened
        return FileInfo(fh=handle, keep_cache=True)

    def _handle(self) -> FileHandleT:
        handle = self._next_handle
        self._next_handle += 1
        return handle

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """Return exactly the bytes asked for, or fail."""
        opened = self._opened[fh]
        account = opened.account
        began = perf_counter()
        self.reading += 1
        try:
            if size <= _LARGEST_READ and (view := opened.read_now(off, size, self._scratch)) is not None:
                account.answered(len(view), began, perf_counter())
                return view  # type: ignore[return-value]  # any buffer will do
            waited = Waited()
            data = await opened.read(off, size, waited)
            account.answered(len(data), began, perf_counter())
            if waited.for_a_mirror:
                account.waited(len(data))
            return data  # type: ignore[return-value]  # noqa: TRY300  nothing of this can raise
        except JigdofsError as error:
            if not isinstance(error, Stopped):
                account.failed(began, perf_counter(), time())
            self._errors.report(f"read of {size} bytes at offset {off} of {opened.label}", error)
            raise FUSEError(error.errno) from None
        except Exception as error:
            account.failed(began, perf_counter(), time())
            _log.exception("internal error in a read at offset %d of %s", off, opened.label)
            raise FUSEError(errno.EIO) from error
        finally:
            self.reading -= 1

    @contextlib.contextmanager
    def _answering(self, what: str) -> Iterator[None]:
        """Turn errors of the namespace into the kernel's."""
        self.reading += 1
        try:
            yield
        except (NoSuchFile, WrongKind) as error:  # the kernel asks for names that nobody promised
            raise FUSEError(error.errno) from None
        except JigdofsError as error:
            self._errors.report(what, error)
            raise FUSEError(error.errno) from None
        except Exception as error:
            _log.exception("internal error in a %s", what)
            raise FUSEError(errno.EIO) from error
        finally:
            self.reading -= 1

    async def release(self, fh: FileHandleT) -> None:
        """Forget who was reading."""
        self._opened.pop(fh, None)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Keep all inodes: they live as long as the mount."""
