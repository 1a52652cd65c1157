import pytest

from fsdet.data import sources


@pytest.fixture(autouse=True)
def _fresh_process() -> None:
    """A dataset is read once per process; each test starts as a new one."""
    for memo in (sources._loaded, sources._prepared, sources._read):
        memo.cache_clear()
