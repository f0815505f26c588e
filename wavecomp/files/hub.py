"""Models on the Hugging Face Hub."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from wavecomp.files.config import CONFIG
from wavecomp.files.models import load
from wavecomp.files.shared import WEIGHTS, save_shared
from wavecomp.modules import Module

CARD = """---
library_name: wavecomp
---

# {name}

A `{kind}` of wavecomp.

```python
{code}
```
"""


class Pretrained(Module):
    """A model that is saved whole, and shared on the Hugging Face Hub.

    The methods and their arguments are those of ``huggingface_hub.PyTorchModelHubMixin``. A folder holds
    ``config.yaml``, from which the model is built, and ``model.safetensors``; :func:`wavecomp.load` reads it too. The
    Hub itself needs ``pip install 'wavecomp[hub]'``.
    """

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model to a folder, which is made if need be.

        Raises:
            ValueError: a model that would not come back as it is, because a part does not remember what it was built
                with (see :class:`wavecomp.Module`) or was changed since; or the folder of a run.
        """
        save_shared(self, folder)

    @classmethod
    def from_pretrained(
        cls,
        folder_or_repo_id: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        trusted: Sequence[str] = (),
    ) -> Self:
        """A model that was saved, in eval mode, on the CPU.

        Args:
            folder_or_repo_id: a folder, or a repository on the Hub, ``"someone/their-model"``.
            revision, token, cache_dir, local_files_only, force_download: as in ``huggingface_hub.snapshot_download``.
            trusted: packages that the config may name classes of, besides wavecomp and ``torch.nn``.

        Raises:
            ImportError: a repository, without ``huggingface_hub``.
            FileNotFoundError: a folder that holds no model.
            ValueError: a model of another class, one that names classes which are not trusted, or damaged files.
        """
        folder = Path(folder_or_repo_id)
        if not folder.is_dir():
            folder = Path(
                _huggingface_hub(f"{folder_or_repo_id} is no folder here").snapshot_download(
                    str(folder_or_repo_id),
                    revision=revision,
                    token=token,
                    cache_dir=cache_dir,
                    local_files_only=local_files_only,
                    force_download=force_download,
                    allow_patterns=[CONFIG, WEIGHTS],
                )
            )
        model = load(folder, trusted=trusted)
        if not isinstance(model, cls):
            raise ValueError(f"{folder_or_repo_id} holds a {type(model).__name__}; allowed: {cls.__name__}")
        return model

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push model using wavecomp.",
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Save the model to a repository on the Hub, which is made if need be; a card of one's own stays.

        Args:
            repo_id: ``"someone/their-model"``.
            commit_message, token, create_pr: as in ``huggingface_hub.HfApi.upload_folder``.
            private: of a new repository.
            branch: to push to; the main one unless given.

        Returns:
            The address of the commit.

        Raises:
            ImportError: without ``huggingface_hub``.
            ValueError: what :meth:`save_pretrained` refuses.
        """
        api: Any = _huggingface_hub("push_to_hub needs huggingface_hub").HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if not api.file_exists(repo_id, "README.md", revision=branch):
                kind = type(self).__name__
                card = CARD.format(name=repo_id.split("/")[-1], kind=kind, code=_example(type(self), repo_id))
                (Path(folder) / "README.md").write_text(card)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=commit_message, revision=branch, create_pr=create_pr
            )
        return str(commit.commit_url)


def _example(kind: type, repo_id: str) -> str:
    """How a model is loaded; a class of somebody's own has to be trusted."""
    name, package = kind.__name__, kind.__module__.partition(".")[0]
    if package == "wavecomp":
        return f'import wavecomp as wc\n\nmodel = wc.{name}.from_pretrained("{repo_id}")'
    loaded = f'{name}.from_pretrained("{repo_id}", trusted=["{package}"])'
    return f"from {kind.__module__} import {name}\n\nmodel = {loaded}"


def _huggingface_hub(reason: str) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ImportError(f"{reason}; for the Hub: pip install 'wavecomp[hub]'") from error
