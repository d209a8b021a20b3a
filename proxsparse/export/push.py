"""Pushing an export to the Hugging Face Hub: one commit with all of its files, and nothing in it that belongs to this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn

from proxsparse import __version__
from proxsparse.errors import ProxSparseError
from proxsparse.files import COMPACT_FILE, MASKS_FILE, PROVENANCE_FILE, local_path, read_json
from proxsparse.models.origin import origin_of

MAIN = "main"
ITS_OWN = ".gitattributes"  # a file that the Hub puts into every repository


def check_target(repo: str, revision: str | None = None) -> None:
    """Raise ProxSparseError where nothing could be pushed to `repo`, as far as that is known without asking the Hub: called before
    an export that takes long."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError:
        repo = ""
    if "/" not in repo:
        raise ProxSparseError(
            "What is pushed needs a name such as org/model, of letters, digits, and - _ . between them: give one."
        )
    if revision is not None and (not revision or revision.startswith(("-", "refs/")) or " " in revision):
        raise ProxSparseError(f"revision is {revision!r}: give the name of a branch.")
    if constants.HF_HUB_OFFLINE:
        raise ProxSparseError("The Hub is switched off by HF_HUB_OFFLINE: unset it to push.")
    if get_token() is None:
        raise ProxSparseError("There is no token for the Hub: run `hf auth login`, or set HF_TOKEN.")


def push(directory: str | Path, repo: str, proof: dict, revision: str | None = None, public: bool = False) -> dict:
    """Push an export to the model repository `repo`, which is made where there is none.

    A repository that is there is written to if it is empty or holds an earlier export, whose files are replaced. Everything
    goes into one commit: a push that fails changes nothing there.

    Parameters
    ----------
    directory : str or Path
        What `export_model` wrote. What its provenance says of paths on this machine is shortened to names.
    repo : str
        Such as org/model.
    proof : dict
        What `verify` found in this directory just now, as its `to_dict` gives it and a report of an export holds it.
    revision : str, optional
        The branch; it is made where there is none. Default: main.
    public : bool
        Whether everybody may see a repository that is made. One that is public already is only written to with this.

    Returns
    -------
    dict
        "repo", "url" (of the commit), "revision", "private", "files" (names).

    Raises
    ------
    ProxSparseError
        Where the proof failed, there is no token or no network, the name is taken, or the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
    from huggingface_hub.errors import HTTPError

    directory = local_path(directory)
    if not proof["ok"]:
        raise ProxSparseError(f"{directory} is not pushed. {proof['summary']}")
    check_target(repo, revision)
    provenance = read_json(directory / PROVENANCE_FILE, default={}) or {}
    content = {name: directory / name for name in _files(directory)} | {PROVENANCE_FILE: _portable(provenance)}
    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        info = api.model_info(repo)
        if not info.private and not public:
            raise ProxSparseError(f"{repo} is public, and so would be what is pushed: give --public if you mean it.")
        there = {file.rfilename for file in info.siblings or ()} - {ITS_OWN}
        if there and MASKS_FILE not in there:
            raise ProxSparseError(
                f"{repo} is taken: it holds files that are no export of proxsparse; choose another name."
            )
        if revision not in (None, MAIN):
            api.create_branch(repo, branch=revision, exist_ok=True)
            there = {*api.list_repo_files(repo, revision=revision)} - {ITS_OWN}
        operations = [CommitOperationAdd(name, source) for name, source in content.items()]
        operations += [CommitOperationDelete(name) for name in sorted(there - content.keys())]
        message, description = _message(directory, provenance, proof)
        commit = api.create_commit(
            repo, operations, commit_message=message, commit_description=description, revision=revision
        )
    except ProxSparseError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError) as error:  # an upload's own errors come as RuntimeError
        _refused(repo, error)
    return {
        "repo": repo, "url": str(commit.commit_url), "revision": revision or MAIN, "private": bool(info.private),
        "files": sorted(content),
    }  # fmt: skip


def _files(directory: Path) -> list[str]:
    """The names of all files in an export, with their folders. Hidden ones, such as a .git, are no part of it."""
    found = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        if any(part.startswith(".") for part in name.parts):
            continue
        if path.is_symlink():
            raise ProxSparseError(
                f"{directory} holds a link ({name}), which may lead anywhere: put the file itself there."
            )
        if path.is_file():
            found.append(name.as_posix())
    return found


def _portable(provenance: dict) -> bytes:
    """The provenance with names in the place of paths."""

    def without_paths(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_paths(each) for key, each in value.items()}
        if isinstance(value, list):
            return [without_paths(each) for each in value]
        if isinstance(value, str) and os.path.isabs(os.path.expanduser(value)):
            origin = origin_of(value)
            return origin.hub_id or Path(value).name
        return value

    return (json.dumps(without_paths(provenance), indent=2) + "\n").encode()


def _message(directory: Path, provenance: dict, proof: dict) -> tuple[str, str]:
    """Summary and description of the commit."""
    title = origin_of(str(provenance.get("model") or directory.name)).title
    format = "compact" if (directory / COMPACT_FILE).is_file() else "dense"
    made = f" by {provenance['method']}" if "method" in provenance else ""
    groups = sum(layer["groups"] for layer in proof["layers"])
    return (
        f"{title} under {proof['pattern']} masks{made}, {format} checkpoint",
        f"Verified by proxsparse {__version__}: {groups:,} groups of {len(proof['layers'])} layers are {proof['pattern']}, and every kept "
        f"weight equals that of {title}.",
    )


def _refused(repo: str, error: Exception) -> NoReturn:
    """One sentence for what went wrong, by the causes that huggingface_hub chains together."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    organization, cause = repo.split("/")[0], error
    while not isinstance(cause, HfHubHTTPError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, HfHubHTTPError):
        status, told = cause.response.status_code, " ".join((cause.server_message or "").split())[:200]
        because = f" ({told})" if told else ""
        sentences = {
            401: f"The Hub does not accept your token{because}: run `hf auth login` with a token that may write.",
            403: f"Your token may not write to {organization}{because}: use one that may, or another name.",
            404: f"The Hub has no {repo} that you may see{because}: check name and token.",
            409: f"The Hub says that {repo} is taken or was just changed{because}: try again, or choose another name.",
        }
        otherwise = f"The Hub answered with {status}{because}: try again later."
        raise ProxSparseError(sentences.get(status, otherwise)) from error
    if isinstance(error, ValueError):
        raise ProxSparseError(f"The Hub refuses what is pushed ({' '.join(str(error).split())[:200]}).") from error
    raise ProxSparseError(
        f"{constants.ENDPOINT} cannot be reached ({type(cause).__name__}): check the network, then push again."
    ) from error
