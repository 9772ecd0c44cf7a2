"""Loading."""

from __future__ import annotations

import errno
import io
import os
from multiprocessing.shared_memory import SharedMemory
from typing import Any, cast

import torch

from veturboio._arguments import (
    FilePath,
    MapLocation,
    byte_count,
    local_path,
    operator_path,
    seconds,
    target_device,
    thread_count,
)
from veturboio._cipher import Bytes, find_cipher
from veturboio._errors import FileFormatError, TorchFileError, python_errors, torch_file_errors
from veturboio._in_place import copy_into, load_in_place, some_of
from veturboio._io_helper import IOHelper, native_helper
from veturboio._jobs import Watch, finish, finish_load, warn
from veturboio._library import ops
from veturboio._memory import Memory
from veturboio._models import Location, Names, title_of
from veturboio._progress import Progress, reporting
from veturboio._torch_files import load_torch_file

# Shared memory is reserved in such pieces: one call for all of it would keep a Ctrl-C waiting.
_RESERVED_BYTES = 64 << 20


def load(
    file: FilePath | Memory,
    map_location: MapLocation = "cpu",
    enable_fast_mode: bool = True,
    num_thread: int | None = None,
    helper: IOHelper | None = None,
    use_pinmem: bool = False,
    use_direct_io: bool | None = None,
    use_cipher: bool | None = None,
    state_dict: dict[str, torch.Tensor] | None = None,
    *,
    mmap: bool = False,
    names: Names | None = None,
    max_host_bytes: int | None = None,
    progress: Progress = False,
    timeout: float | None = None,
    weights_only: bool = True,
    key: Bytes | None = None,
    iv: Bytes | None = None,
) -> dict[str, Any]:
    """Loads the tensors of a safetensors model, or whatever a file of torch.save holds.

    Args:
        file: A path, or a uri: file://PATH, sfcs://PATH. That of a directory, or of an index as transformers writes it
            (`model.safetensors.index.json`), stands for all the model's files, which are then loaded at once. Also a model in
            memory (bytes that are no path, a bytearray, a memoryview), or a file object, which is read to its end.
        map_location: The device that the tensors go to. An int is an index among the accelerators.
        enable_fast_mode: False reads with one thread, through the page cache, by way of pageable memory: the way out on a file
            system that misbehaves. It overrides num_thread, use_direct_io, use_pinmem and mmap.
        num_thread: Threads that read; None for as many as pay.
        helper: From init_io_helper(); with use_pinmem, keeps the staging memory of a load to an accelerator pinned for the next.
        use_pinmem: Use the helper. (Staging memory is pinned in any case; without a helper it is for this load only.)
        use_direct_io: Whether to read past the page cache; None does where the file is not cached and its file system gains by
            it. A file system that refuses is read through the cache.
        use_cipher: Whether the file is encrypted. None: if a key is given, or VETURBOIO_USE_CIPHER is 1 in the environment.
        key, iv: The AES key (16 or 32 bytes) and the initial counter block (16 bytes), before every other source of keys; a file
            with a cipher header has its own iv. Without them the key comes from the KMS for a file with a header, else or if that
            fails from the trusted service, else from VETURBOIO_KEY and VETURBOIO_IV.
        state_dict: Load into these tensors, on whatever devices they are, and return this dict. Their names, shapes and dtypes
            must be the file's; that is checked before the first byte is written.
        mmap: On the CPU, map the file instead of reading it: returns at once, reads what is touched. The mapping is private
            (writing to a tensor does not change the file), and the file must not be truncated while it is in use. A
            safetensors file that is far away (NFS, FUSE, ...) and not in the page cache is read all the same: each touch would
            wait for it.
        names: Load only these tensors: a list of names, or a function that is given each name and tells whether to load it. Of
            a file of torch.save all is read, and its dict then has only these.
        max_host_bytes: What the load may take of the host's memory: for tensors on the CPU that are not mapped, and for staging.
            None: what the process's control group may use. A load that would take more is refused before it begins.
        progress: True shows a bar. A function is called with the bytes done and in all, at most 10 times a second.
        timeout: Seconds after which the load is given up. (What PyTorch itself reads of a file of torch.save, and the services
            that keys come from, have their own.)
        weights_only: For files of torch.save, as torch.load's. False runs code that the file contains.

    Returns:
        Names and tensors, in the order of the file; of several files one's after the other's, in the order of the files' names.
        Names that were dropped on saving because their tensor shares memory with another are there again, sharing memory.

    Raises:
        FileNotFoundError, PermissionError, OSError: As open() and read() do, with errno and filename; a directory has no model.
        FileFormatError: The file is damaged; names file, tensor and offset.
        ValueError: An argument cannot be, or state_dict does not match (every mismatch is listed); the model lacks some of the
            names.
        CipherKeyError: Nobody has the file's key (each source is listed with its reason), or the key is wrong.
        MemoryError: The tensors do not fit, or not into max_host_bytes.
        TimeoutError: The time was up; says how far the load had come, and whether it was slow or stalled.

    Warns:
        UserWarning: Calls to the storage failed and were made again, or it was read by fewer readers than it might have been;
            a file is too far away to be mapped (once a process and kind of file system).
    """
    device = target_device(map_location)
    num_threads = thread_count(num_thread)
    native = native_helper(helper) if use_pinmem else None
    if not enable_fast_mode:
        num_threads, use_direct_io, mmap, native = 1, False, False, None
    transfer = {
        "num_threads": num_threads,
        "use_pinned_memory": enable_fast_mode,
        "helper": native,
        "max_host_bytes": byte_count(max_host_bytes),
    }
    title = title_of(file)
    with reporting(title, progress) as report:
        watch = Watch(title, report, seconds(timeout))
        location = Location(file, use_cipher, key, iv)
        try:
            models = location.open(use_direct_io, watch.of_opening())
            selection = models.select(names)
            if state_dict is not None:
                return load_in_place(state_dict, models, selection, transfer, watch)
            with python_errors():
                job = ops.start_load_models(models.native, device, mmap=mmap, names=selection.of_each, **transfer)
            tensors = finish_load(job, watch)
            warn(job.warnings(), stacklevel=3)
            return selection.complete(tensors, job.metadata())
        except TorchFileError:
            pass
        if location.memory is not None:
            with torch_file_errors(location.title):
                loaded = torch.load(io.BytesIO(location.memory), map_location=device, weights_only=weights_only)
        else:
            loaded = load_torch_file(
                location.paths[0],
                device,
                {"num_threads": num_threads, "use_pinned_memory": enable_fast_mode, "helper": native}
                | {"use_direct_io": use_direct_io, "cipher": location.ciphers[0]},
                enable_fast_mode=enable_fast_mode,
                mmap=mmap,
                weights_only=weights_only,
                watch=watch,
            )
    if names is not None:
        loaded = some_of(loaded, names, location.title)
    if state_dict is None:
        return cast(dict[str, Any], loaded)
    return copy_into(state_dict, loaded, location.title)


def load_to_shmem(
    file: FilePath,
    num_thread: int | None = None,
    helper: IOHelper | None = None,
    use_direct_io: bool | None = None,
    use_cipher: bool | None = None,
    *,
    key: Bytes | None = None,
    iv: Bytes | None = None,
) -> SharedMemory:
    """Reads a whole file, of any format, into shared memory that other processes can attach to by its name.

    Args:
        file: A path, or a uri: file://PATH, sfcs://PATH.
        num_thread, use_direct_io, use_cipher, key, iv: As for load(). The shared memory holds what is encrypted in the file.
        helper: Accepted as load() does; not needed here.

    Returns:
        Shared memory of the file's size. Whoever is last to use it calls its unlink().

    Raises:
        As load(). ValueError for an empty file: there is no shared memory of no bytes.
    """
    path = operator_path(file)
    num_threads = thread_count(num_thread)
    native = native_helper(helper)
    cipher = find_cipher(file, use_cipher, key, iv)
    with python_errors():
        size = ops.file_size(path, cipher)
    if size == 0:
        raise FileFormatError(f"{local_path(file)}: the file is empty", local_path(file), offset=0)
    memory = _shared_memory(size, local_path(file))
    try:
        buffer = torch.frombuffer(memory.buf, dtype=torch.uint8)[:size]
        # Neither a view nor a tensor keeps SharedMemory from unmapping itself when it goes, and threads that nobody waits for may
        # have a read to come back from that writes there.
        buffer.memory = memory  # type: ignore[attr-defined]
        with python_errors():
            job = ops.start_read_(
                [buffer], [0], path, num_threads=num_threads, use_direct_io=use_direct_io, helper=native, cipher=cipher
            )
        finish(job)
        warn(job.warnings(), stacklevel=3)
    except BaseException:
        memory.unlink()
        raise
    return memory


def _shared_memory(size: int, file: str) -> SharedMemory:
    """For what is in the file."""
    try:
        memory = SharedMemory(create=True, size=size)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(f"{file}: not enough memory to map {size} bytes") from error
        raise
    try:
        # What is not there would only be missed by who writes to it, and that kills. Reading takes no longer for it.
        for offset in range(0, size, _RESERVED_BYTES):
            os.posix_fallocate(memory._fd, offset, min(_RESERVED_BYTES, size - offset))  # type: ignore[attr-defined]
    except BaseException as error:
        memory.close()
        memory.unlink()
        if isinstance(error, OSError):
            code = error.errno or errno.EIO
            raise OSError(code, f"no room for {size} bytes of shared memory: {os.strerror(code)}", file) from error
        raise
    return memory
