"""Fixtures that several families share."""

import pytest

from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.datasets.synthetic.writing import write_synthetic_shards


@pytest.fixture(scope="session")
def scenes_with_depth(tmp_path_factory):
    """Shards of eight small objects with depth, which tests read and do not change."""
    folder = tmp_path_factory.mktemp("scenes")
    write_synthetic_shards(SyntheticScenes(image_size=(32, 32), views=6, scenes=8, depth=True), folder, workers=1)
    return folder
