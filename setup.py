"""What pyproject.toml cannot say: the packages found, and configs/, in a wheel vidformers/configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["vidformers", "vidformers.*"]), "vidformers.configs"],
    package_dir={"vidformers.configs": "configs"},
)
