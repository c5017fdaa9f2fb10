"""compat: repairs what is broken here, and touches nothing in an environment that works."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


def run_python(code: str, *, extra_path: Path | None = None) -> str:
    """Runs code in a fresh interpreter (import order matters here); returns its output."""
    paths = [str(REPO)] if extra_path is None else [str(extra_path), str(REPO)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_fake_torchvision(folder: Path, *, old_module: bool, extra_init: str = "") -> Path:
    transforms = folder / "torchvision" / "transforms"
    transforms.mkdir(parents=True)
    (folder / "torchvision" / "__init__.py").write_text(extra_init)
    (transforms / "__init__.py").write_text("")
    (transforms / "_functional_tensor.py").write_text("WHICH = 'new'")
    if old_module:
        (transforms / "functional_tensor.py").write_text("WHICH = 'old'")
    return folder


@pytest.fixture(scope="module")
def torchvision_is_broken() -> bool:
    code = """
    try:
        import torchvision
        print("works")
    except RuntimeError as error:
        assert "torchvision::nms" in str(error), error
        print("broken")
    """
    return run_python(code).strip() == "broken"


def test_real_torchvision_and_pytorchvideo_import(torchvision_is_broken: bool) -> None:
    """The libraries installed here, broken or not: everything that this package uses imports and runs."""
    code = """
    import sys
    from vidformers import compat
    assert "torchvision" not in sys.modules, "vidformers.compat must not import torchvision by itself"
    first, second = compat.prepare_torchvision(), compat.prepare_torchvision()
    import torch, torchvision
    from torchvision.ops import StochasticDepth
    from torchvision.transforms import v2
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    assert v2.Resize((4, 4))(image).shape == (3, 4, 4)
    assert StochasticDepth(0.5, "row").eval()(torch.ones(2)).sum() == 2
    print(first, second, torchvision.extension._has_ops())
    third = compat.prepare_pytorchvideo()
    import pytorchvideo.data, pytorchvideo.transforms
    assert compat.prepare_pytorchvideo() is False
    """
    first, second, has_ops = run_python(code).split()
    assert second == "False", "a second call must find nothing left to do"
    assert (first == "True") == torchvision_is_broken
    if torchvision_is_broken:
        assert has_ops == "False"


def test_pytorchvideo_alone_prepares_torchvision_too() -> None:
    run_python("""
    from vidformers import compat
    compat.prepare_pytorchvideo()
    from pytorchvideo.data.clip_sampling import make_clip_sampler
    from pytorchvideo.transforms import RandAugment
    """)


def test_nms_still_fails_with_torchvisions_own_words(torchvision_is_broken: bool) -> None:
    if not torchvision_is_broken:
        pytest.skip("torchvision's operators load here")
    run_python("""
    import torch
    from vidformers.compat import prepare_torchvision
    prepare_torchvision()
    import torchvision
    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except RuntimeError as error:
        assert "Couldn't load custom C++ ops" in str(error), error
    else:
        raise AssertionError("nms ran without its C++ library")
    """)


def test_operators_already_there_are_left_alone(tmp_path: Path) -> None:
    """A healthy torchvision registers its operators when its library loads: then nothing is declared."""
    make_fake_torchvision(tmp_path, old_module=True)
    run_python(
        """
        import sys, torch
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from vidformers import compat
        assert compat.prepare_torchvision() is False
        assert "torchvision" not in sys.modules
        assert compat.prepare_pytorchvideo() is False
        assert compat._declared == []
        import torchvision.transforms.functional_tensor as functional_tensor
        assert functional_tensor.WHICH == "old", "the real module was replaced by the alias"
        """,
        extra_path=tmp_path,
    )


def test_loadable_library_declares_nothing(tmp_path: Path) -> None:
    """The C++ library loads: no schema of ours, though the operators were not there before the question."""
    make_fake_torchvision(tmp_path, old_module=True)
    (tmp_path / "torchvision" / "_C.so").write_bytes(b"")
    run_python(
        """
        import torch
        loaded = []
        torch.ops.load_library = loaded.append
        from vidformers import compat
        assert compat.prepare_torchvision() is False
        assert len(loaded) == 1 and loaded[0].endswith("_C.so")
        assert compat._declared == [] and not hasattr(torch.ops.torchvision, "nms")
        """,
        extra_path=tmp_path,
    )


@pytest.mark.parametrize("damage", ["missing", "not a library"])
def test_library_that_cannot_load_is_replaced_by_schemas(tmp_path: Path, damage: str) -> None:
    make_fake_torchvision(
        tmp_path,
        old_module=False,
        extra_init="import torch\ntorch.library.register_fake('torchvision::nms')(lambda *a: a)\n",
    )
    if damage == "not a library":
        (tmp_path / "torchvision" / "_C.so").write_bytes(b"no ELF file")
    run_python(
        """
        from vidformers import compat
        assert compat.prepare_torchvision() is True
        import torchvision
        assert compat.prepare_torchvision() is False
        assert compat.prepare_pytorchvideo() is True
        import torchvision.transforms.functional_tensor as functional_tensor
        assert functional_tensor.WHICH == "new"
        assert torchvision.transforms.functional_tensor is functional_tensor
        """,
        extra_path=tmp_path,
    )


def test_import_vidformers_leaves_torchvision_alone() -> None:
    run_python("""
    import sys
    import vidformers
    heavy = {"torchvision", "pytorchvideo", "decord", "av"} & set(sys.modules)
    assert not heavy, heavy
    """)
