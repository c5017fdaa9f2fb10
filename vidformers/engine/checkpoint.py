"""Checkpoints of a run: written atomically, read without executing anything, newest readable one first.

A file holds plain data and tensors only, so that `torch.load(weights_only=True)` reads it: `model`, `ema` (or
None), `optimizer` and `scaler` state dicts, `epoch` (finished epochs), `step` (finished steps of the epoch
begun), `totals` (sums of the log line under way), `best` (best validation score or None) and `best_loss`
(the loss beside it), `num_classes`, `class_names` (or None), `multi_label` (whether a video has a set of
classes), `config` (YAML text) and `vidformers` (the version that wrote it).

A sharded run (TRAIN.SHARD) writes a folder instead: the tensors in torch.distributed.checkpoint's format,
each process its own part, and the rest in `run.pyth`, with the checksums of the parts as `files`.
`export_sharded` makes a file of it.
"""

import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vidformers.checkpoints.read import refuse_bombs
from vidformers.engine.distributed import gathered, is_main_process, rank, wait_for_all, world_size
from vidformers.engine.logs import say
from vidformers.files import write_text_atomically

BEST = "best.pyth"
_NAME = re.compile(r"checkpoint_epoch_(\d+)(?:_step_(\d+))?\.(?:pyth|sharded)$")
_REST = "run.pyth"


def checkpoint_path(folder: Path, epoch: int, step: int = 0, *, sharded: bool = False) -> Path:
    """PySlowFast's file name for the state after `epoch` finished epochs; with `step` steps of the next."""
    within = f"_step_{step:06d}" if step else ""
    return folder / f"checkpoint_epoch_{epoch:05d}{within}.{'sharded' if sharded else 'pyth'}"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` so that a crash at any moment leaves the old files whole.

    Raises OSError, that says what to do, where it cannot be written.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch's own of a write that failed is a RuntimeError
        cause = _cause(error)
        if not isinstance(cause, Exception):  # Ctrl-C while torch was writing
            raise cause from None
        told = " ".join(str(cause).split())[:200]
        raise OSError(
            f"checkpoint {path} could not be written ({told}); those before it are whole. Make "
            "room, or keep fewer (TRAIN.KEEP_CHECKPOINTS), and give the same command again: it goes on "
            "from the newest"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _cause(error: BaseException) -> BaseException:
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def save_sharded(path: Path, tensors: dict[str, Any], rest: dict[str, Any]) -> None:
    """Write a checkpoint folder, all processes together; it appears under its name when it is complete."""
    import torch.distributed.checkpoint as dcp

    temporary = path.with_name(path.name + ".part")
    if is_main_process():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    wait_for_all()
    dcp.save(tensors, checkpoint_id=temporary)
    names = sorted(file.name for file in temporary.iterdir())
    own = {name: _checksum(temporary / name) for name in names[rank() :: world_size()]}
    files = {name: checksum for part in gathered(own) for name, checksum in part.items()}
    if is_main_process():
        save_checkpoint(temporary / _REST, {**rest, "files": files})
        shutil.rmtree(path, ignore_errors=True)  # one that could not be read
        temporary.rename(path)
    wait_for_all()


def export_sharded(folder: Path, path: Path) -> None:
    """Make one file of a sharded checkpoint: as an ordinary one without the optimizer, or .safetensors,
    which says its model, protocol and classes too (`checkpoints.metadata`).

    Raises FileNotFoundError where there is no such folder, ValueError where it is not a whole checkpoint.
    """
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    if not (folder / _REST).is_file():
        problem = ValueError if folder.is_dir() else FileNotFoundError
        raise problem(
            f"{folder} is not a sharded checkpoint; wanted a folder with {_REST}, as a run writes it"
        )
    rest = torch.load(folder / _REST, map_location="cpu", weights_only=True)
    _check_files(folder, rest.pop("files"))
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(path.name + ".whole")
    try:
        dcp_to_torch_save(folder, whole)
        tensors = torch.load(whole, map_location="cpu", weights_only=True, mmap=True)
        weights = tensors.get("ema") or tensors["model"]
        if path.suffix == ".safetensors":
            from safetensors.torch import save_file

            from vidformers.checkpoints.metadata import to_header
            from vidformers.engine.protocol import own_metadata

            try:
                said = own_metadata(rest, str(folder))
            except ValueError as error:  # of a model that is registered elsewhere
                said = None
                say(f"{path} does not say what it is of, as {error}")
            # What was trained without labels is only a part of the model that its config names.
            header = to_header(said) if said and said.protocol else None
            temporary = path.with_name(path.name + ".part")
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary, header)
            os.replace(temporary, path)
        else:
            save_checkpoint(path, {**rest, "model": weights})
    finally:
        whole.unlink(missing_ok=True)


def list_checkpoints(folder: Path, *, sharded: bool = False) -> list[Path]:
    """The run's checkpoints, oldest first; of a file and a folder of the same moment the file comes last,
    with `sharded` the folder. (A sharded run ends with both.)"""
    if not folder.is_dir():
        return []

    def place(path: Path) -> tuple[int, int, bool]:
        return *_place(path), (path.suffix == ".sharded") == sharded

    return sorted((path for path in folder.iterdir() if _NAME.match(path.name)), key=place)


def newest_place(folder: Path) -> tuple[int, int]:
    """Finished epochs, and finished steps of the next, of the newest checkpoint in `folder`; 0, 0 if none."""
    paths = list_checkpoints(folder)
    return _place(paths[-1]) if paths else (0, 0)


def _place(path: Path) -> tuple[int, int]:
    match = _NAME.match(path.name)
    assert match
    return int(match[1]), int(match[2] or 0)


def keep_last(folder: Path, count: int, *, written: Path) -> None:
    """Delete all but the newest `count` checkpoints up to `written`, and what an interrupted write left.

    A later one than that just written is one that could not be read: it is no reason to delete another.
    """
    paths = list_checkpoints(folder)
    for path in (*paths[: paths.index(written) + 1][:-count], *folder.glob("*.part")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def load_newest_checkpoint(folder: Path, *, sharded: bool = False) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint in `folder` that all processes can read, or None when there is none at all.

    A damaged one is named and the one before it is used. Of a sharded one only the rest is read, and the
    tensors' files compared with their checksums; `sharded` says which of two of the same moment
    (`list_checkpoints`). Raises ValueError when checkpoints exist and none can be read: starting again from
    nothing would silently throw the run away; and when the processes see different files.
    """
    paths = list_checkpoints(folder, sharded=sharded)
    names = gathered([path.name for path in paths])
    if any(others != names[0] for others in names):
        newest = ", ".join(others[-1] if others else "none" for others in names)
        raise ValueError(
            f"The processes found different checkpoints in {folder} (the newest: {newest}). OUTPUT_DIR must "
            "be a folder that all share."
        )
    for path in reversed(paths):
        state, problem = None, ""
        try:
            state = _read(path)
        except Exception as error:  # torch.load raises half a dozen types for a damaged file
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        problems = [found for found in gathered(problem) if found]
        if state is not None and not problems:
            return path, state
        say(f"Checkpoint {path} cannot be read ({problems[0]}); trying the one before it.")
    if paths:
        raise ValueError(
            f"None of the {len(paths)} checkpoints in {folder} can be read. Delete them to start afresh, or "
            "set TRAIN.AUTO_RESUME False and another OUTPUT_DIR."
        )
    return None


def _read(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, of a folder without the tensors. Raises whatever is wrong with it."""
    if path.is_dir():
        state = torch.load(path / _REST, map_location="cpu", weights_only=True)
        files = state.pop("files")
        _check_files(path, {name: files[name] for name in sorted(files)[rank() :: world_size()]})
        return state
    refuse_bombs(str(path), str(path))
    with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} in it is damaged")
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_files(folder: Path, checksums: Mapping[str, int]) -> None:
    for name, checksum in checksums.items():
        if not (folder / name).is_file() or _checksum(folder / name) != checksum:
            raise ValueError(f"{name} is damaged or missing in {folder}")


def _checksum(path: Path) -> int:
    value = 0
    with open(path, "rb") as file:
        while part := file.read(1 << 24):
            value = zlib.crc32(part, value)
    return value


def check_num_classes(
    path: str | Path,
    of_checkpoint: int | None,
    names_of_checkpoint: Sequence[str] | None,
    num_classes: int,
    class_names: Sequence[str] | None,
    *,
    purpose: str,
) -> None:
    """Raise ValueError where the checkpoint is known to have another number of classes than the model,
    `num_classes`. class_names: those of the videos. purpose: what was to be done with it ("test it")."""
    if of_checkpoint in (None, num_classes):
        return
    known = f" ({_some(names_of_checkpoint)})" if names_of_checkpoint else ""
    if class_names and len(class_names) == num_classes:
        ours, fits = f"the data has {num_classes} ({_some(class_names)})", "give the data it was trained on"
    else:
        ours, fits = f"MODEL.NUM_CLASSES is {num_classes}", f"set MODEL.NUM_CLASSES {of_checkpoint}"
    start = path if not Path(path).is_dir() else Path(path).with_name(BEST)
    raise ValueError(
        f"the checkpoint {path} knows {of_checkpoint} classes{known}, {ours}. To {purpose}, {fits}; for a "
        f"new run set another OUTPUT_DIR, and TRAIN.CHECKPOINT_FILE_PATH {start} to start from its weights "
        "with a new classifier."
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])


def check_class_names(
    path: str | Path, of_checkpoint: Sequence[str] | None, of_videos: Sequence[str] | None, output: Path
) -> None:
    """Compare the classes that weights were trained with to those of the dataset, name by name.

    Nothing is said where either is unknown; case, quotes and underscores do not count. A dataset whose names
    are all the checkpoint's, but at other labels, would have its videos counted under wrong names: a
    ValueError, and `checkpoint_classes.txt` in `output` holds the right order. Other names are said.
    """
    if not of_checkpoint or not of_videos:
        return
    theirs, ours = ([_plain(name) for name in names] for names in (of_checkpoint, of_videos))
    unknown = [given for given, plain in zip(of_videos, ours, strict=True) if plain not in theirs]
    if unknown:
        say(
            f"{path} was trained with other classes: {len(unknown)} of the dataset's {len(ours)} are not "
            f"among its {len(theirs)}, such as {unknown[0]!r}."
        )
        return
    moved = [label for label, name in enumerate(ours) if theirs[label : label + 1] != [name]]
    if not moved:
        return
    output.mkdir(parents=True, exist_ok=True)
    right = output / "checkpoint_classes.txt"
    write_text_atomically(right, "\n".join(of_checkpoint) + "\n")
    label = moved[0]
    there = repr(of_checkpoint[label]) if label < len(of_checkpoint) else "no class"
    raise ValueError(
        f"{path} was trained with the classes in another order: label {label} is {there} there and "
        f"{of_videos[label]!r} in the dataset, and so for {len(moved)} of {len(ours)}. Number the dataset's "
        f"classes as {right} does (for class folders: copy it to their parent as classes.txt)."
    )


def share_no_class(of_checkpoint: Sequence[str] | None, of_videos: Sequence[str] | None) -> bool:
    """Whether both are known and not one name is in both, spelt as `check_class_names` reads them."""
    if not of_checkpoint or not of_videos:
        return False
    return {_plain(name) for name in of_checkpoint}.isdisjoint(_plain(name) for name in of_videos)


def _plain(name: str) -> str:
    return name.strip().strip("\"'").replace("_", " ").casefold()
