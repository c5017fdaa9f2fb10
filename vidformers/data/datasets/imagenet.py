"""ImageNet and other folders of images: an image is a video of one frame."""

from __future__ import annotations

import os

from vidformers.data.datasets.annotations import list_folder
from vidformers.data.paths import near_it, path_manager
from vidformers.data.readers.frames import IMAGE_EXTENSIONS
from vidformers.data.records import Classes, Record, VideoList, class_order


def load_imagenet(root: str, split: str, *, backend: str) -> VideoList:
    """train/ and val/, each with one subfolder of images a class, as torchvision's ImageFolder reads them

    A clip of an image is that image DATA.NUM_FRAMES times, so set DATA.NUM_FRAMES 1 to train and test as on
    images, and more to see an inflated model on still clips. Frames are resized and cropped as those of
    videos are (bilinear, no antialiasing), not as image models are usually tested. "test" is val.
    """
    if backend != "frames":
        raise ValueError(
            f"DATA.DECODING_BACKEND is {backend!r}; images are read with DATA.DECODING_BACKEND frames"
        )
    folder = os.path.join(root, "train" if split == "train" else "val")
    if not path_manager().isdir(folder):
        raise FileNotFoundError(
            f"there is no folder '{folder}'; wanted one subfolder of images a class in it{near_it(folder)}"
        )
    train = os.path.join(root, "train")
    # Plain alphabetical order, as ImageFolder's labels and published weights have it.
    names = class_order(root, sorted(_class_folders(train) or _class_folders(folder)))
    labels = {name: label for label, name in enumerate(names)}
    records = []
    for name in sorted(_class_folders(folder)):
        if name not in labels:
            raise ValueError(f"'{folder}' has the class folder {name!r}, which '{train}' has not")
        for image in sorted(list_folder(os.path.join(folder, name)) or []):
            if image.lower().endswith(IMAGE_EXTENSIONS):
                records.append(Record(os.path.join(folder, name, image), labels[name], f"{name}/{image}"))
    if not records:
        raise ValueError(
            f"no image in the subfolders of '{folder}'; wanted class_name/image.jpg (ImageNet's validation "
            f"images have to be moved into folders of their classes first). Known extensions: "
            f"{' '.join(IMAGE_EXTENSIONS)}"
        )
    return VideoList(records, Classes(names), folder)


def _class_folders(folder: str) -> list[str]:
    entries = [name for name in list_folder(folder) or [] if not name.startswith(".")]
    return [
        name
        for name in entries
        if not name.lower().endswith(IMAGE_EXTENSIONS) and path_manager().isdir(os.path.join(folder, name))
    ]
