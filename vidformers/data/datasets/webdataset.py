"""WebDataset shards: tar files of `key.mp4` with `key.json` (or `key.cls`) beside it, one pair a video.

https://github.com/webdataset/webdataset describes the format; readers of that package stream whole shards.
Here an index says where in its shard each video lies, and the decoder reads it there: every record can be
reached as if it were a file, so that sampling, resuming and sharing among processes are those of files, and
so are the clips, bit by bit. Nothing is unpacked.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vidformers.data.datasets.annotations import list_folder, read_json
from vidformers.data.paths import path_manager
from vidformers.data.records import NO_LABEL, VIDEO_EXTENSIONS, Classes, Record, VideoList, read_classes
from vidformers.data.tar_parts import TarPart
from vidformers.files import json_text

INDEX_NAME = "index.json"
INDEX_FORMAT = "vidformers shards 1"
SHARD_SUFFIX = ".tar"
# Far more than a label and its neighbours need.
_MAX_LABEL_BYTES = 1 << 20


@dataclass(frozen=True)
class Sample:
    """A video in a shard: the member that holds it, where its content lies (bytes), and what is known of it.

    position: its place in the list that the shards were made from, where they say so.
    """

    member: str
    offset: int
    size: int
    label: int
    video_id: str
    position: int | None = None
    labels: tuple[int, ...] | None = None
    actions: tuple[tuple[int, float, float], ...] = ()


@dataclass(frozen=True)
class Shard:
    """A tar file of a folder and what it holds."""

    file: str
    num_bytes: int
    samples: list[Sample]


def load_webdataset(root: str, split: str, *, backend: str) -> VideoList:
    """train/, val/ and test/ with shards (.tar), written by data_prep/shards.py or the webdataset package

    "val" and "test" stand in for each other where one is not there. The videos come in the order of the list
    that the shards were made from, whatever order they have in the shards. classes.json or classes.txt in
    `root` names the classes; else the index does. A folder without index.json is scanned.
    """
    if backend == "frames":
        raise ValueError(
            "DATA.DECODING_BACKEND is 'frames', which reads folders of images; shards hold videos: use 'pyav'"
        )
    for name in (split,) if split == "train" else (split, "test" if split == "val" else "val"):
        folder = os.path.join(root, name)
        index_path = os.path.join(folder, INDEX_NAME)
        notes: tuple[str, ...] = ()
        if is_there(index_path):
            classes, shards = read_index(index_path)
        elif files := shard_files(folder):
            classes, shards = None, [scan_shard(os.path.join(folder, file)) for file in files]
            notes = (
                f"{folder} has no {INDEX_NAME}: its {len(files)} shards were scanned, as they will be every "
                f"time. `python data_prep/shards.py {folder} --index` writes one.",
            )
        else:
            continue
        samples = [(os.path.join(folder, shard.file), s) for shard in shards for s in shard.samples]
        if not samples:
            raise ValueError(f"the shards of '{folder}' hold no video")
        if all(sample.position is not None for _, sample in samples):
            samples.sort(key=lambda pair: pair[1].position or 0)
        return VideoList([_record(*pair) for pair in samples], _class_file(root) or classes, folder, notes)
    begun = f"{split}.part is there: the command that began it goes on with it; "
    raise FileNotFoundError(
        f"'{root}' has no shards for {split}; wanted {os.path.join(root, split)} with {INDEX_NAME} or "
        f"*{SHARD_SUFFIX}. {begun if list_folder(os.path.join(root, f'{split}.part')) else ''}"
        "data_prep/shards.py makes shards of any dataset."
    )


def _record(shard_path: str, sample: Sample) -> Record:
    path = TarPart(shard_path, sample.offset, sample.size, sample.member).path
    return Record(path, sample.label, sample.video_id, sample.labels, sample.actions)


def is_there(path: str) -> bool:
    """Whether there is a file, on a web server too, of which that can only be asked by fetching it."""
    paths = path_manager()
    try:
        return bool(paths.isfile(path))
    except NotImplementedError:
        try:
            return os.path.isfile(paths.get_local_path(path))
        except OSError:
            return False


def _class_file(root: str) -> Classes | None:
    try:
        return read_classes(root)
    except NotImplementedError:  # a web server; the index has the names
        return None


def shard_files(folder: str) -> list[str]:
    """Names of the shards in a folder, in order; ValueError if they are compressed."""
    names = sorted(name for name in list_folder(folder) or [] if not name.startswith("."))
    packed = [name for name in names if re.search(r"\.(tgz|tar\.\w+)$", name)]
    if packed:
        raise ValueError(
            f"'{os.path.join(folder, packed[0])}' is compressed, so that no video in it can be reached "
            f"without reading all before it; decompress the {len(packed)} files (videos do not get smaller)"
        )
    return [name for name in names if name.endswith(SHARD_SUFFIX)]


# ---- the index


def write_index_text(shards: Sequence[Shard], classes: Classes | None, source: str) -> str:
    """The content of index.json."""
    content = {
        "format": INDEX_FORMAT,
        "source": source,
        "num_samples": sum(len(shard.samples) for shard in shards),
        "classes": None if classes is None else asdict(classes),
        "shards": [
            {
                "file": shard.file,
                "num_bytes": shard.num_bytes,
                "num_samples": len(shard.samples),
                "samples": [_brief(sample) for sample in shard.samples],
            }
            for shard in shards
        ],
    }
    return json_text(content) + "\n"


def _brief(sample: Sample) -> dict[str, Any]:
    """A sample without the fields that say nothing."""
    fields = asdict(sample)
    for name in ("position", "labels"):
        if fields[name] is None:
            del fields[name]
    if not sample.actions:
        del fields["actions"]
    return fields


def read_index(path: str) -> tuple[Classes | None, list[Shard]]:
    """(classes, shards) of an index.json; ValueError if it is no index or names files outside its folder."""
    content = read_json(path_manager().get_local_path(path))
    try:
        if content["format"] != INDEX_FORMAT:
            raise ValueError(f"its format is {content['format']!r}, wanted {INDEX_FORMAT!r}")
        classes = None if content["classes"] is None else Classes(**content["classes"])
        shards = []
        for entry in content["shards"]:
            file = entry["file"]
            if os.path.basename(file) != file or "\\" in file or not file.endswith(SHARD_SUFFIX):
                raise ValueError(
                    f"it names the shard {file!r}, which is no {SHARD_SUFFIX} file in its folder"
                )
            samples = [_sample_of_index(file, sample) for sample in entry["samples"]]
            if len(samples) != entry["num_samples"]:
                raise ValueError(f"it lists {len(samples)} of the {entry['num_samples']} samples of {file}")
            shards.append(Shard(file, entry["num_bytes"], samples))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"'{path}' is not an index of shards ({type(error).__name__}: {error}); move it away and run "
            f"`python data_prep/shards.py {os.path.dirname(path)} --index`"
        ) from error
    return classes, shards


def _sample_of_index(file: str, entry: dict[str, Any]) -> Sample:
    _check_member_name(entry["member"], file)
    offset, size = entry["offset"], entry["size"]
    if not (isinstance(offset, int) and isinstance(size, int) and offset >= tarfile.BLOCKSIZE and size >= 0):
        raise ValueError(f"offset {offset!r} and size {size!r} of {entry['member']!r} are no place in a file")
    return Sample(entry["member"], offset, size, **_known(entry, f"{file}: {entry['member']}"))


# ---- shards


def scan_shard(path: str) -> Shard:
    """What a shard holds, by reading its headers and labels.

    Raises ValueError that names the shard if it is no whole tar file, or holds something else than samples: a
    link, a member whose name leaves the folder, a video without a label. Nothing is ever unpacked, but other
    programs unpack what they are given.
    """
    local = path_manager().get_local_path(path)
    videos: dict[str, tuple[str, int, int]] = {}
    known: dict[str, dict[str, Any]] = {}
    extensions: dict[str, list[str]] = {}
    try:
        with tarfile.open(local, "r:") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isdir():
                    continue
                _check_member_name(name, path)
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
                    raise ValueError(f"'{name}' in '{path}' is a link or a special file; wanted plain files")
                # As the webdataset package splits names: at the first dot of the last part.
                match = re.fullmatch(r"((?:.*/)?[^./]+)(\.[^/]*)", name, flags=re.DOTALL)
                if match is None or re.fullmatch("__.*__", match[1]):
                    continue
                key, extension = match[1], match[2].lower()
                extensions.setdefault(key, []).append(extension)
                if extension in VIDEO_EXTENSIONS:
                    if key in videos:
                        raise ValueError(f"'{path}' holds two videos named '{key}'; wanted one a sample")
                    videos[key] = (name, member.offset_data, member.size)
                elif extension in (".json", ".cls"):
                    if member.size > _MAX_LABEL_BYTES:
                        raise ValueError(
                            f"'{name}' in '{path}' has {member.size} bytes, too many for a label"
                        )
                    file = tar.extractfile(member)
                    assert file is not None
                    found = _label_of(file.read(), extension, f"'{name}' in '{path}'")
                    known[key] = found | known.get(key, {})
            _check_end(tar, local, path)
            num_bytes = os.path.getsize(local)
    except (tarfile.TarError, EOFError, MemoryError, OverflowError) as error:  # of a header of 2^60 bytes
        said = str(error) or type(error).__name__
        raise ValueError(f"'{path}' is no whole tar file ({said}); fetch or write it again") from error
    lacking = next((key for key in extensions if key not in videos), None)
    if lacking is not None:
        raise ValueError(
            f"sample '{lacking}' in '{path}' has {', '.join(extensions[lacking])} and no video; wanted "
            f"{', '.join(VIDEO_EXTENSIONS[:5])}, ..."
        )
    samples = []
    for key, (name, offset, size) in videos.items():
        entry = {"video_id": key} | known.get(key, {})
        samples.append(Sample(name, offset, size, **_known(entry, f"sample '{key}' in '{path}'")))
    return Shard(os.path.basename(path), num_bytes, samples)


def _check_member_name(name: str, where: str) -> None:
    parts = re.split(r"[/\\]", name)
    if not name or name[0] in "/\\" or ".." in parts or "\0" in name or re.match("[A-Za-z]:", name):
        raise ValueError(f"'{where}' holds a file named {name!r}, which leaves the folder; refused")


def _check_end(tar: tarfile.TarFile, local: str, path: str) -> None:
    """tarfile takes a damaged header for the end of the archive."""
    with open(local, "rb") as file:
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ValueError(
                f"'{path}' is damaged or cut short at byte {tar.offset}; fetch or write it again"
            )


def _label_of(data: bytes, extension: str, where: str) -> dict[str, Any]:
    """What key.json says, or {"label": ...} of key.cls."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} cannot be read ({error}); wanted JSON, or a number in .cls") from error
    if extension == ".cls":
        return {"label": content}
    if not isinstance(content, dict):
        raise ValueError(f'{where} is {str(content)[:100]!r}; wanted an object such as {{"label": 17}}')
    return content


def _known(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of a Sample that say what it shows, checked."""
    labels, label, position = entry.get("labels"), entry.get("label"), entry.get("position")
    each = [label] if labels is None else labels
    if not isinstance(each, list) or not all(
        isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in each
    ):
        said = "no label" if each == [None] else f"the label {each}"
        raise ValueError(
            f'{where} has {said}; wanted a whole number from 0 as "label", or a list as "labels"'
        )
    return {
        "label": label if labels is None else NO_LABEL,
        "video_id": str(entry["video_id"]),
        "position": position if isinstance(position, int) else None,
        "labels": None if labels is None else tuple(labels),
        "actions": () if labels is None else _actions(entry.get("actions", []), where),
    }


def _actions(entries: Any, where: str) -> tuple[tuple[int, float, float], ...]:
    try:
        return tuple((int(label), float(start), float(end)) for label, start, end in entries)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where} has the actions {str(entries)[:100]}; wanted [[label, start, end], ...] in seconds"
        ) from error
