"""Encrypts and decrypts model files, and tells of encrypted ones: ``python -m veturboio.cipher encrypt -i IN -o OUT``.

Exit status: 0 when it is done, 1 when it cannot be (with the reason on standard error), 2 for wrong usage, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from veturboio._arguments import operator_path
from veturboio._cipher import find_cipher, make_cipher, read_header, time_of
from veturboio._commands import complain, run_command, say
from veturboio._errors import CipherKeyError, FileFormatError, TorchFileError, file_errors, python_errors
from veturboio._files import exists
from veturboio._library import ops
from veturboio._progress import progress_bar

_PIECE_BYTES = 64 << 20  # read by several threads
_HEADER_BYTES = 262144
_HEADER_VARIABLE = "VETURBOIO_CIPHER_HEADER"

_KEY_BYTES = (16, 32)
_IV_BYTES = (16,)
# A longer file is no key, and may be a model given by mistake.
_MOST_SECRET_FILE_BYTES = 4096

_NO_KEY_OPTION = "No option takes a key itself: every user of a machine sees the command lines on it."
_ENCRYPT = (
    "Encrypts a file. Its key is that of --key-file; else, with VETURBOIO_CIPHER_HEADER=1 or --header, a fresh one, which the "
    "KMS wraps and the file's header holds (its size by VETURBOIO_CIPHER_MODE: CTR-128, the default, or CTR-256); else the "
    "trusted service's; else that of VETURBOIO_KEY and VETURBOIO_IV (base64) in the environment. Never encrypt two files with "
    f"the same key and IV: who has both can read them. {_NO_KEY_OPTION}"
)
_KEY_SEARCH = (
    "that of --key-file; else the one in the file's header, which the KMS unwraps; else the trusted service's; else that of "
    "VETURBOIO_KEY and VETURBOIO_IV (base64) in the environment"
)


class CipherError(ValueError):
    """The file cannot be encrypted or decrypted as asked."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command with these arguments (None: the process's own) and returns its exit status."""
    options = _parser().parse_args(arguments)
    _check_usage(options)
    return run_command("cipher", lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m veturboio.cipher",
        description="Encrypts and decrypts whole model files (AES in counter mode), of any size in little memory, and tells of "
        "encrypted ones.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    encrypt = _add_command(commands, "encrypt", _encrypt, "encrypt a file", _ENCRYPT)
    _add_output(encrypt)
    encrypt.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help=f"give the file a cipher header and a fresh key, or do not, whatever {_HEADER_VARIABLE} says",
    )
    _add_key_files(encrypt)

    decrypt = _add_command(
        commands,
        "decrypt",
        _decrypt,
        "decrypt a file",
        f"Decrypts a file. Its key is {_KEY_SEARCH}. A key that does not make a model of it is refused. {_NO_KEY_OPTION}",
    )
    _add_output(decrypt)
    _add_key_files(decrypt)

    info = _add_command(
        commands,
        "info",
        _info,
        "tell of an encrypted file",
        "Tells whether the file has a cipher header and what that says, and the size of the plain file. Never shows a key.",
    )
    info.add_argument(
        "--find-key",
        action="store_true",
        help="also find the file's key, and tell where it was found and what kind of file it decrypts to. The key is "
        + _KEY_SEARCH,
    )
    _add_key_files(info)
    return parser


def _add_command(commands: Any, name: str, run: Any, summary: str, description: str) -> argparse.ArgumentParser:
    # Without abbreviations: --key would be one of --key-file, and a key that is given to it would be shown as a missing file.
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
    command.set_defaults(run=run, wrong_usage=command.error, command=name)
    command.add_argument("-i", "--input", required=True, help="the file to read")
    return command


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", required=True, help="the file to write; it may be the input, with --overwrite")
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the output if it exists, in one step when the new one is complete; without this it is refused",
    )


def _add_key_files(command: argparse.ArgumentParser) -> None:
    command.add_argument("--key-file", metavar="PATH", help="a file that holds the key: 16 or 32 bytes, raw or as base64 text")
    command.add_argument(
        "--iv-file",
        metavar="PATH",
        help="a file that holds the IV: 16 bytes, raw or as base64 text. Only a file with a cipher header has its own",
    )


def _check_usage(options: argparse.Namespace) -> None:
    if options.key_file is None:
        if options.iv_file is not None:
            options.wrong_usage("--iv-file needs --key-file")
    elif options.command == "encrypt":
        if options.header:
            options.wrong_usage("--header draws a fresh key: it does not go with --key-file")
        if options.iv_file is None:
            options.wrong_usage("--key-file needs --iv-file")
    elif options.command == "info" and not options.find_key:
        options.wrong_usage("--key-file needs --find-key")


def _encrypt(options: argparse.Namespace) -> None:
    _refuse_existing(options)
    if options.header is not None:
        os.environ[_HEADER_VARIABLE] = "1" if options.header else "0"
    key, iv = _read_key_files(options)
    if header := read_header(options.input):
        raise CipherError(f"{options.input}: is encrypted already: it has a cipher header, mode {header['mode']}")
    is_model = _is_model(options.input, None)
    cipher = make_cipher(options.output, True, key, iv)
    if not is_model:
        _refuse_encrypted(options.input, cipher, has_fresh_key=key is None and os.environ.get(_HEADER_VARIABLE) == "1")
        complain(
            "cipher",
            f"warning: {options.input}: is neither safetensors nor a file of torch.save: it is encrypted all the same, but "
            "decrypt will refuse it, since it could not tell whether a key is the right one",
        )
    _copy(options, None, cipher, f"encrypted with the key from {cipher.source()}")


def _decrypt(options: argparse.Namespace) -> None:
    _refuse_existing(options)
    cipher = _find_cipher(options)
    _copy(options, cipher, None, f"decrypted with the key from {cipher.source()}")


def _info(options: argparse.Namespace) -> None:
    header = read_header(options.input)
    with python_errors():
        size = ops.file_size(operator_path(options.input))
    say(f"file: {options.input}")
    say(f"cipher header: {'yes' if header else 'no'}")
    if header:
        say(f"mode: {header['mode']}")
        say(f"timestamp: {time_of(header)}")
        size -= _HEADER_BYTES
    say(f"plain size: {size} bytes")
    if options.find_key:
        cipher = _find_cipher(options)
        say(f"key source: {cipher.source()}")
        tensors = _count_tensors(options.input, cipher)
        say("plain format: torch" if tensors is None else f"plain format: safetensors, number of tensors: {tensors}")


def _refuse_existing(options: argparse.Namespace) -> None:
    if not options.overwrite and exists(options.output):
        raise CipherError(f"{options.output} exists: pass --overwrite to replace it")


def _read_key_files(options: argparse.Namespace) -> tuple[bytes | None, bytes | None]:
    return (
        _read_secret("--key-file", options.key_file, _KEY_BYTES),
        _read_secret("--iv-file", options.iv_file, _IV_BYTES),
    )


def _read_secret(option: str, file: str | None, lengths: tuple[int, ...]) -> bytes | None:
    """The bytes in a file, raw or as base64: its size tells which, since base64 of a wanted length never has a wanted length."""
    if file is None:
        return None
    with file_errors(file), Path(file).open("rb") as source:  # read, not asked for its size: it may be a pipe
        content = source.read(_MOST_SECRET_FILE_BYTES + 1)
    wanted = f"{' or '.join(map(str, lengths))} are needed, raw or as base64 text"
    if len(content) in lengths:
        return content
    if len(content) > _MOST_SECRET_FILE_BYTES:
        raise CipherError(f"{option} {file}: has more than {_MOST_SECRET_FILE_BYTES} bytes: {wanted}")
    try:
        secret = base64.b64decode(content.strip(), validate=True)
    except binascii.Error:
        # Not its text: it may show a character of the content.
        raise CipherError(f"{option} {file}: has {len(content)} bytes, and is no base64 text: {wanted}") from None
    if len(secret) not in lengths:
        raise CipherError(f"{option} {file}: is base64 text of {len(secret)} bytes: {wanted}")
    return secret


def _find_cipher(options: argparse.Namespace) -> Any:
    key, iv = _read_key_files(options)
    header = read_header(options.input)
    if key is not None and iv is None and not header:
        raise CipherError(f"{options.input}: has no cipher header, which would hold the IV: pass --iv-file too")
    try:
        return find_cipher(options.input, True, key, iv)
    except CipherKeyError as error:
        # Not asked before the key was tried: one encrypted file in some 16,000 begins as a pickle does.
        if header or not _is_model(options.input, None):
            raise
        raise CipherError(f"{error}. The file is a model as it stands: it may not be encrypted") from None


def _refuse_encrypted(file: str, cipher: Any, *, has_fresh_key: bool) -> None:
    # In counter mode encryption undoes itself: the output would be the plain model.
    if not has_fresh_key and _is_model(file, cipher):
        raise CipherError(f"{file}: is encrypted already, with this key: encrypting it again would decrypt it")


def _is_model(file: str, cipher: Any) -> bool:
    try:
        _count_tensors(file, cipher)
    except FileFormatError:
        return False
    return True


def _count_tensors(file: str, cipher: Any) -> int | None:
    """Of a safetensors file; None for a file of torch.save, whose tensors are not listed anywhere."""
    try:
        with python_errors():
            names, _, _ = ops.list_tensors(operator_path(file), cipher)
    except TorchFileError:
        return None
    return len(names)


def _copy(options: argparse.Namespace, input_cipher: Any, output_cipher: Any, what: str) -> None:
    """Copies the input to the output. After any failure the output is what it was before."""
    started = time.monotonic()
    with python_errors():
        # Open until the end: the output may take the input's name.
        reader = torch.classes.veturbo.FileReader(operator_path(options.input), input_cipher)
        writer = torch.classes.veturbo.FileWriter(operator_path(options.output), output_cipher)
    try:
        size = reader.size()
        buffer = torch.empty(min(size, _PIECE_BYTES), dtype=torch.uint8)
        with progress_bar(f"{options.command}ing") as report:
            for offset in range(0, size, _PIECE_BYTES):
                piece = buffer[: min(size - offset, _PIECE_BYTES)]
                with python_errors():
                    reader.read_into(piece, offset)
                    writer.write(piece)
                report(offset + len(piece), size)
        with python_errors():
            warnings = writer.commit()
    except BaseException:
        # Nothing to discard where Ctrl-C came during the commit, which does not stop for it: then the output is there, whole.
        writer.discard()
        raise
    for warning in [*reader.warnings(), *warnings]:
        complain("cipher", f"warning: {warning}")
    say(f"{options.input} -> {options.output}: {what}, {size / 1e9:.3f} GB in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
