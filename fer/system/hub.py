"""Networks on the Hugging Face hub: ``hf://owner/name[@revision]``.

The package ``huggingface_hub`` (extra ``hub``) fetches and uploads them. A network is read from the hub's cache. The
internet is used where the caller allows it, and for uploads. Three files of a repository are of use here, each with a
largest size that is checked before it is fetched. Address, cache and token are those of ``huggingface_hub``:
``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN``. No torch here.
"""

import errno
import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer.config.errors import FerError

PREFIX = "hf://"
NETWORK, CONFIG, CARD, GRAPH = "model.safetensors", "config.json", "README.md", "model.onnx"
NEEDED = {CONFIG: 2**20, NETWORK: 2**31 - 1}  # file -> its most bytes; a graph's format has that limit too
OF_USE = {**NEEDED, CARD: 2**20}
MAIN = "main"  # the branch of a reference without a revision
SECONDS = 10.0  # to wait for an answer about a repository
NAMES = re.compile(r"hf://(?P<name>[\w.-]{1,96}/[\w.-]{1,96})(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*))?", re.ASCII)
INSTALL = "pip install 'huggingface_hub>=2.4,<3'"
SIGN_IN = "set HF_TOKEN, or sign in by 'hf auth login'"
LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)  # of this computer's disk


@dataclass(frozen=True)
class Reference:
    """A repository on the hub.

    Args:
        name: owner/name.
        revision: branch, tag or commit; None for the main branch.
    """

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}{f'@{self.revision}' if self.revision else ''}"

    @classmethod
    def of(cls, given: str | Path) -> "Reference":
        """Return the repository that a text names.

        Raises:
            FerError: it names none.
        """
        match = NAMES.fullmatch(str(given))
        if match is None or re.search(r"\.\.|--|(^|/)[.-]|[.-](/|$)", match["name"]) or ".." in (match[2] or ""):
            name = " ".join(str(given).split())
            raise FerError(f"{name}: no repository of the hub; expected {PREFIX}owner/name, or with @revision behind")
        return cls(match["name"], match["revision"])


def is_reference(given: object) -> bool:
    """Return whether a text names a repository of the hub."""
    return isinstance(given, str) and given.startswith(PREFIX)


def origin(file: Path) -> Reference | None:
    """Return the repository and the commit of a file in the hub's cache; None for any other file."""
    commit = file.parent
    repository = commit.parent.parent
    kind, *parts = repository.name.split("--")
    if commit.parent.name != "snapshots" or kind != "models" or len(parts) != 2:
        return None
    return Reference("/".join(parts), commit.name)


def folder(given: str, *, download: bool = False) -> Path:
    """Return the folder with the files of a repository.

    Args:
        given: ``hf://owner/name`` or ``hf://owner/name@revision``.
        download: ask the hub, and fetch what the cache lacks; without it the cache alone is read.

    Raises:
        FerError: it names no repository, has no network, cannot be fetched, or is not in the cache; or the extra is
            missing.
    """
    reference = Reference.of(given)
    return _fetched(reference) if download else _cached(reference)


def library() -> Any:
    """Return the module ``huggingface_hub``.

    Raises:
        FerError: it is missing.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants  # the package alone loads nothing
        import huggingface_hub.utils
    except ImportError as error:
        raise FerError(f"{PREFIX} needs huggingface_hub, the extra hub: {INSTALL}") from error
    for client in ("httpx", "httpx2"):  # of which each version has one; both report every request
        logging.getLogger(client).setLevel(logging.WARNING)
    return huggingface_hub


# --- reading --------------------------------------------------------------------------------------------------------


def _cached(reference: Reference) -> Path:
    """Return the folder of a repository in the cache.

    Raises:
        FerError: it is not there.
    """
    hub = library()
    files = [hub.try_to_load_from_cache(reference.name, name, revision=reference.revision) for name in NEEDED]
    if not all(isinstance(file, str) for file in files):
        raise FerError(
            f"{reference}: not in the cache ({hub.constants.HF_HUB_CACHE}), and nothing is fetched unasked; add "
            "--download, or call fer.load(..., download=True) once"
        )
    return Path(files[0]).parent


def _fetched(reference: Reference) -> Path:
    """Return the folder of a repository in the cache, after the hub was asked for its newest files.

    Raises:
        FerError: the hub does not answer, has no such repository, or files that are too large or no network's.
    """
    hub = library()
    with _explained(reference, "fetched"):
        about = hub.HfApi().model_info(
            reference.name, revision=reference.revision, files_metadata=True, timeout=SECONDS
        )  # fmt: skip
        sizes = {file.rfilename: file.size for file in about.siblings or () if file.rfilename in OF_USE}
        _check_sizes(reference, sizes)
        # the config first, under the name that was given, which the cache then knows; the rest of that very commit
        config = Path(hub.hf_hub_download(reference.name, CONFIG, revision=reference.revision))
        if config.parent.name != about.sha:
            raise FerError(f"{reference}: was changed while it was fetched; try again")
        for name in sizes.keys() - {CONFIG}:
            address = hub.hf_hub_url(reference.name, name, revision=about.sha)
            _check_size(reference, name, hub.get_hf_file_metadata(address, timeout=SECONDS).size)  # of the file itself
            hub.hf_hub_download(reference.name, name, revision=about.sha)
    return config.parent


def _check_sizes(reference: Reference, sizes: dict[str, int | None]) -> None:
    """Raise unless the files that are needed are there, and none is too large.

    Raises:
        FerError: naming the file.
    """
    for name in NEEDED:
        if name not in sizes:
            raise FerError(f"{reference}: has no {name}; expected a repository that fer share has written")
    for name, size in sizes.items():
        _check_size(reference, name, size)


def _check_size(reference: Reference, name: str, size: int | None) -> None:
    """Raise where a file is too large, or the hub does not say how large it is.

    Raises:
        FerError: naming the file.
    """
    if size is None or not 0 <= size <= OF_USE[name]:
        count = "an unknown number of" if size is None else f"{size:,}"
        raise FerError(f"{reference}: {name} has {count} bytes; expected at most {OF_USE[name]:,}")


@contextmanager
def _explained(reference: Reference, done: str) -> Iterator[None]:
    """Turn the errors of ``huggingface_hub`` into one line.

    Raises:
        FerError: the hub refused, or did not answer.
    """
    from huggingface_hub import errors

    try:
        with _bars():
            yield
    except FerError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise FerError(f"{reference}: not {done}, since HF_HUB_OFFLINE is set; unset it") from error
    except errors.GatedRepoError as error:
        raise FerError(f"{reference}: access has to be asked for on its page, {_address(reference)}") from error
    except errors.RevisionNotFoundError as error:
        raise FerError(f"{reference}: the repository has no revision {reference.revision or MAIN!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise FerError(f"{reference}: no such repository, or a private one; {_about_token()}") from error
    except errors.HfHubHTTPError as error:
        raise FerError(f"{reference}: not {done}, {_answer(error)}") from error
    except UnicodeEncodeError:
        raise FerError(f"{reference}: not {done}, the token is not plain ASCII; {SIGN_IN}") from None
    except json.JSONDecodeError as error:
        raise FerError(f"{reference}: not {done}, {_no_hub(error)}") from error
    except ValueError as error:  # metadata of a card that the hub refuses
        raise FerError(f"{reference}: not {done} ({_in_one_line(error)})") from error
    except (TypeError, LookupError, AttributeError, errors.FileMetadataError) as error:  # JSON of another meaning
        raise FerError(f"{reference}: not {done}, {_no_hub(error)}") from error
    except Exception as error:  # those of the HTTP client that this version of huggingface_hub uses
        if isinstance(error, OSError) and error.errno in LOCAL:
            where = error.filename or library().constants.HF_HUB_CACHE
            remedy = "HF_HOME names another folder"
            raise FerError(f"{reference}: not {done}; {where}: {error.strerror}; {remedy}") from error
        raise FerError(f"{reference}: not {done}, {_silence(error)}") from error


@contextmanager
def _bars() -> Iterator[None]:
    """Show the progress of files on a terminal alone, where nothing but a person reads it."""
    of_hub = library().utils
    if sys.stderr.isatty() or of_hub.are_progress_bars_disabled():
        yield
        return
    of_hub.disable_progress_bars()
    try:
        yield
    finally:
        of_hub.enable_progress_bars()


def _about_token() -> str:
    return "the token may not read it" if library().get_token() else f"for a private one {SIGN_IN}"


def _answer(error: Any) -> str:
    """Return in words what the hub answered in place of what it was asked."""
    status = getattr(error.response, "status_code", None)
    if status in (401, 403):
        return f"the token does not allow it ({status})" if library().get_token() else f"no token; {SIGN_IN}"
    return f"{_endpoint()} answered {status} ({_in_one_line(error.server_message or error)})"


def _silence(error: Exception) -> str:
    """Return in words why there was no answer."""
    endpoint = _endpoint()
    if "Timeout" in type(error).__name__:
        return f"{endpoint} did not answer in time; try again later"
    return f"{endpoint} could not be reached ({_in_one_line(error)})"


def _no_hub(error: Exception) -> str:
    """Return in words that what answered speaks another language, such as a page that asks to log in."""
    return f"{_endpoint()} did not answer as the hub does; is HF_ENDPOINT right? ({_in_one_line(error)})"


def _endpoint() -> str:
    """Return the hub's address for messages, without a password in it."""
    return _without_password(library().constants.ENDPOINT)


def _without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://", text)


def _in_one_line(error: object) -> str:
    """Return the start of a text without control characters; a token or password that an answer repeats is left out."""
    text = _without_password(str(error))
    if (token := library().get_token()) and token in text:
        text = text.replace(token, "***")
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text[:150] or type(error).__name__


# --- writing --------------------------------------------------------------------------------------------------------


def check_upload(reference: Reference) -> None:
    """Raise unless an upload can begin: the extra is there, and a token.

    Raises:
        FerError: naming the remedy.
    """
    if not library().get_token():
        raise FerError(f"{reference}: an upload needs a token that may write; {SIGN_IN}")


def upload(folder: Path, files: Sequence[str], reference: Reference, *, private: bool) -> str:
    """Write files of a folder to a repository as one commit, and return the address of what was written.

    Args:
        folder: with the files.
        files: names in it.
        reference: the repository, which is made if it is not there, and a branch of it, likewise.
        private: whether a new repository is hidden from others.

    Raises:
        FerError: there is no token, or the hub refuses or does not answer.
    """
    check_upload(reference)
    api = library().HfApi()
    with _explained(reference, "uploaded"):
        api.create_repo(reference.name, private=private, exist_ok=True)
        if reference.revision:
            api.create_branch(reference.name, branch=reference.revision, exist_ok=True)
        api.upload_folder(
            repo_id=reference.name, folder_path=folder, allow_patterns=list(files), revision=reference.revision,
            commit_message="A network of fer",
        )  # fmt: skip
    return _address(reference)


def _address(reference: Reference) -> str:
    tree = f"/tree/{reference.revision}" if reference.revision else ""
    return f"{_endpoint()}/{reference.name}{tree}"
