"""Uploads an adapter folder to the Hugging Face hub; nothing else of a training leaves the machine."""

from __future__ import annotations

from pathlib import Path

from vlinstruct.errors import NetworkError

_UPLOADED = ["README.md", "alignment_config.json", "alignment.safetensors", "lora/*", "curve.png", "log.jsonl"]


def require_login() -> None:
    """Makes sure that an upload can succeed, before anything is trained.

    Raises:
        NetworkError: nobody is logged in, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().whoami()
    except Exception as error:
        raise NetworkError(
            "cannot push to the hub: it does not know who you are",
            advice="Log in with `hf auth login`, or train without --push-to-hub.",
            code="not_logged_in",
        ) from error


def push_adapter(folder: Path, repository: str) -> str:
    """Uploads a finished adapter into a repository, which is made, private, if it is missing.

    Args:
        folder: the adapter's; optimizer, features and checkpoints stay here.
        repository: `owner/name`.

    Returns:
        The address of the repository.

    Raises:
        NetworkError: it could not be uploaded; the folder is as it was.
    """
    from huggingface_hub import HfApi

    try:
        url = HfApi().create_repo(repository, private=True, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, folder_path=folder, allow_patterns=_UPLOADED)
    except Exception as error:
        what = f"cannot push {folder} to {repository}: {type(error).__name__}"
        raise NetworkError(what, advice="The adapter is finished and lies there; `hf upload` takes it too.") from error
    return str(url)
