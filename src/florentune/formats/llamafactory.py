"""LLaMA-Factory's sharegpt rows with the Florence-2 answer text, and the dataset_info.json that names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AnnotationError, InputError
from ..files import read_json, write_json
from ..locations import OD_TASK, regions_to_text
from ..regions import Page
from .dataset import DataSet
from .folder import ImageFolder
from .rows import RowReader, read_rows
from .values import quoted

SUFFIXES = (".json",)
REGISTRY = "dataset_info.json"
_PROMPTS = (OD_TASK, "Locate the objects with category name in the image.")
_SOURCES = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")


@dataclass(frozen=True, slots=True)
class Keys:
    """How a sharegpt row names its parts: the `columns` and `tags` of an entry in dataset_info.json."""

    messages: str = "messages"
    images: str = "images"
    role: str = "role"
    content: str = "content"
    user: str = "user"
    assistant: str = "assistant"

    def entry(self, file_name: str) -> dict[str, Any]:
        """The entry of dataset_info.json for a file with these keys."""
        return {
            "file_name": file_name,
            "formatting": "sharegpt",
            "columns": {"messages": self.messages, "images": self.images},
            "tags": {
                "role_tag": self.role,
                "content_tag": self.content,
                "user_tag": self.user,
                "assistant_tag": self.assistant,
            },
        }


OPENAI_STYLE = Keys()
SHAREGPT_STYLE = Keys("conversations", "images", "from", "value", "human", "gpt")


def read(path: Path, *, images: ImageFolder | None = None, keys: Keys | None = None) -> DataSet:
    """The pages of a sharegpt file (`.json` or `.jsonl`) whose rows ask <OD> about one image each.

    `images` is the media_dir, by default the folder of the file; every image's header is read, because the answers
    hold bins only. Without `keys` both usual spellings are understood. Boxes are bin centres. Raises AnnotationError.
    """
    reader = RowReader(path, images or ImageFolder(path.parent))
    for index, row in enumerate(read_rows(path)):
        page = row_to_page(reader, row, f"row {index}", keys)
        if page is not None:
            reader.pages.append(page)
    return reader.dataset()


def row_to_page(reader: RowReader, row: object, about: str, keys: Keys | None = None) -> Page | None:
    """The page of one row, or None and an issue in `reader`."""
    if not isinstance(row, dict):
        reader.issue("bad_row", about, f"{quoted(row)} is not an object")
        return None
    keys = keys or (SHAREGPT_STYLE if SHAREGPT_STYLE.messages in row else OPENAI_STYLE)
    turns = _turns(row.get(keys.messages), keys)
    if turns is None:
        reader.issue("bad_row", about, f"'{keys.messages}' must be one {keys.user} and one {keys.assistant} message")
        return None
    prompt, answer = turns
    if not isinstance(prompt, str) or prompt.replace("<image>", "").strip() not in _PROMPTS:
        reader.issue("other_task", about, f"asks {quoted(prompt)}")
        return None
    images = row.get(keys.images)
    if not isinstance(images, list) or len(images) != 1:
        reader.issue("bad_row", about, f"'{keys.images}' must be a list of one path")
        return None
    return reader.answer(answer, images[0], about)


def _turns(messages: object, keys: Keys) -> tuple[Any, Any] | None:
    """The contents of the user's and the assistant's message, if these two are all there is."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return None
    if [message.get(keys.role) for message in messages] != [keys.user, keys.assistant]:
        return None
    return messages[0].get(keys.content), messages[1].get(keys.content)


def write(dataset: DataSet, path: Path) -> None:
    """Write one row a page in the shape of LLaMA-Factory's demo; images are named as in the pages, none is copied."""
    write_json(path, [page_to_row(page) for page in dataset.pages])


def page_to_row(page: Page) -> dict[str, Any]:
    """One row: the user asks <OD>, the assistant answers with the regions in the order of the page."""
    answer = regions_to_text(page.regions, page.width, page.height)
    messages = [{"content": OD_TASK, "role": "user"}, {"content": answer, "role": "assistant"}]
    return {"messages": messages, "images": [page.image]}


def register(registry: Path, files: Mapping[str, Path]) -> None:
    """Add or update the entries of `files` ({name: rows file}) in a dataset_info.json; other entries stay as they are.

    File names are written relative to the registry's folder where they lie below it, else absolute, as LLaMA-Factory
    resolves them. Raises AnnotationError when the file is not a registry; then nothing is written.
    """
    known = _registry(registry) if registry.exists() else {}
    folder = registry.parent.resolve()
    for name, path in files.items():
        full = path.resolve()
        entry = OPENAI_STYLE.entry(full.relative_to(folder).as_posix() if full.is_relative_to(folder) else str(full))
        known[name] = {**known[name], **entry} if isinstance(known.get(name), dict) else entry
    write_json(registry, known)


def read_registered(registry: Path, name: str, *, media_dir: Path | None = None) -> DataSet:
    """The data set that a dataset_info.json calls `name`; images are looked up in `media_dir`, by default its folder.

    Raises AnnotationError naming the key when the entry is missing or of a kind that holds no boxes (alpaca, hub).
    """
    known = _registry(registry)
    where = f"{registry}: {name!r}"
    if name not in known:
        raise AnnotationError(f"{where} is not registered; known are {', '.join(sorted(known)) or 'none'}")
    entry = known[name]
    if not isinstance(entry, dict):
        raise AnnotationError(f"{where} must be an object")
    remote = [key for key in _SOURCES if entry.get(key)]
    if remote or not isinstance(entry.get("file_name"), str):
        raise AnnotationError(f"{where}: only 'file_name' is read, not {', '.join(remote) or 'an entry without it'}")
    if entry.get("formatting", "alpaca") != "sharegpt":
        raise AnnotationError(f"{where}: 'formatting' must be sharegpt, it is {entry.get('formatting', 'alpaca')!r}")
    rows = registry.parent / entry["file_name"]
    return read(rows, images=ImageFolder(media_dir or registry.parent), keys=_keys(entry, where))


def _registry(path: Path) -> dict[str, Any]:
    known = read_json(path, AnnotationError, unique_keys=True)
    if not isinstance(known, dict):
        raise AnnotationError(f"{path}: must be an object of data sets by name")
    return known


def _keys(entry: Mapping[str, Any], where: str) -> Keys:
    """The keys an entry asks for; as in LLaMA-Factory, a group that is given at all must be complete."""
    columns = _group(entry, "columns", {"messages": "conversations"}, where)
    tags = _group(entry, "tags", SHAREGPT_STYLE.entry("")["tags"], where)
    try:
        return Keys(
            columns["messages"],
            columns["images"],
            *(tags[key] for key in ("role_tag", "content_tag", "user_tag", "assistant_tag")),
        )
    except KeyError as error:
        raise AnnotationError(f"{where}: 'columns' and 'tags' must name {error}") from None


def _group(entry: Mapping[str, Any], key: str, default: dict[str, str], where: str) -> dict[str, str]:
    group = entry.get(key, default)
    if not isinstance(group, dict) or not all(isinstance(value, str) for value in group.values()):
        raise AnnotationError(f"{where}: '{key}' must be an object of names")
    return group


def check_names(names: Iterable[str]) -> None:
    """Raise InputError for a name that LLaMA-Factory's comma list could not hold."""
    for name in names:
        if not name.strip() or "," in name:
            raise InputError(f"data set name {name!r} is empty or holds a comma; choose another with --name")
