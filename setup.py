"""What pyproject.toml cannot say: the packages found, and configs/, in a wheel vidformers/configs."""

import sys

from setuptools import find_packages, setup

packages = find_packages(include=["vidformers", "vidformers.*"])
if "editable_wheel" in sys.argv:  # pip install -e
    # With a mapped folder setuptools installs a finder, which is asked after the working directory: in the
    # folder that holds the checkout, the checkout would be taken for the package. Without, it writes a path.
    setup(packages=packages, package_dir={"": "."})
else:
    setup(packages=[*packages, "vidformers.configs"], package_dir={"vidformers.configs": "configs"})
