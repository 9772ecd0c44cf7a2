"""Saving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, cast

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from veturboio._arguments import FilePath, check_tensors, check_text, local_path, operator_path
from veturboio._cipher import Bytes, make_cipher
from veturboio._errors import python_errors
from veturboio._file_objects import WritableFileObject
from veturboio._io_helper import IOHelper, native_helper
from veturboio._jobs import Watch, finish, warn
from veturboio._library import ops
from veturboio._progress import Progress, reporting
from veturboio._shared_tensors import overlapping, split_into_views
from veturboio._torch_outline import UnusualObjectError, start_save


def save_file(
    state_dict: Mapping[str, torch.Tensor],
    file: FilePath,
    force_contiguous: bool = True,
    force_save_shared_tensor: bool = False,
    force_clone_shared_tensor: bool = False,
    metadata: Mapping[str, str] | None = None,
    use_cipher: bool | None = None,
    helper: IOHelper | None = None,
    enable_fast_mode: bool = True,
    *,
    progress: Progress = False,
    key: Bytes | None = None,
    iv: Bytes | None = None,
) -> None:
    """Saves tensors as a safetensors file, byte for byte what the safetensors library writes for them.

    The file takes the place of an old one in one step when it is complete and on the disk: at any moment, and after any failure,
    the old or the new one is there, whole. It keeps the old one's mode, where the storage lets modes be set.

    Args:
        state_dict: Names and tensors, on any devices. It is not changed; the tensors must not be while they are saved.
        file: A path, or a uri: file://PATH, sfcs://PATH.
        force_contiguous: Save non-contiguous tensors as contiguous ones; False refuses them.
        force_save_shared_tensor: Of tensors that are the same view of the same memory save one, and note the others' names in the
            metadata, from which load() restores them. Without this or the next, tensors that share memory are refused.
        force_clone_shared_tensor: Save tensors that share memory each in full; loaded, they share no more.
        metadata: Texts to store along.
        use_cipher: Whether to encrypt the file. None: if a key is given, or VETURBOIO_USE_CIPHER is 1 in the environment.
        key, iv: The AES key (16 or 32 bytes) and the initial counter block (16 bytes). Without them: with
            VETURBOIO_CIPHER_HEADER=1 a fresh key that the KMS wraps and that the file's header holds, of the size that
            VETURBOIO_CIPHER_MODE says (CTR-128, the default, or CTR-256); otherwise the trusted service's key, or that in
            VETURBOIO_KEY and VETURBOIO_IV.
        helper: Staging memory to keep for the next save from, or load to, an accelerator.
        enable_fast_mode: False writes with one thread.
        progress: True shows a bar. A function is called with the bytes done and in all, at most 10 times a second.

    Raises:
        OSError: As open() and write() do, with errno and filename.
        ValueError: A tensor that the format cannot hold (sparse, quantized, on the meta device, of a dtype that it lacks), one
            that shares memory or is not contiguous, where that is not allowed; each named.
        CipherKeyError: The file is to be encrypted, and nobody has a key (each source is listed with its reason).
        TypeError: state_dict or metadata are not what they should be.

    Warns:
        UserWarning: A guarantee that the file's file system cannot give; a key and IV that have encrypted another file.
    """
    write_file(
        state_dict,
        file,
        force_contiguous=force_contiguous,
        force_save_shared_tensor=force_save_shared_tensor,
        force_clone_shared_tensor=force_clone_shared_tensor,
        metadata=metadata,
        use_cipher=use_cipher,
        helper=helper,
        enable_fast_mode=enable_fast_mode,
        progress=progress,
        key=key,
        iv=iv,
    )


def save_model(
    model: torch.nn.Module,
    file: FilePath,
    use_cipher: bool | None = None,
    *,
    progress: Progress = False,
    key: Bytes | None = None,
    iv: Bytes | None = None,
) -> None:
    """Saves a module's state dict as a safetensors file. Tied weights are written once and restored by load().

    Args:
        model: The module.
        file, use_cipher, progress, key, iv: As for save_file().

    Raises:
        As save_file().
    """
    save_file(
        model.state_dict(),
        file,
        force_save_shared_tensor=True,
        force_clone_shared_tensor=True,
        use_cipher=use_cipher,
        progress=progress,
        key=key,
        iv=iv,
    )


def save_pt(
    state_dict: Any,
    file: FilePath,
    use_cipher: bool | None = None,
    *,
    key: Bytes | None = None,
    iv: Bytes | None = None,
) -> None:
    """Saves as torch.save does, with save_file()'s guarantees: the old or the new file is there at any moment, whole.

    Args:
        state_dict: Whatever torch.save takes. Its tensors must not be changed while they are saved.
        file, use_cipher, key, iv: As for save_file().

    Raises:
        OSError: As open() and write() do, with errno and filename.
        CipherKeyError: As save_file().
    """
    cipher = make_cipher(file, use_cipher, key, iv)
    try:
        job = start_save(state_dict, file, cipher)
    except UnusualObjectError:
        _stream_pt(state_dict, file, cipher)
    else:
        warn(finish(job, Watch(local_path(file))), stacklevel=3)


def _stream_pt(state_dict: Any, file: FilePath, cipher: Any) -> None:
    """Has PyTorch write all of the archive."""
    with python_errors():
        writer = torch.classes.veturbo.FileWriter(operator_path(file), cipher)
    file_object = WritableFileObject(writer)
    try:
        torch.save(state_dict, cast(IO[bytes], file_object))
    except BaseException as error:
        writer.discard()
        if file_object.error is not None and file_object.error is not error:
            raise file_object.error from None  # PyTorch's writer makes a RuntimeError of it that does not say what happened
        raise
    with python_errors():
        warning_texts = writer.commit()
    warn(warning_texts, stacklevel=4)


def write_file(
    state_dict: Mapping[str, torch.Tensor],
    file: FilePath,
    *,
    force_contiguous: bool = True,
    force_save_shared_tensor: bool = False,
    force_clone_shared_tensor: bool = False,
    metadata: Mapping[str, str] | None = None,
    use_cipher: bool | None = None,
    helper: IOHelper | None = None,
    enable_fast_mode: bool = True,
    progress: Progress = False,
    key: Bytes | None = None,
    iv: Bytes | None = None,
) -> None:
    """save_file(), whose warnings are for the caller's caller."""
    texts = checked_metadata(metadata)
    tensors, dropped = tensors_to_write(
        state_dict, force_contiguous=force_contiguous, save_one=force_save_shared_tensor, save_each=force_clone_shared_tensor
    )
    if dropped:
        texts = with_aliases(texts, dropped)
    native = native_helper(helper)
    cipher = make_cipher(file, use_cipher, key, iv)
    with reporting(local_path(file), progress) as report:
        with python_errors():
            job = ops.start_save(
                tensors,
                operator_path(file),
                metadata=texts,
                num_threads=0 if enable_fast_mode else 1,
                helper=native,
                cipher=cipher,
            )
        warn(finish(job, Watch(local_path(file), report)), stacklevel=4)


def tensors_to_write(
    state_dict: Mapping[str, torch.Tensor], *, force_contiguous: bool, save_one: bool, save_each: bool
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors that a file is to hold, and those that another of them stands for: {dropped: kept}."""
    tensors = _plain_tensors(state_dict)
    if not force_contiguous:
        _refuse_strided(tensors)
    dropped = _drop_shared(tensors, save_one=save_one, save_each=save_each)
    return {name: tensor for name, tensor in tensors.items() if name not in dropped}, dropped


def _plain_tensors(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    check_tensors(state_dict)
    tensors = {}
    for name, tensor in state_dict.items():
        if is_traceable_wrapper_subclass(tensor):
            raise ValueError(
                f'tensor "{name}" is a {type(tensor).__name__}, which has no memory of its own: save the tensors it is made of'
            )
        detached = tensor.detach()
        # as_subclass() asks for strides. What has none is refused by the operator.
        tensors[name] = detached.as_subclass(torch.Tensor) if detached.layout == torch.strided else detached
    return tensors


def checked_metadata(metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a dict of texts, not a {type(metadata).__name__}")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata must be a dict of texts, but {key!r}: {value!r} is not")
        check_text(key, "metadata key")
        check_text(value, f"metadata value of {key!r}")
    return dict(metadata)


def _refuse_strided(tensors: Mapping[str, torch.Tensor]) -> None:
    strided = [name for name, tensor in tensors.items() if tensor.layout == torch.strided and not tensor.is_contiguous()]
    if strided:
        raise ValueError(
            f"these tensors are not contiguous: {', '.join(strided)}. Save their contiguous(), or pass force_contiguous=True"
        )


def _drop_shared(tensors: Mapping[str, torch.Tensor], *, save_one: bool, save_each: bool) -> dict[str, str]:
    """Decides what becomes of tensors that share memory: {dropped: kept}, or a ValueError."""
    if save_each and not save_one:
        return {}
    dropped = {}
    for group in overlapping(tensors):
        views = split_into_views(tensors, group)
        if not save_one:
            raise ValueError(
                f"these tensors share memory: {', '.join(sorted(group))}. Pass force_save_shared_tensor=True to save one of them "
                "and restore the others on loading, or force_clone_shared_tensor=True to save each in full"
            )
        if len(views) > 1 and not save_each:
            raise ValueError(
                f"these tensors share memory, but are not the same view of it: {', '.join(view[0] for view in views)}. None of "
                "them can stand for the others: pass force_clone_shared_tensor=True to save each in full"
            )
        for kept, *others in views:
            dropped.update(dict.fromkeys(others, kept))
    return dropped


def with_aliases(metadata: dict[str, str] | None, dropped: dict[str, str]) -> dict[str, str]:
    texts = dict(metadata or {})
    for name, kept in dropped.items():
        if texts.setdefault(name, kept) != kept:
            raise ValueError(
                f'metadata["{name}"] is in the way: the tensor "{name}" shares memory with "{kept}" and is noted there. '
                "Rename one of them"
            )
    return texts
