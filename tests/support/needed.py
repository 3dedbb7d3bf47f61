"""Programs that `.ci/network` installs."""

import os
import shutil

import pytest


def program(name: str) -> str:
    """Its path; where it is missing the test fails in a sentence."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"{name} is missing: run .ci/network as root, which installs it.", pytrace=False)
    return found
